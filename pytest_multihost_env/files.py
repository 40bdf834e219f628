"""Publish and delete files: the only place that does.

What several hosts share is only ever opened under a name that a listing showed: an NFS client that asked for a name
too early goes on saying "not there" for up to a minute after it was made, while a listing is current (nfs(5),
`lookupcache` and `acdirmax`).  Whether a link or a rename happened is judged by what stands there, not by the return
code, which a lost reply makes wrong (link(2), rename(2), BUGS).
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

SETTLE = 1.0
"""Seconds for which a name that was listed may still be unreadable."""

PATIENCE = 10.0
"""Seconds for which a listing may show a name that this host, once told that there is none, still cannot open."""

BESIDE = 18
"""By so much a temporary name beside a file is longer than the file's own."""

_NOT_YET = frozenset({errno.ENOENT, errno.ESTALE})
_LOST = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT})
"""What a rename is answered with when it was done, and the reply to it was lost."""

_NO_HARD_LINKS = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL}
)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A small published file: what it says, and who made it."""

    data: bytes
    uid: int


# -- reading what others make ------------------------------------------------------------------------------------


def names(directory: Path) -> frozenset[str]:
    """Return the names in `directory`, which exists.

    Raises:
        OSError: It cannot be listed.
    """
    return _patiently(directory, lambda: settled(lambda: frozenset(os.listdir(directory)), {errno.ESTALE}))  # noqa: PTH208


def is_listed(path: Path) -> bool:
    """Return whether the listing of the parent, which exists, has `path`."""
    return path.name in names(path.parent)


def settled(call: Callable[[], T], transient: frozenset[int] | set[int] = _NOT_YET) -> T:
    """Return `call()`, asked again for up to `SETTLE` seconds while it fails as a stale cache does."""
    deadline = time.monotonic() + SETTLE
    while True:
        try:
            return call()
        except OSError as error:
            if error.errno not in transient or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _patiently(path: Path, call: Callable[[], T]) -> T:
    """Return `call()`, asked again while it does not find `path` and the listing has it.

    There are clients that not even a listing makes forget that there was nothing (FUSE): and the very call that made
    the name had asked for it first, and may have lost its reply.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except OSError as error:
            if error.errno not in _NOT_YET or time.monotonic() > deadline or not is_listed(path):
                raise
        time.sleep(0.02)


def read_record(path: Path, limit: int = 1 << 20) -> Record:
    """Return what `publish_once` put at `path`, a name that was listed; symlinks are read, not followed.

    Raises:
        OSError: It is gone, is not a plain file, or has more than `limit` bytes.
    """
    return _patiently(path, lambda: settled(lambda: _read_record(path, limit)))


def _read_record(path: Path, limit: int) -> Record:
    try:
        fd = os.open(path, _READ)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return Record(os.fsencode(os.readlink(path)), os.lstat(path).st_uid)  # noqa: PTH115 - a Path would tidy the text
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(
            status.st_mode
        ):  # Python makes no file object of a directory, and would name it by its number
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        with os.fdopen(fd, "rb", closefd=False) as file:
            return Record(file.read(limit), status.st_uid)
    finally:
        os.close(fd)


def read_link(path: Path) -> str | None:
    """Return the text of the symlink `path`, a name that was listed; None when something else has that name.

    Raises:
        OSError: It is gone, or cannot be read.
    """
    try:
        return _patiently(path, lambda: os.readlink(path))  # noqa: PTH115 - the text, not a path
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def server_time(directory: Path) -> float | None:
    """Return what the clock shows that stamps the files in `directory`; None when nothing can be written there.

    It is the one to compare their times with: the clocks of two hosts differ, and a new file's time comes from where the
    old one's came from.  Where each host stamps its own files (Lustre) it is this host's, and off by as much as that is.
    """
    probe = directory / f".now.{secrets.token_hex(8)}"
    try:
        write_new(probe, b"", durable=False)
        return probe.lstat().st_mtime
    except OSError:
        return None
    finally:
        delete_file(probe)


# -- writing -----------------------------------------------------------------------------------------------------


