"""Copies a tree in one pass: walk and copy at the same time, by a few threads."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import mishaps

Skip = Callable[[str], bool]

_CHUNK = 8 << 20
_NO_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EIO}
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Copied:
    """What was copied.  `outside` holds the links (relative names) that lead out of the source."""

    files: int
    bytes: int
    links: int
    directories: int
    outside: tuple[str, ...]


def copy_tree(
    source: Path,
    destination: Path,
    *,
    notify: Callable[[str], None] | None = None,
    skip: Skip | None = None,
    workers: int = 4,
) -> Copied:
    """Make `destination`, which must not exist, a copy of the directory `source` and return what was copied.

    Kept: permission bits, times to the nanosecond (so bytecode stays valid), links, dotfiles, empty directories.
    Not kept: owner, set-uid and set-gid bits, hard links.  A link whose target lies in the source leads to the same
    place in the copy; one that leads elsewhere still leads there, and `notify` is told.

    Args:
        source: The directory to copy.
        destination: The name of the copy.
        notify: Receives a sentence about everything that a person may want to know.
        skip: Says, by the name relative to `source`, what to leave out.
        workers: Number of threads.

    Raises:
        NotReady: Something cannot be read, written or copied; what was made of `destination` is then removed.
    """
    _check_places(source, destination)
    job = _Job(source, destination, skip)
    try:
        with mishaps.named("copying"):
            job.run(max(1, workers))
    except BaseException:
        if job.finish:  # the directory is ours; one that stood there before is not
            shutil.rmtree(destination, ignore_errors=True)
        raise
    if notify is not None:
        for name in sorted(job.outside):
            notify(f"{name} is a link that leads out of {source}")
    return Copied(job.files, job.bytes, job.links, len(job.finish), tuple(sorted(job.outside)))


def _check_places(source: Path, destination: Path) -> None:
    real = os.path.realpath(source)
    if not os.path.isdir(real):  # noqa: PTH112 - `real` is text on purpose
        raise NotReady(f"{source} is not a directory", where=str(source), hint="name a directory that exists")
    if (os.path.realpath(destination) + "/").startswith(real + "/"):
        raise NotReady(
            f"{destination} lies inside {source}, the directory to copy",
            where=str(destination),
            hint="choose a destination outside it",
        )


class _Job:
    """One copy: a stack of directories to do, shared by the workers."""

    def __init__(self, source: Path, destination: Path, skip: Skip | None) -> None:
        self.files = self.bytes = self.links = 0
        self.outside: list[str] = []
        self.finish: list[tuple[str, os.stat_result]] = []
        self._source = os.path.abspath(source)  # noqa: PTH100 - links count on the name as given
        self._real = os.path.realpath(source)
        self._destination = os.path.abspath(destination)  # noqa: PTH100
        self._skip = skip
        self._umask = _umask()
        self._ranges = hasattr(os, "copy_file_range")
        self._todo: collections.deque[str] = collections.deque()
        self._busy = 0
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self, workers: int) -> None:
        """Copy everything; raise the first error of any worker."""
        self._make_directory("", os.stat(self._real))  # noqa: PTH116
        self._todo.append("")
        threads = [threading.Thread(target=self._work, name=f"copy-{n}", daemon=True) for n in range(1, workers)]
        for thread in threads:
            thread.start()
        try:
            self._work()
        except BaseException as error:  # an interrupt arrives in this thread only: the others must stop as well
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()
            raise
        finally:
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error
        for path, status in reversed(self.finish):  # children first: making one changes its parent's time
            os.chmod(path, status.st_mode & 0o777)  # noqa: PTH101
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._todo and self._busy and self._error is None:
                    self._changed.wait()
                if self._error is not None or not self._todo:
                    return
                directory = self._todo.pop()
                self._busy += 1
            failure: BaseException | None = None
            try:
                self._directory(directory)
            except Exception as error:  # noqa: BLE001 - raised again by run()
                failure = error
            with self._changed:
                self._busy -= 1
                self._error = self._error or failure
                self._changed.notify_all()

    def _directory(self, directory: str) -> None:
        """Copy the entries of one directory; its sub-directories become work."""
        prefix = f"{directory}/" if directory else ""
        below: list[str] = []
        files = size = links = 0
        with os.scandir(f"{self._source}/{directory}") as entries:
            for entry in entries:
                name = prefix + entry.name
                if self._skip is not None and self._skip(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    self._make_directory(name, entry.stat(follow_symlinks=False))
                    below.append(name)
                elif entry.is_symlink():
                    self._link(name, entry)
                    links += 1
                else:
                    size += self._entry(name, entry)
                    files += 1
        with self._changed:
            self.files += files
            self.bytes += size
            self.links += links
            if below:
                self._todo.extend(below)
                self._changed.notify_all()

    def _make_directory(self, name: str, status: os.stat_result) -> None:
        path = f"{self._destination}/{name}" if name else self._destination
        os.mkdir(path, 0o700)  # noqa: PTH102 - a mode without `w` could not be filled; the true one comes last
        with self._changed:
            self.finish.append((path, status))

    def _entry(self, name: str, entry: os.DirEntry[str]) -> int:
        """Copy one regular file and return its size; a compiler's temporary file may vanish meanwhile."""
        try:
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
                raise NotReady(
                    f"{entry.path} is {kind}, which cannot be part of an environment",
                    where=entry.path,
                    hint="remove it from the source",
                )
            self._file(entry.path, f"{self._destination}/{name}", status)
        except FileNotFoundError:
            if "/__pycache__/" not in f"/{name}":
                raise
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._destination}/{name}")  # noqa: PTH108
            return 0
        return status.st_size

    def _file(self, source: str, destination: str, status: os.stat_result) -> None:
        mode = status.st_mode & 0o777
        reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            writer = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            try:
                if status.st_size:
                    self._content(reader, writer, status.st_size, source)
                if mode & self._umask:
                    os.fchmod(writer, mode)
                os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _content(self, reader: int, writer: int, size: int, source: str) -> None:
        """Copy `size` bytes; where the kernel cannot do it by itself (another file system), read and write."""
        left = size
        while left and self._ranges:
            try:
                done = os.copy_file_range(reader, writer, left)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                self._ranges = False
                break
            if not done:
                break
            left -= done
        while left:
            data = os.read(reader, min(left, _CHUNK))
            if not data:
                raise NotReady(
                    f"{source} became shorter while it was copied",
                    where=source,
                    hint="do not change the source while it is provisioned; try again",
                )
            left -= len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(writer, view) :]

    def _link(self, name: str, entry: os.DirEntry[str]) -> None:
        target, outside = self._target(name, os.readlink(entry.path))  # noqa: PTH115
        path = f"{self._destination}/{name}"
        os.symlink(target, path)  # noqa: PTH211
        status = entry.stat(follow_symlinks=False)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
        if outside:
            with self._changed:
                self.outside.append(name)

    def _target(self, name: str, target: str) -> tuple[str, bool]:
        """Return what the copied link says, and whether that is outside of the source."""
        parent = os.path.dirname(f"{self._source}/{name}")  # noqa: PTH120
        full = os.path.normpath(os.path.join(parent, target))  # noqa: PTH118
        inside = _below(full, self._source)
        if inside is None:
            inside = _below(full, self._real)
        if inside is None:
            inside = _below(os.path.realpath(full), self._real)
        if inside is None:
            return full if not target.startswith("/") else target, True
        if not target.startswith("/") and _below(full, self._source) is not None:
            return target, False
        return os.path.relpath(f"/{inside}", os.path.dirname(f"/{name}")), False  # noqa: PTH120


def _below(path: str, top: str) -> str | None:
    """Return `path` relative to `top`, or None when it is not `top` or below it."""
    if path == top:
        return ""
    return path[len(top) + 1 :] if path.startswith(top.rstrip("/") + "/") else None


def _umask() -> int:
    """Return this process's umask without changing it, as os.umask() would for all threads (proc(5), Linux 4.7)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777
