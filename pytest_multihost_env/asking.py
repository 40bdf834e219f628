"""Questions to all hosts of a plan: a command on each, a snapshot of each, programs to talk to, and who cannot answer."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_multihost_env.check.doctor.case import Case
from pytest_multihost_env.errors import LaunchFailed, Misplaced, MultihostError, NotReady
from pytest_multihost_env.launch.job import Job
from pytest_multihost_env.launch.talk import Talk
from pytest_multihost_env.model import Completed, Place, Placement
from pytest_multihost_env.provision import trust
from pytest_multihost_env.provision.job import trust_of
from pytest_multihost_env.telling import launcher_text

if TYPE_CHECKING:
    from pytest_multihost_env.plan import Plan

HOST_LIMIT = 120.0


def on_every_host(plan: Plan, argv: tuple[str, ...], stdin: str, timeout: float = HOST_LIMIT) -> dict[str, Completed]:
    """Run a command once on every host of the job, in the environment of its first rank.

    A host that cannot run it is in the answer with the reason, never left out.  No answer holds a secret.

    Raises:
        Misplaced: The launcher does not start ranks where they were to be.
    """
    return {host: _shown(plan, done) for host, done in _on_hosts(plan, argv, stdin, timeout).items()}


def _on_hosts(plan: Plan, argv: tuple[str, ...], stdin: str, timeout: float) -> dict[str, Completed]:
    names = plan.allocation.names
    try:
        job = plan.start(_one_each(names))
    except Misplaced:
        raise
    except LaunchFailed as error:
        if len(names) == 1:
            return {names[0]: Completed(names[0], None, "", "", error=str(error))}
        return {name: _on_host(plan, name, argv, stdin, timeout) for name in names}
    try:
        return _gather(plan, job, argv, stdin, timeout)
    finally:
        job.close()


def _on_host(plan: Plan, name: str, argv: tuple[str, ...], stdin: str, timeout: float) -> Completed:
    try:
        job = plan.start(_one_each((name,)), limit=30.0)
    except MultihostError as error:
        return Completed(name, None, "", "", error=str(error))
    try:
        return _gather(plan, job, argv, stdin, timeout)[name]
    finally:
        job.close()


def _gather(plan: Plan, job: Job, argv: tuple[str, ...], stdin: str, timeout: float) -> dict[str, Completed]:
    places = {spot.rank: spot for spot in job.placement.places}
    output = dict.fromkeys(places, "")
    answers: dict[int, Completed] = {}
    for spot in places.values():
        job.send(spot.rank, {**plan.order_of_check(argv, spot), "stdin": stdin})
    end = time.monotonic() + timeout
    while len(answers) < len(places) and time.monotonic() < end:
        for rank, message in job.poll(end - time.monotonic()):
            host = places[rank].host
            if message["t"] == "output":
                output[rank] += str(message["data"])
            elif message["t"] == "exit":
                answers[rank] = Completed(host, int(message["code"]), output[rank], str(message["output"]))
            elif message["t"] in {"failed", "lost"} and rank not in answers:
                answers[rank] = Completed(host, None, output[rank], "", error=str(message["why"]))
    late = f"no answer within {timeout:g} s"
    for rank, spot in places.items():
        answers.setdefault(rank, Completed(spot.host, None, output[rank], "", error=late))
    return {places[rank].host: answers[rank] for rank in sorted(answers)}


def _shown(plan: Plan, done: Completed) -> Completed:
    error = done.error and plan.redact(done.error)
    return Completed(done.host, done.code, plan.redact(done.stdout), plan.redact(done.stderr), error)


def talk(plan: Plan, argv: tuple[str, ...]) -> Talk:
    """Start a program on every host that can be reached, to be asked in turns; `{channel}` becomes its channel."""
    names = plan.allocation.names
    silent: dict[str, str] = {}
    try:
        job: Job | None = plan.start(_one_each(names))
    except LaunchFailed as error:
        silent = _silent(plan, names, HOST_LIMIT) if len(names) > 1 else {}
        silent = silent or dict.fromkeys(names, str(error))
        well = tuple(name for name in names if name not in silent)
        job = plan.start(_one_each(well)) if well else None
    return Talk(job, lambda spot: plan.order_of_check(argv, spot), silent)


def snapshots(plan: Plan, request: Mapping[str, object]) -> dict[str, Completed]:
    """Have every host of the job take the snapshot that `request` describes (`check.values.request`).

    The answers are as the hosts gave them, and whoever shows them redacts: two values that a secret hides would
    otherwise be equal, and a secret that has a word of the answers in it would make them unreadable.
    """
    from pytest_multihost_env.check.values import command

    asked = command(plan.facts.python, request)
    return _on_hosts(plan, asked.argv, asked.stdin or "", HOST_LIMIT)


def case(plan: Plan) -> Case:
    """Return the job as the doctor sees it."""
    return Case(
        hosts=plan.allocation.names,
        target=plan.settings.target,
        python=plan.facts.python,
        launcher=functools.partial(launcher_text, plan),
        run=lambda argv: on_every_host(plan, argv, "", timeout=30.0),
        distrusted=functools.partial(distrusted, plan),
    )


def distrusted(plan: Plan, directory: Path) -> MultihostError | None:
    """Return why nothing below `directory` would be run, as seen from this machine; None when it would."""
    try:
        trust.trusted_path(directory, trust_of(plan.settings))
    except NotReady as problem:
        return problem
    return None


def unfit(plan: Plan, names: Iterable[str] = ()) -> dict[str, str]:
    """Return why, for each of these hosts (none: all of the job) that cannot start even one rank."""
    return _silent(plan, names, 30.0)


def _silent(plan: Plan, names: Iterable[str], timeout: float) -> dict[str, str]:
    nothing = (str(plan.facts.python), "-c", "pass")
    each = {name: _on_host(plan, name, nothing, "", timeout) for name in names}
    answers = each or _on_hosts(plan, nothing, "", timeout)
    return {name: plan.redact(done.error) for name, done in answers.items() if done.error}


def why_not(plan: Plan, error: LaunchFailed) -> LaunchFailed:
    """Return `error` with the hosts that cannot start even one rank named first."""
    if len(plan.allocation.hosts) == 1 or isinstance(error, Misplaced):
        return error
    bad = unfit(plan)
    if not bad:
        return error
    lines = "\n".join(f"{name}: {why}" for name, why in bad.items())
    return LaunchFailed(
        f"{', '.join(bad)} cannot run {plan.facts.python}\n{lines}",
        where=", ".join(bad),
        hint="make the host reachable without a password, or leave it out with --multihost-hosts",
    )


def _one_each(names: tuple[str, ...]) -> Placement:
    return Placement(tuple(Place(rank, name, 0) for rank, name in enumerate(names)))
