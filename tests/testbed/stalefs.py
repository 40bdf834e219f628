"""A file system as one host sees network storage: with caches of its own that nobody clears, and faults on demand.

    python -m tests.testbed.stalefs BACKING MOUNT --cache 5 --faults FILE

Mounted twice on one BACKING it is two hosts: each mount has its own attribute, entry and negative caches, flock(2) does
not leave the mount, and `renameat2` with a flag is refused, as on NFS.  It is harsher than NFS in one way: a listing
does not clear negative entries.  The faults are read from a file before each operation (`tests.testbed.mounts` writes
it), so that a switch holds from the next operation on.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import errno
import functools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mfusepy

MODIFYING = (
    "create", "write", "truncate", "mkdir", "mknod", "symlink", "link", "rename", "unlink", "rmdir", "chmod", "chown",
    "utimens",
)  # fmt: skip
READ_ONLY = dict.fromkeys(MODIFYING, "EROFS")

_UTIME_NOW = (1 << 30) - 1
_UTIME_OMIT = (1 << 30) - 2
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Faults:
    """What goes wrong on one mount.  Operations are called as in FUSE: link, rename, symlink, create, write, readdir…

    Attributes:
        lose: Operation → how likely it is done and then answered with an error: a lost reply, sent again.
        lost: Name of that errno; a server that is asked a second time says what it finds then.
        fail: Name of an errno → how likely any operation is not done and answered with it.
        refuse: Operation → name of the errno that it is always answered with.
        listing_cache: Seconds for which a listing is served again; what this mount itself changes it sees at once.
        room: Bytes that may still be written since the switch was thrown; None: no limit.
        no_room: Name of the errno when they are used up.
        only: The faults hit only paths in which this text occurs.
    """

    lose: Mapping[str, float] = dataclasses.field(default_factory=dict)
    lost: str = "EIO"
    fail: Mapping[str, float] = dataclasses.field(default_factory=dict)
    refuse: Mapping[str, str] = dataclasses.field(default_factory=dict)
    listing_cache: float = 0.0
    room: int | None = None
    no_room: str = "ENOSPC"
    only: str = ""


class _Switches:
    """The faults that hold now, from the file in which they stand."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self._path = path
        self._stamp: object = None
        self._random = random.Random(seed)
        self.written = 0
        self.now = Faults()

    def refresh(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._stamp, self.written = stamp, 0
            self.now = Faults(**json.loads(self._path.read_text()))

    def refusal(self, operation: str, path: str) -> int:
        """Return the errno that `operation` is answered with instead of being done, or 0."""
        self.refresh()
        if self.now.only not in path:
            return 0
        if operation in self.now.refuse:
            return number(self.now.refuse[operation])
        for name, likelihood in self.now.fail.items():
            if self._random.random() < likelihood:
                return number(name)
        return 0

    def loses(self, operation: str, path: str) -> bool:
        """Return whether the answer to `operation`, which was done, is lost."""
        return self.now.only in path and self._random.random() < self.now.lose.get(operation, 0.0)

    def takes(self, size: int) -> None:
        """Count `size` bytes that are about to be written.

        Raises:
            OSError: There is no room for them.
        """
        if self.now.room is not None and self.written + size > self.now.room:
            raise OSError(number(self.now.no_room), "no room")
        self.written += size


def number(name: str) -> int:
    """Return the errno that is called `name`."""
    return int(getattr(errno, name))


def _operation(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let `method` of `StaleFs` be refused, or done and its answer lost."""

    @functools.wraps(method)
    def asked(self: StaleFs, path: str, *args: Any) -> Any:
        name = method.__name__
        refused = self.switches.refusal(name, path)
        if refused:
            raise OSError(refused, os.strerror(refused))
        answer = method(self, path, *args)
        if self.switches.loses(name, path):
            raise OSError(number(self.switches.now.lost), "the reply is lost")
        return answer

    return asked


class StaleFs(mfusepy.Operations):
    """Hands every operation on to the directory `root`."""

    use_ns = True

    def __init__(self, root: Path, switches: _Switches) -> None:
        self.switches = switches
        self._root = str(root)
        self._listings: dict[str, tuple[float, list[tuple[str, dict[str, int], int]]]] = {}

    def _at(self, path: str) -> str:
        return self._root + path

    def _changed(self, path: str) -> None:
        self._listings.pop(os.path.dirname(path), None)  # noqa: PTH120 - paths are texts here

    def _made(self, path: str) -> None:
        """Give what was made to who asked for it, as a server does."""
        self._changed(path)
        uid, gid, _ = mfusepy.fuse_get_context()
        if os.geteuid() == 0 and uid:
            parent = os.stat(os.path.dirname(self._at(path)))  # noqa: PTH116, PTH120
            os.lchown(self._at(path), uid, -1 if parent.st_mode & 0o2000 else gid)

    @_operation
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
        found = {
            name: getattr(status, name)
            for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks", "st_rdev")
        }
        return {
            **found,
            "st_atime": status.st_atime_ns,
            "st_mtime": status.st_mtime_ns,
            "st_ctime": status.st_ctime_ns,
        }

    @_operation
    def readdir(self, path: str, fh: int) -> list[Any]:
        known = self._listings.get(path)
        if known is None or time.monotonic() - known[0] > self.switches.now.listing_cache:
            with os.scandir(self._at(path)) as listing:
                # An entry with the inode number 0 is one that readdir(3) passes over.
                known = time.monotonic(), [(entry.name, {"st_ino": entry.inode()}, 0) for entry in listing]
            self._listings[path] = known
        return [".", "..", *known[1]]

    @_operation
    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))  # noqa: PTH115 - a Path would tidy the text

    @_operation
    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)  # noqa: PTH102
        self._made(path)

    @_operation
    def mknod(self, path: str, mode: int, dev: int) -> None:
        os.mknod(self._at(path), mode, dev)
        self._made(path)

    @_operation
    def symlink(self, path: str, text: str) -> None:
        os.symlink(text, self._at(path))  # noqa: PTH211
        self._made(path)

    @_operation
    def link(self, path: str, existing: str) -> None:
        os.link(self._at(existing), self._at(path), follow_symlinks=False)
        self._changed(path)

    @_operation
    def rename(self, path: str, new: str) -> None:
        os.rename(self._at(path), self._at(new))  # noqa: PTH104
        self._changed(path)
        self._changed(new)

    @_operation
    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))  # noqa: PTH108
        self._changed(path)

    @_operation
    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))  # noqa: PTH106
        self._changed(path)

    @_operation
    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), mode)  # noqa: PTH101

    @_operation
    def chown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(self._at(path), uid, gid)

    @_operation
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        if times is None:
            os.utime(self._at(path), follow_symlinks=False)
            return
        status, now = os.lstat(self._at(path)), time.time_ns()
        kept = {_UTIME_NOW: (now, now), _UTIME_OMIT: (status.st_atime_ns, status.st_mtime_ns)}
        atime, mtime = (kept.get(value, (value, value)) for value in times)
        os.utime(self._at(path), ns=(atime[0], mtime[1]), follow_symlinks=False)

    @_operation
    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~(os.O_CREAT | os.O_NOFOLLOW))

    @_operation
    def create(self, path: str, mode: int, flags: int) -> int:
        fd = os.open(self._at(path), flags | os.O_CREAT | os.O_NOFOLLOW, mode)
        self._made(path)
        return fd

    @_operation
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @_operation
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self.switches.takes(len(data))
        return os.pwrite(fh, data, offset)

    @_operation
    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at(path) if fh is None else fh, length)

    @_operation
    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    @_operation
    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        fd = os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._at(path))
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_flag", "f_frsize")
        return {name: getattr(status, name) for name in (*names, "f_namemax")}


class _Mount(mfusepy.FUSE):
    """`mfusepy.FUSE` drops the flags of renameat2(2); NFS refuses them."""

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        if flags:
            raise OSError(errno.EINVAL, "flags of renameat2")
        return int(self.rename_fuse_2(old, new) or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Mount, and serve until it is unmounted or the process that started this one is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backing", type=Path)
    parser.add_argument("mount", type=Path)
    parser.add_argument("--cache", type=float, default=5.0)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--owner", type=int, help="end when this process is gone")
    args = parser.parse_args(argv)
    if args.owner is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != args.owner:
            return 1
    os.umask(0)  # the kernel has applied the caller's
    os.chdir("/")
    options: dict[str, Any] = {"allow_other": True} if os.geteuid() == 0 else {}
    with contextlib.suppress(KeyboardInterrupt):
        _Mount(
            StaleFs(args.backing.absolute(), _Switches(args.faults, args.seed)),
            str(args.mount),
            foreground=True,
            fsname="stalefs",
            default_permissions=True,
            use_ino=True,
            hard_remove=True,  # else an open file that is removed stays as .fuse_hidden…, after close(2) for a moment
            attr_timeout=args.cache,
            entry_timeout=args.cache,
            negative_timeout=args.cache,
            **options,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
