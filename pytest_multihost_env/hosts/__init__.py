"""Which hosts this job has, and how many ranks each may run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pytest_multihost_env.config import Settings
from pytest_multihost_env.errors import MultihostError, UsageProblem
from pytest_multihost_env.hosts.flux import FluxSource
from pytest_multihost_env.hosts.hostfile import HostfileSource
from pytest_multihost_env.hosts.lsf import LsfSource
from pytest_multihost_env.hosts.machine import MachineSource, is_local
from pytest_multihost_env.hosts.merge import merged
from pytest_multihost_env.hosts.nodeset import fold
from pytest_multihost_env.hosts.option import OptionSource
from pytest_multihost_env.hosts.pbs import PbsSource
from pytest_multihost_env.hosts.slurm import SlurmSource
from pytest_multihost_env.model import Allocation
from pytest_multihost_env.protocols import HostSource

__all__ = [
    "FluxSource",
    "HostfileSource",
    "LsfSource",
    "MachineSource",
    "OptionSource",
    "PbsSource",
    "SlurmSource",
    "built_in",
    "find",
    "fold",
    "is_local",
]

SUFFIXES = tuple(f"-hsn{number}" for number in range(8))
"""What Slingshot's interfaces are called: `x1000c0s0b0n0-hsn0` is the host `x1000c0s0b0n0`."""


def built_in() -> tuple[HostSource, ...]:
    """Return the schedulers that are known.  One that is started inside another's job is asked before it."""
    return (FluxSource(), PbsSource(), SlurmSource(), LsfSource())


def find(
    settings: Settings, environ: Mapping[str, str], registered: Iterable[HostSource], suffixes: Sequence[str] = ()
) -> Allocation:
    """Return the hosts of this job: setting `hosts` > setting `hostfile` > `registered` > this machine.

    Args:
        settings: What was asked for.
        environ: The environment of this process.
        registered: The sources that are asked when no setting names hosts, in this order.
        suffixes: Endings that name an interface of a host, not a host (`names.plain_host`).

    Raises:
        MultihostError: The first source that has something to say cannot say it: that is never "one host".
    """
    for source in (*_of_settings(settings, suffixes), *registered, MachineSource()):
        allocation = _ask(source, environ)
        if allocation is not None:
            return merged(allocation, suffixes)
    raise AssertionError("this machine always answers")


def _of_settings(settings: Settings, suffixes: Sequence[str]) -> tuple[HostSource, ...]:
    asked: list[HostSource] = []
    if settings.hosts is not None:
        asked.append(OptionSource(settings.hosts, settings.origin("hosts"), suffixes))
    if settings.hostfile is not None:
        asked.append(HostfileSource(settings.hostfile, settings.origin("hostfile")))
    return tuple(asked)


def _ask(source: HostSource, environ: Mapping[str, str]) -> Allocation | None:
    try:
        return source.find(environ)
    except MultihostError:
        raise
    except Exception as error:
        raise UsageProblem(
            f"the host source {source.name!r} failed: {type(error).__name__}: {error}",
            where=type(source).__module__,
            hint="name the hosts with --multihost-hosts, and tell the author of the source",
        ) from error