def write_new(path: Path, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Create `path` with `data`; on disk when this returns, if `durable`.

    Raises:
        FileExistsError: There is something already.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:  # the caller's umask
            os.fchmod(fd, mode)
        file.write(data)
        if durable:
            file.flush()
            os.fsync(fd)


def replace_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Put `data` at `path` in one step; a reader sees the old or the new.  `mode` None keeps the old file's."""
    if mode is None:
        mode = stat.S_IMODE(path.lstat().st_mode)
    temporary = _beside(path)
    try:
        write_new(temporary, data)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        delete_file(temporary)
        raise


def publish_once(path: Path, data: bytes) -> bytes:
    """Make `path` say `data` unless it says something already; return what stands there.

    A hard link that refuses an existing name does it (link(2)); where there are no hard links, a symlink that
    carries `data` as its text does.

    Args:
        path: What to make; its directory exists.
        data: One line of text, under 4096 bytes.

    Raises:
        OSError: Nothing stands there, and it could not be made.
    """
    temporary = _beside(path)
    try:
        write_new(temporary, data, 0o444)
        _link_new(temporary, path, data)
    finally:
        delete_file(temporary)
    sync_directory(path.parent)
    return read_record(path).data


def _link_new(temporary: Path, path: Path, data: bytes) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if is_listed(path):
            return
        if error.errno not in _NO_HARD_LINKS:
            raise
    else:
        return
    try:
        os.symlink(data, os.fsencode(path))  # noqa: PTH211 - as above
    except OSError:
        if not is_listed(path):
            raise


def swap_link(path: Path, text: str) -> None:
    """Make `path` a symlink to `text` in one step; a file or symlink there is replaced, a directory is not.

    Raises:
        OSError: It could not be made; what was there still is.
    """
    temporary = _beside(path)
    temporary.symlink_to(text)
    try:
        temporary.replace(path)
    except OSError as error:
        delete_file(temporary)
        if not _swapped(path, text, PATIENCE if error.errno in _LOST else 0.0):
            raise
    sync_directory(path.parent)


def _swapped(path: Path, text: str, patience: float) -> bool:
    """Return whether `path` leads to `text`, as this client may learn only after `patience` seconds."""
    deadline = time.monotonic() + patience
    while is_listed(path):
        with contextlib.suppress(OSError):
            if os.readlink(path) == text:  # noqa: PTH115
                return True
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return False


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex((BESIDE - 2) // 2)}")


# -- getting it onto the disk ------------------------------------------------------------------------------------


def sync_directory(path: Path) -> None:
    """Have the entries of `path` on disk (fsync(2): a file's own fsync leaves its name out)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EROFS}:  # a file system that cannot has no later chance either
            raise
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Have everything below `path` on disk: one syncfs(2) instead of an fsync for each of its files.

    Raises:
        OSError: The file system reports a write that failed, as Linux 5.8 and later do.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)


# -- deleting ----------------------------------------------------------------------------------------------------


def delete_file(path: Path) -> None:
    """Delete the file or symlink `path`; nothing happens when it is gone or cannot be."""
    with contextlib.suppress(OSError):
        path.unlink()


def remove_tree(path: Path) -> tuple[Path, ...]:
    """Delete `path` and all below it, following no symlink; return what could not be deleted.

    Others may delete or write there at the same time, and NFS keeps files that a process has open (`.nfs…`).
    """
    left: list[Path] = []
    for _ in range(3):
        left.clear()
        try:
            parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ()
        try:
            _remove(path.name, parent, path, left)
        finally:
            os.close(parent)
        if not left:
            break
    return tuple(left)


def _remove(name: str, parent: int, shown: Path, left: list[Path]) -> None:
    try:
        fd = _open_directory(name, parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            _delete(lambda: os.unlink(name, dir_fd=parent), shown, left)
        else:
            left.append(shown)
        return
    try:
        with contextlib.suppress(OSError):
            os.fchmod(fd, 0o700)
        for entry in os.listdir(fd):  # noqa: PTH208
            _remove(entry, fd, shown / entry, left)
    except OSError:
        left.append(shown)
    finally:
        os.close(fd)
    _delete(lambda: os.rmdir(name, dir_fd=parent), shown, left)


def _open_directory(name: str, parent: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
        finally:
            os.close(handle)
        return os.open(name, _DIRECTORY, dir_fd=parent)


def _delete(call: Callable[[], None], shown: Path, left: list[Path]) -> None:
    try:
        call()
    except FileNotFoundError:
        pass
    except OSError:
        left.append(shown)
