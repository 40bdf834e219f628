"""Reach the few Linux calls that the standard library of Python 3.11 lacks: namespaces, mounts, parent-death signals.

Everything raises OSError with the name of the call and its subject.  Sources: unshare(2), setns(2), mount(2),
umount2(2), prctl(2), proc(5).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NEW_MOUNT = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000

NO_SUID, NO_DEV, BIND, RECURSIVE, PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000

_SET_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Move this process (for NEW_PID: its next children) into new namespaces."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def join(namespace: int, kind: int = 0) -> None:
    """Enter the namespace that the file descriptor `namespace` stands for."""
    _check(_libc.setns(namespace, kind), "setns")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Mount `source` at `target`."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {source} at {target}")


def die_with_parent(signal: int) -> None:
    """Have the kernel send `signal` to this process when its parent ends (forgotten at a change of user)."""
    _check(_libc.prctl(_SET_DEATH_SIGNAL, ctypes.c_ulong(signal), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    _check(_libc.prctl(_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def namespace_id(pid: int | str, kind: str) -> str | None:
    """Return the identity of a process's namespace; None when the process is gone or not ours to see."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return None


def stat_fields(pid: int | str) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name, state first; empty when there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def start_time(pid: int) -> str | None:
    """Return when a process began, in clock ticks since boot; None when it has ended.

    Together with the pid it names a process for ever: pids are used again.
    """
    fields = stat_fields(pid)
    return None if not fields or fields[0] in "ZX" else fields[19]


def numbers_in(directory: str) -> list[int]:
    """Return the entries of a directory of /proc that are numbers: processes, or a process's descriptors."""
    return [int(entry.name) for entry in Path(directory).iterdir() if entry.name.isdigit()]


def processes_in(init: int) -> list[int]:
    """Return the pids, as seen from here, of all living processes in the pid namespace of `init`."""
    wanted = namespace_id(init, "pid")
    return [pid for pid in numbers_in("/proc") if wanted and namespace_id(pid, "pid") == wanted and start_time(pid)]
