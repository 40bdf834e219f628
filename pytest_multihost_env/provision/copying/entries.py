"""Copies directories, files and symlinks: what one worker does, wherever it runs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from .content import Content, Shrunk
from .jobs import Job, Report, Setup, Trouble

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Refused(Exception):
    """Something cannot be copied, whatever the operating system says.  Arguments: sentence, path, what to do."""


class Entries:
    """Does jobs; one for each thread.

    Args:
        setup: What holds for the whole copy.
        skip: Says, by the name relative to the source, what to leave out.
        stopped: Says that the rest of a job is not wanted any more.
    """

    def __init__(
        self,
        setup: Setup,
        skip: Callable[[str], bool] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._setup = setup
        self._skip = skip
        self._stopped = stopped
        self._content = Content(setup.algorithm)

    def do(self, job: Job) -> Report:
        """Do `job` and return what came of it, also when it could not be finished."""
        report = Report()
        try:
            for name in job.directories:
                self._directory(name, report)
            for directory, names in job.files:
                self._portion(directory, names, report)
            for name, access, change in job.times:
                os.utime(self._to(name), ns=(access, change))
        except Refused as error:
            report.trouble = Trouble(0, *error.args)
        except OSError as error:
            report.trouble = Trouble(error.errno or 0, error.strerror or str(error), str(error.filename or ""), "")
        return report

    def _from(self, name: str) -> str:
        return f"{self._setup.source}/{name}" if name else self._setup.real

    def _to(self, name: str) -> str:
        return f"{self._setup.destination}/{name}" if name else self._setup.destination

    def _directory(self, name: str, report: Report) -> None:
        """Make a directory and copy what is in it, but for its sub-directories and for what is too much for one."""
        reader = os.open(self._from(name), _LIST)
        try:
            status = os.fstat(reader)
            mode = status.st_mode & 0o777
            if name:
                # Without these three it could not be filled; the true mode comes last.
                os.mkdir(self._to(name), mode | 0o700)  # noqa: PTH102
            if (mode | 0o700) & self._setup.umask or not name:
                os.chmod(self._to(name), mode | 0o700)  # noqa: PTH101
            report.made.append((name, mode, status.st_atime_ns, status.st_mtime_ns))
            files, links = self._listed(name, reader, report)
            for link in links:
                self._link(f"{name}/{link}" if name else link, report)
            portion = self._setup.portion
            for start in range(portion, len(files), portion):
                report.rest.append((name, files[start : start + portion]))
            self._files(name, files[:portion], reader, report)
        finally:
            os.close(reader)

    def _listed(self, directory: str, reader: int, report: Report) -> tuple[list[str], list[str]]:
        """Return the names of the files and of the symlinks; the kernel tells their kinds with the listing."""
        prefix = f"{directory}/" if directory else ""
        files: list[str] = []
        links: list[str] = []
        with os.scandir(reader) as entries:
            for entry in entries:
                report.names += 1
                if self._skip is not None and self._skip(prefix + entry.name):
                    report.passed += 1
                elif entry.is_symlink():
                    links.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    report.below.append(prefix + entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
                else:
                    raise self._special(prefix + entry.name, entry.stat(follow_symlinks=False))
        return files, links

    def _special(self, name: str, status: os.stat_result) -> Refused:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        path = self._from(name)
        return Refused(f"{path} is {kind}, which cannot be part of an environment", path, "remove it from the source")

    def _portion(self, directory: str, names: list[str], report: Report) -> None:
        report.names += len(names)
        reader = os.open(self._from(directory), _LIST)
        try:
            self._files(directory, names, reader, report)
        finally:
            os.close(reader)

    def _files(self, directory: str, names: list[str], here: int, report: Report) -> None:
        """Copy files by their names in two open directories: the kernel then looks up one name, not a whole path."""
        if not names:
            return
        there = os.open(self._to(directory), _LIST)
        try:
            for name in names:
                if self._stopped():
                    return
                self._file(f"{directory}/{name}" if directory else name, name, (here, there), report)
        finally:
            os.close(there)

    def _file(self, path: str, name: str, folders: tuple[int, int], report: Report) -> None:
        """Copy one file; four calls that a server answers: open, make, times, and its mode where the umask is in the way."""
        try:
            reader = os.open(name, _READ, dir_fd=folders[0])
        except FileNotFoundError as error:
            if "/__pycache__/" not in f"/{path}":
                raise _named(error, self._from(path)) from None
            report.passed += 1  # a compiler's temporary file
            return
        except OSError as error:
            raise _named(error, self._from(path)) from None
        try:
            status = os.fstat(reader)
            if not stat.S_ISREG(status.st_mode):
                raise self._special(path, status)
            self._write(path, name, (reader, folders[1]), status, report)
        finally:
            os.close(reader)
        report.files += 1
        report.size += status.st_size

    def _write(self, path: str, name: str, places: tuple[int, int], status: os.stat_result, report: Report) -> None:
        reader, folder = places
        mode = status.st_mode & 0o777
        try:
            writer = os.open(name, _WRITE, mode, dir_fd=folder)
        except OSError as error:
            raise _named(error, self._to(path)) from None
        try:
            # The inode is asked for while the file is new: later, a network file system would have to write first.
            inode = os.fstat(writer).st_ino if self._setup.algorithm else 0
            digest = self._content.copy(reader, writer, status.st_size)
            if mode & self._setup.umask:
                os.fchmod(writer, mode)
            os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
        except Shrunk:
            source = self._from(path)
            raise Refused(
                f"{source} became shorter while it was copied",
                source,
                "do not change the source while it is provisioned; try again",
            ) from None
        except OSError as error:
            raise _named(error, self._to(path)) from None
        finally:
            os.close(writer)
        if digest:
            report.read.append((path, inode, status.st_size, status.st_mtime_ns, digest))

    def _link(self, name: str, report: Report) -> None:
        source = f"{self._setup.source}/{name}"
        status = os.lstat(source)
        target, outside = self._target(name, os.readlink(source))  # noqa: PTH115
        path = self._to(name)
        os.symlink(target, path)  # noqa: PTH211
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
        report.links += 1
        if outside:
            report.outside.append(name)

    def _target(self, name: str, target: str) -> tuple[str, bool]:
        """Return what the copied link says, and whether that is outside of the source."""
        top, real = self._setup.source, self._setup.real
        full = os.path.normpath(os.path.join(os.path.dirname(f"{top}/{name}"), target))  # noqa: PTH118, PTH120
        if not target.startswith("/") and _below(full, top) is not None:
            return target, False
        for path, above in ((full, top), (full, real), (os.path.realpath(full), real)):
            inside = _below(path, above)
            if inside is not None:
                return os.path.relpath(f"/{inside}", os.path.dirname(f"/{name}")), False  # noqa: PTH120
        return (target if target.startswith("/") else full), True


def _named(error: OSError, path: str) -> OSError:
    """Return the error with the whole path: a call on a name in an open directory knows no more than the name."""
    return OSError(error.errno, error.strerror, path)


def _below(path: str, top: str) -> str | None:
    """Return `path` relative to `top`, or None when it is not `top` or below it."""
    if path == top:
        return ""
    return path[len(top) + 1 :] if path.startswith(top.rstrip("/") + "/") else None
