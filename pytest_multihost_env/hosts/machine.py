"""This machine as the only host, and whether a name means this machine."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping

from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import same_host, valid_host

LEAST_SLOTS = 16


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


def is_local(name: str) -> bool:
    """Return whether `name` means this machine: its host name with or without domain, localhost, 127.*."""
    lower = name.lower().rstrip(".")
    if lower in ("localhost", "localhost.localdomain") or lower.startswith("127."):
        return True
    return same_host(lower, socket.gethostname()) or lower == _full_name().lower()


class MachineSource:
    """This machine, when nothing names other hosts."""

    name = "this machine"

    def find(self, environ: Mapping[str, str]) -> Allocation:  # noqa: ARG002 - part of the protocol
        """Return this machine under its host name."""
        return Allocation((Host(local_name(), local_slots()),), self.name)
