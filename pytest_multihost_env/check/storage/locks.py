"""The three kinds of lock, held by one host and tried by the others.  Standard library only; a part of `far`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env import filesystem

_F_OFD_SETLK = 37
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})
HELD, REFUSED, GRANTED = "held", "refused", "granted"


def _flock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _posix(fd: int) -> None:
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _ofd(fd: int) -> None:
    # struct flock: type, whence, start, length, pid (fcntl(2), "Open file description locks")
    fcntl.fcntl(fd, _F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


KINDS: dict[str, Callable[[int], None]] = {"flock": _flock, "posix": _posix, "ofd": _ofd}


def prepare(directory: Path) -> None:
    """Make the files that are going to be locked."""
    for kind in KINDS:
        (directory / kind).touch()


class Held:
    """The locks that this host holds."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def take(self, directory: Path) -> dict[str, str]:
        """Lock each file of this host; return `held` or the error's name, by kind."""
        found = {}
        for kind, lock in KINDS.items():
            fd = os.open(directory / kind, os.O_RDWR | os.O_CLOEXEC)
            try:
                lock(fd)
            except OSError as error:
                os.close(fd)
                found[kind] = filesystem.code(error)
            else:
                self._open.append(fd)
                found[kind] = HELD
        return found

    def release(self) -> None:
        """Give them up."""
        while self._open:
            with contextlib.suppress(OSError):
                os.close(self._open.pop())


def attempt(directory: Path) -> dict[str, str]:
    """Try to lock the files of another host, which holds them; return `refused`, `granted` or an error, by kind."""
    found = {}
    for kind, lock in KINDS.items():
        try:
            fd = os.open(directory / kind, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            found[kind] = filesystem.code(error)
            continue
        try:
            lock(fd)
        except OSError as error:
            found[kind] = REFUSED if error.errno in _BUSY else filesystem.code(error)
        else:
            found[kind] = GRANTED
        finally:
            os.close(fd)
    return found
