"""Hosts of a Flux job or instance, as the program `flux` tells them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pytest_multihost_env import process
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.merge import NAME_THEM
from pytest_multihost_env.hosts.nodeset import unfold
from pytest_multihost_env.model import Allocation, Host

LIMIT = 60.0
_LIST, _RESOURCES = ("flux", "hostlist", "local"), ("flux", "resource", "R")


class FluxSource:
    """Flux: in a job its hosts with the tasks on each, in `flux alloc` and `flux batch` the instance's with their cores.

    Flux says almost nothing through variables (flux-environment(7)), so it is asked.
    """

    name = "Flux"

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts of the job or the instance that this process is part of; None outside of one.

        Raises:
            UsageProblem: `flux` is missing, fails, or says something that is not understood.
        """
        in_job = bool(environ.get("FLUX_JOB_ID"))
        if not in_job and not environ.get("FLUX_URI"):
            return None
        where = " ".join(_LIST)
        names = unfold(_ask(_LIST, environ).strip(), where)
        slots = _tasks(environ, names) if in_job else _cores(_ask(_RESOURCES, environ), names)
        return Allocation(tuple(Host(name, count, where) for name, count in slots.items() if count), self.name)


def _ask(argv: tuple[str, ...], environ: Mapping[str, str]) -> str:
    try:
        done = process.run(argv, env=environ, timeout=LIMIT)
    except OSError as error:
        raise _bad(f"{argv[0]} cannot be started: {error.strerror}", argv) from None
    if done.timed_out:
        raise _bad(f"no answer within {LIMIT:g} s", argv)
    if not done:
        raise _bad(f"flux ended with code {done.code}", argv, done.stderr or done.stdout)
    if not done.stdout.strip():
        raise _bad("the answer is empty", argv, done.stderr)
    return done.stdout


def _tasks(environ: Mapping[str, str], names: list[str]) -> dict[str, int]:
    """Return the job's tasks on each host: Flux spreads them evenly, the first hosts have one more."""
    text = environ.get("FLUX_JOB_SIZE", str(len(names)))
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise UsageProblem(f"{text!r} is not a number of tasks", where="FLUX_JOB_SIZE", hint=NAME_THEM)
    share, more = divmod(int(text), len(names))
    found = dict.fromkeys(names, 0)
    for number, name in enumerate(names):
        found[name] += share + (number < more)
    return found


def _cores(answer: str, names: list[str]) -> dict[str, int]:
    """Return how many cores the instance has on each host (Flux RFC 20); a host without any is not scheduled on."""
    from ClusterShell.RangeSet import RangeSet, RangeSetException

    cores: list[int] = []
    try:
        execution = json.loads(answer)["execution"]
        for entry in execution["R_lite"]:
            count = len(RangeSet(entry["children"]["core"].strip("[]")))
            cores += [count] * len(RangeSet(entry["rank"].strip("[]")))
        hosts = unfold(",".join(execution["nodelist"]), " ".join(_RESOURCES))
        if len(hosts) != len(cores):
            raise _bad(f"{len(hosts)} hosts and the cores of {len(cores)}", _RESOURCES, answer)
    except (ValueError, TypeError, KeyError, AttributeError, RangeSetException) as error:
        problem = f"the answer is not understood: {type(error).__name__}: {error}"
        raise _bad(problem, _RESOURCES, answer) from None
    found = dict.fromkeys(names, 0)
    for name, count in zip(hosts, cores, strict=True):
        found[name] = found.get(name, 0) + count
    return found


def _bad(what: str, argv: tuple[str, ...], said: str = "") -> UsageProblem:
    return UsageProblem(
        f"this is a Flux job, but its hosts cannot be found: {what}",
        where=" ".join(argv),
        hint=NAME_THEM,
        details={"it said": said.strip()[:2000]},
    )
