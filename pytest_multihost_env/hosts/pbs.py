"""Hosts of a PBS job, from PBS_NODEFILE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.hostfile import read
from pytest_multihost_env.hosts.merge import Entry, merge
from pytest_multihost_env.model import Allocation


class PbsSource:
    """PBS Professional, OpenPBS and Torque: each line of the node file is one slot (pbs_environment(7B))."""

    name = "PBS"

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts of the job that this process is part of; None outside of one.

        Raises:
            UsageProblem: The node file is missing, empty, or has a line that is not a host name.
        """
        path = environ.get("PBS_NODEFILE")
        if not path:
            return None
        lines = read(Path(path), f"PBS_NODEFILE={path}").splitlines()
        entries = [Entry(line.strip(), 1, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
        if not entries:
            raise UsageProblem(
                "the node file of the PBS job names no host",
                where=f"PBS_NODEFILE={path}",
                hint="name the hosts with --multihost-hosts",
            )
        return merge(entries, self.name)
