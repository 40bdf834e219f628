"""Hosts of a Slurm job, from the variables that sbatch, salloc and srun set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.merge import NAME_THEM
from pytest_multihost_env.hosts.nodeset import MOST_HOSTS, unfold
from pytest_multihost_env.model import Allocation, Host

_COUNTS = re.compile(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?")
_NODES = ("SLURM_JOB_NODELIST", "SLURM_NODELIST")
_TASKS, _STEP_TASKS, _CPUS = "SLURM_TASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_CPUS_PER_NODE"


class SlurmSource:
    """Slurm: the job's node list; slots are its tasks on each node, else its CPUs there (sbatch(1)).

    The components of a heterogeneous job have variables of their own, with `_HET_GROUP_0` and so on after the usual
    name; their hosts follow each other.
    """

    name = "Slurm"

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts of the job that this process is part of; None outside of one.

        Raises:
            UsageProblem: The job's variables are missing or cannot be read: that never means one host.
        """
        hosts = [host for group in _groups(environ) for host in _hosts(environ, group)]
        if hosts:
            return Allocation(tuple(hosts), self.name)
        if environ.get("SLURM_JOB_ID"):
            raise _bad("this is a Slurm job, but its node list is missing", _NODES[0])
        return None


def _groups(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what the names of the job's variables end in, for each of its components."""
    size = environ.get("SLURM_HET_SIZE", "")
    if not size and f"{_NODES[0]}_HET_GROUP_0" not in environ:
        yield ""
        return
    if size and not re.fullmatch("[1-9][0-9]{0,3}", size):
        raise _bad(f"{size!r} is not a number of components", "SLURM_HET_SIZE")
    for number in range(int(size)) if size else itertools.count():
        group = f"_HET_GROUP_{number}"
        if any(environ.get(name + group) for name in _NODES):
            yield group
        elif size:
            raise _bad(f"component {number} of {size} of this Slurm job has no node list", _NODES[0] + group)
        else:
            return


def _hosts(environ: Mapping[str, str], group: str) -> list[Host]:
    variable = next((name + group for name in _NODES if environ.get(name + group)), None)
    if variable is None:
        return []
    names = unfold(environ[variable], variable)
    counts = _slots(environ, group, len(names))
    return [Host(name, count, variable) for name, count in zip(names, counts, strict=True)]


def _slots(environ: Mapping[str, str], group: str, hosts: int) -> list[int]:
    tasks = environ.get(_TASKS + group)
    for variable in (_TASKS + group, _CPUS + group):
        text = environ.get(variable)
        if not text:
            continue
        counts = _counts(text, variable)
        if len(counts) == hosts:
            return counts
        # srun on a part of the job puts the tasks of its step there.
        if variable == _TASKS and environ.get(_STEP_TASKS) == tasks:
            continue
        raise _bad(f"{text[:80]!r} is about {len(counts)} hosts, the node list names {hosts}", variable)
    return [1] * hosts


def _counts(text: str, variable: str) -> list[int]:
    counts: list[int] = []
    for part in text.split(","):
        match = _COUNTS.fullmatch(part)
        repeat = int(match[2] or 1) if match else 0
        if match is None or int(match[1]) < 1 or not 1 <= repeat <= MOST_HOSTS:
            raise _bad(f"{part[:40]!r} in {text[:80]!r} is not a number of slots, as in 2(x3)", variable)
        counts += [int(match[1])] * repeat
        if len(counts) > MOST_HOSTS:
            break
    return counts


def _bad(what: str, where: str) -> UsageProblem:
    return UsageProblem(what, where=where, hint=NAME_THEM)
