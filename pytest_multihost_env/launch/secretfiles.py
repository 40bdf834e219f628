"""Secrets as files: on the host of the rank, in memory, as long as the rank's program runs.  Standard library only.

Each supervisor has a directory of its own.  Whatever ends the supervisor, also a SIGKILL, ends the pipe to a small shell
in a session of its own, which then removes the directory.  Should that be killed as well, nobody holds the lock on the
directory any more, and the next job on the host removes it; a host that crashes forgets it.
"""
# Without pathlib, which would cost every rank 5 ms.
# ruff: noqa: PTH102, PTH106, PTH116, PTH123, PTH208

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Mapping

PLACES = (os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm")  # noqa: S108 - only in a directory of our own
BEGINNING = "multihost-secrets-"
_MEMORY = ("tmpfs", "ramfs")
_KEEPER = 'trap "" HUP INT TERM; read -r _; exec rm -rf -- "$1"'


class SecretFiles:
    """Files that only this user can read, until `remove`.

    Args:
        texts: What each holds, by the variable that the path goes into: `KEY_FILE` becomes a file `KEY`.

    Attributes:
        variables: The paths.

    Raises:
        OSError: They cannot be made here; nothing is left.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.variables: dict[str, str] = {}
        self._path, self._lock = _directory()
        try:
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, "multihost-keeper", self._path],
                env={"PATH": os.defpath},
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            _empty(self._path, self._lock)
            os.close(self._lock)
            raise
        try:
            for variable, text in texts.items():
                name = variable.removesuffix("_FILE")
                self._write(name, text.encode("utf-8", "surrogateescape"))
                self.variables[variable] = f"{self._path}/{name}"
        except OSError:
            self.remove()
            raise

    def _write(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        number = os.open(name, flags, 0o600, dir_fd=self._lock)
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, 0o600)  # a umask may have taken some of it
            file.write(data)

    def remove(self) -> None:
        """Remove the files and their directory; a second time does nothing."""
        if self._lock < 0:
            return
        _empty(self._path, self._lock)
        os.close(self._lock)
        self._lock = -1
        assert self._keeper.stdin is not None  # noqa: S101 - it was asked for
        self._keeper.stdin.close()
        self._keeper.wait()


def sweep() -> None:
    """Remove what supervisors of this user have left here that are gone together with their keepers."""
    for place in filter(None, PLACES):
        with contextlib.suppress(OSError):
            for name in os.listdir(place):
                if name.startswith(BEGINNING):
                    _remove_if_left(f"{place}/{name}")


def _remove_if_left(path: str) -> None:
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(number).st_uid == os.geteuid():
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _empty(path, number)
        finally:
            os.close(number)


def _empty(path: str, number: int) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(number):
            os.unlink(name, dir_fd=number)
        os.rmdir(path)


def _directory() -> tuple[str, int]:
    """Return the path of a new directory, and a descriptor of it that holds a lock on it."""
    for place in filter(None, PLACES):
        if not _in_memory(place):
            continue
        path = f"{place}/{BEGINNING}{os.urandom(8).hex()}"
        with contextlib.suppress(OSError):
            os.mkdir(path, 0o700)
            number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.fchmod(number, 0o700)
            # Somebody who sweeps may have come between the two lines above; then there is nothing to lock or to find.
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(number), os.stat(path)):
                return path, number
    places = " or ".join(filter(None, PLACES))
    raise OSError(f"no directory in memory for the files of secrets: neither {places} is a tmpfs that can be written")


def _in_memory(place: str) -> bool:
    """Whether what is written there never reaches a disk or another host."""
    return kind_of(place) in _MEMORY


def kind_of(place: str) -> str:
    """Return the type of the file system that a directory lies on, or "" (proc_pid_mountinfo(5))."""
    with contextlib.suppress(OSError):
        device = os.stat(place).st_dev
        own = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                if before.split()[2] == own:
                    return after.split()[0]
    return ""
