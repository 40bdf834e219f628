"""Hosts of an LSF job, from the file or the variables that LSF sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.hostfile import parse, read
from pytest_multihost_env.hosts.merge import NAME_THEM
from pytest_multihost_env.model import Allocation, Host


class LsfSource:
    """LSF: each line of the job's host file is one slot; without the file, the variables that hold the same."""

    name = "LSF"

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts of the job that this process is part of; None outside of one.

        Raises:
            UsageProblem: The file or the variables are missing or cannot be read.
        """
        if path := environ.get("LSB_DJOB_HOSTFILE"):
            return Allocation(
                parse(read(Path(path), f"LSB_DJOB_HOSTFILE: {path}", NAME_THEM), path, NAME_THEM), self.name
            )
        if words := environ.get("LSB_MCPU_HOSTS", "").split():
            return Allocation(_pairs(words), self.name)
        # Left out by LSF where it would be longer than 4096 bytes, which the two above never are.
        if words := environ.get("LSB_HOSTS", "").split():
            return Allocation(tuple(Host(name, 1, "LSB_HOSTS") for name in words), self.name)
        if job := environ.get("LSB_JOBID"):
            raise UsageProblem(
                f"this is the LSF job {job}, but its hosts are missing",
                where="LSB_DJOB_HOSTFILE, LSB_MCPU_HOSTS and LSB_HOSTS are not set",
                hint=NAME_THEM,
            )
        return None


def _pairs(words: list[str]) -> tuple[Host, ...]:
    names, counts = words[::2], words[1::2]
    wrong = next((count for count in counts if not (count.isascii() and count.isdigit() and 0 < len(count) < 7)), None)
    if len(names) != len(counts) or wrong is not None:
        problem = f"{wrong!r} is not a number of slots" if wrong is not None else f"{names[-1]!r} has no slots"
        raise UsageProblem(
            problem, where="LSB_MCPU_HOSTS", expected="a host and its slots in turns, as in n1 8 n2 8", hint=NAME_THEM
        )
    return tuple(Host(name, int(count), "LSB_MCPU_HOSTS") for name, count in zip(names, counts, strict=True))
