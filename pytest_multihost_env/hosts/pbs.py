"""Hosts of a PBS job, from its node file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.hostfile import parse, read
from pytest_multihost_env.hosts.merge import NAME_THEM
from pytest_multihost_env.model import Allocation

_HOMES = ("/var/spool/pbs", "/var/spool/PBS", "/var/spool/torque")


class PbsSource:
    """PBS Professional, OpenPBS and Torque: each line of the node file is one slot (pbs_environment(7B)).

    A shell that has the job's number but not the variable (one that was opened with ssh) finds the file where the
    daemon on each host keeps it: `aux/` of its home.
    """

    name = "PBS"

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts of the job that this process is part of; None outside of one.

        Raises:
            UsageProblem: The node file is missing, empty, or has a line that is not a host.
        """
        path, where = environ.get("PBS_NODEFILE", ""), "PBS_NODEFILE"
        job = environ.get("PBS_JOBID", "")
        if not path and job:
            places = list(_places(environ, job))
            path, where = next((place for place in places if os.path.lexists(place)), ""), "PBS_JOBID"
            # Slurm's qsub sets the number of the job and no more; Slurm's own variables are there then.
            if not path and not environ.get("SLURM_JOB_ID"):
                raise UsageProblem(
                    f"this is the PBS job {job}, but its node file is missing",
                    where="PBS_NODEFILE is not set, and there is no " + ", ".join(places),
                    hint=NAME_THEM,
                )
        if not path:
            return None
        return Allocation(parse(read(Path(path), f"{where}: {path}", NAME_THEM), path, NAME_THEM), self.name)


def _places(environ: Mapping[str, str], job: str) -> Iterator[str]:
    homes = [environ.get("PBS_HOME"), _configured(environ.get("PBS_CONF_FILE", "/etc/pbs.conf")), *_HOMES]
    for home in dict.fromkeys(homes):
        if home and "/" not in job:
            yield f"{home}/aux/{job}"


def _configured(file: str) -> str | None:
    """Return PBS_HOME as PBS's own configuration has it."""
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return None
    return next((line.partition("=")[2].strip() for line in lines if line.startswith("PBS_HOME=")), None)
