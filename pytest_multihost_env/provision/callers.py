"""Which shell evaluates what this process prints."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_multihost_env.provision import actor
from pytest_multihost_env.provision.actor import Actor

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "csh", "tcsh", "fish", "nu", "busybox"})


def shell() -> Actor:
    """Return the nearest shell above this process, or its parent when there is none.

    `$(…)` makes a child of the shell for a moment: a process without a program of its own, so with the same command
    line.  What lives on is the shell above it.
    """
    above = _ancestors()
    pid = next((pid for pid in above if _name(pid) in _SHELLS), above[0] if above else os.getppid())
    for parent in above[above.index(pid) + 1 :] if pid in above else ():
        if not _line(pid) or _line(parent) != _line(pid):
            break
        pid = parent
    return actor.of(pid)


def _ancestors() -> list[int]:
    found, pid = [], os.getppid()
    while pid > 1 and pid not in found:
        found.append(pid)
        pid = _parent(pid)
    return found


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        return int(text[text.rindex(")") + 2 :].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _name(pid: int) -> str:
    """Return the name of its program: a script's own name is not it."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
