"""Which hosts this job has, and how many ranks each may run."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_multihost_env.config import Settings
from pytest_multihost_env.hosts.hostfile import HostfileSource
from pytest_multihost_env.hosts.machine import MachineSource, is_local
from pytest_multihost_env.hosts.option import OptionSource
from pytest_multihost_env.hosts.pbs import PbsSource
from pytest_multihost_env.hosts.slurm import SlurmSource
from pytest_multihost_env.model import Allocation
from pytest_multihost_env.protocols import HostSource

__all__ = [
    "HostfileSource",
    "MachineSource",
    "OptionSource",
    "PbsSource",
    "SlurmSource",
    "find",
    "is_local",
    "sources",
]


def sources(settings: Settings) -> tuple[HostSource, ...]:
    """Return the built-in sources, in the order in which they are asked."""
    asked: list[HostSource] = []
    if settings.hosts is not None:
        asked.append(OptionSource(settings.hosts, settings.origin("hosts")))
    if settings.hostfile is not None:
        asked.append(HostfileSource(settings.hostfile, settings.origin("hostfile")))
    return (*asked, PbsSource(), SlurmSource(), MachineSource())


def find(settings: Settings, environ: Mapping[str, str]) -> Allocation:
    """Return the hosts of this job: setting `hosts` > setting `hostfile` > PBS > Slurm > this machine.

    Raises:
        UsageProblem: The first source that has something to say cannot say it: that is never "one host".
    """
    for source in sources(settings):
        allocation = source.find(environ)
        if allocation is not None:
            return allocation
    raise AssertionError("this machine always answers")
