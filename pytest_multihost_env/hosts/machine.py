"""This machine as the only host, and whether a name means this machine."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping, Sequence

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import plain_host, same_host, valid_host

LEAST_SLOTS = 16
_OTHERS = {
    "PE_HOSTFILE": "Grid Engine",
    "COBALT_NODEFILE": "Cobalt",
    "OAR_NODEFILE": "OAR",
    "LOADL_HOSTFILE": "LoadLeveler",
}


def local_slots() -> int:
    """Return how many ranks this machine may run at once: its CPUs, but at least 16.

    Ranks of a test suite mostly wait, so that a laptop with 4 CPUs can run a test of 8 ranks.
    """
    return max(LEAST_SLOTS, len(os.sched_getaffinity(0)))


def local_name() -> str:
    """Return this machine's host name, or `localhost` when it has none that a launcher takes."""
    name = socket.gethostname()
    return name if valid_host(name) else "localhost"


@functools.cache
def _full_name() -> str:
    # Asked at most once: with a broken resolver it can take seconds.
    return socket.getfqdn()


def is_local(name: str, suffixes: Sequence[str] = ()) -> bool:
    """Return whether `name` means this machine: its host name with or without domain, localhost, 127.*.

    Args:
        name: The name of a host.
        suffixes: Endings that name an interface of a host, not a host (`names.plain_host`).
    """
    plain = plain_host(name, suffixes)
    if plain in ("localhost", "localhost.localdomain") or plain.startswith("127."):
        return True
    return same_host(plain, socket.gethostname(), suffixes) or plain == plain_host(_full_name(), suffixes)


class MachineSource:
    """This machine, when nothing names other hosts and no scheduler that is not known here has started this job."""

    name = "this machine"

    def find(self, environ: Mapping[str, str]) -> Allocation:
        """Return this machine under its host name.

        Raises:
            UsageProblem: This is a job of a scheduler that has no source: it may well have other hosts.
        """
        for variable, scheduler in _OTHERS.items():
            if environ.get(variable):
                raise UsageProblem(
                    f"this is a job of {scheduler}, and no source of hosts reads its {variable}",
                    where=f"{variable}={environ[variable]}",
                    hint="name the hosts with --multihost-hosts, or their file with --multihost-hostfile",
                )
        return Allocation((Host(local_name(), local_slots(), self.name),), self.name)
