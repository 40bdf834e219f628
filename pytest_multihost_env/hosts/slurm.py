"""Hosts of a Slurm job, from the variables that sbatch, salloc and srun set."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.merge import Entry, merge
from pytest_multihost_env.hosts.nodeset import MOST_HOSTS, expand, split_items
from pytest_multihost_env.model import Allocation

_COUNTS = re.compile(r"(\d{1,6})(?:\(x(\d{1,6})\))?")
_NODES = ("SLURM_JOB_NODELIST", "SLURM_NODELIST")
_SLOTS = ("SLURM_TASKS_PER_NODE", "SLURM_JOB_CPUS_PER_NODE")


class SlurmSource:
    """Slurm: the job's node list; slots are its tasks on each node, else its CPUs there (sbatch(1))."""

    name = "Slurm"

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts of the job that this process is part of; None outside of one.

        Raises:
            UsageProblem: The job's variables are missing or cannot be read: that never means one host.
        """
        variable = next((name for name in _NODES if environ.get(name)), None)
        if variable is None:
            if environ.get("SLURM_JOB_ID"):
                raise _bad("this is a Slurm job, but its node list is missing", _NODES[0])
            return None
        nodes = environ[variable]
        names = [name for item in split_items(nodes, variable) for name in expand(item, variable)]
        slots = _slots(environ, len(names))
        return merge([Entry(name, count, variable) for name, count in zip(names, slots, strict=True)], self.name)


def _slots(environ: Mapping[str, str], hosts: int) -> list[int]:
    variable = next((name for name in _SLOTS if environ.get(name)), None)
    if variable is None:
        return [1] * hosts
    counts: list[int] = []
    for part in environ[variable].split(","):
        match = _COUNTS.fullmatch(part)
        repeat = int(match[2] or 1) if match else 0
        if match is None or int(match[1]) < 1 or not 1 <= repeat <= MOST_HOSTS:
            raise _bad(f"{part!r} in {environ[variable]!r} is not a number of slots, as in 2(x3)", variable)
        counts += [int(match[1])] * repeat
        if len(counts) > MOST_HOSTS:
            break
    if len(counts) != hosts:
        raise _bad(f"{environ[variable]!r} is about {len(counts)} hosts, the node list names {hosts}", variable)
    return counts


def _bad(what: str, where: str) -> UsageProblem:
    return UsageProblem(what, where=where, hint="name the hosts with --multihost-hosts, as in n1:8,n2:8")
