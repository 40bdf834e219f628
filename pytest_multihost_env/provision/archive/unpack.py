"""Writes the members of an archive below one directory and nowhere else, whatever the archive says.

Files, directories, links: nothing else is made, under names that cannot lead out.  Every name is opened below the
descriptor of its directory without following links, and no link exists until every file is written; so there is
nothing on the way that could lead elsewhere.  Owners, set-user-id bits and any mode but "executable or not" are not
taken over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pytest_multihost_env.provision.archive.stream import CHUNK, Unreadable
from pytest_multihost_env.provision.archive.tar import Archive, Member

LONGEST_NAME, LONGEST_PATH = 255, 4095  # Linux: NAME_MAX, PATH_MAX
_MOST_LINKS = 40  # as the kernel (path_resolution(7))

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Parts = tuple[str, ...]


@dataclasses.dataclass(slots=True)
class Unpacked:
    """What was written.

    Attributes:
        files: Number of files.
        links: The symlinks, which are not made yet: name to target as written.
    """

    files: int = 0
    links: dict[Parts, str] = dataclasses.field(default_factory=dict)


class Unpacker:
    """Writes below `root`, an empty directory that only we write to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._room = LONGEST_PATH - len(os.fsencode(root)) - 1
        self._fd = os.open(root, _DIRECTORY)
        self._here: tuple[Parts, int] | None = None  # the directory of the last file: most files come side by side
        self._stated: set[Parts] = set()

    def close(self) -> None:
        """Close what is open."""
        self._leave()
        os.close(self._fd)

    def files(self, archive: Archive, advance: Callable[[int, int], None]) -> Unpacked:
        """Write files and directories, but no links yet; `advance` is told of each file and its size.

        Raises:
            Unreadable: The archive is no good.
            OSError: Something cannot be written.
        """
        done = Unpacked()
        for member in archive:
            parts = self._parts(member.name)
            if not parts:
                if member.kind != "directory":
                    raise Unreadable(f"names its own top as a {member.kind}")
                continue
            with _clashes(member.name):
                match member.kind:
                    case "directory":
                        self._new_directory(parts)
                    case "symlink":
                        self._note_link(parts, member, done.links)
                    case "hardlink":
                        self._copy(parts, self._parts(member.target), archive.account)
                    case "file":
                        self._write(parts, member, archive.content())
            if member.kind in {"file", "hardlink"}:
                done.files += 1
                advance(1, member.size)
        return done

    def make_links(self, links: Mapping[Parts, str]) -> None:
        """Make the symlinks, all at last.

        Raises:
            Unreadable: Something else has the name of one.
        """
        for parts, target in links.items():
            with _clashes("/".join(parts)):
                os.symlink(target, parts[-1], dir_fd=self._directory(parts[:-1]))

    def _parts(self, name: str) -> Parts:
        """Return the components of a name that stays below the top.

        Raises:
            Unreadable: It does not, or no file system takes it.
        """
        parts = tuple(part for part in name.split("/") if part not in {"", "."})
        if name.startswith("/"):
            raise Unreadable(f"names an absolute path: {name!r}")
        if ".." in parts:
            raise Unreadable(f"names a path that leads upwards: {name!r}")
        if "\0" in name:
            raise Unreadable(f"has a name with a NUL in it: {name!r}")
        encoded = [os.fsencode(part) for part in parts]
        if any(len(part) > LONGEST_NAME for part in encoded) or len(b"/".join(encoded)) > self._room:
            raise Unreadable(f"has a name that is too long: {name[:60]!r}...")
        return parts

    def _new_directory(self, parts: Parts) -> None:
        if parts in self._stated:
            raise FileExistsError
        self._stated.add(parts)
        self._directory(parts)

    def _note_link(self, parts: Parts, member: Member, links: dict[Parts, str]) -> None:
        if parts in links:
            raise FileExistsError
        if not member.target or "\0" in member.target or len(os.fsencode(member.target)) > LONGEST_PATH:
            raise Unreadable(f"has a link without a usable target: {member.name!r}")
        links[parts] = member.target

    def _write(self, parts: Parts, member: Member, content: Iterable[bytes]) -> None:
        fd = os.open(parts[-1], _NEW, 0o600, dir_fd=self._directory(parts[:-1]))
        try:
            for data in content:
                _write_all(fd, data)
            _finish(fd, executable=member.executable, mtime_ns=member.mtime_ns)
        finally:
            os.close(fd)

    def _copy(self, parts: Parts, original: Parts, account: Callable[[int], None]) -> None:
        """Make a hard link a file of its own; its original must have come before it, as a file."""
        with contextlib.ExitStack() as stack:
            source = self._open_file(original)
            stack.callback(os.close, source)
            status = os.fstat(source)
            account(status.st_size)
            target = os.open(parts[-1], _NEW, 0o600, dir_fd=self._directory(parts[:-1]))
            stack.callback(os.close, target)
            while data := os.read(source, CHUNK):
                _write_all(target, data)
            _finish(target, executable=bool(status.st_mode & 0o100), mtime_ns=status.st_mtime_ns)

    def _open_file(self, parts: Parts) -> int:
        problem = Unreadable(f"has a hard link to what is no file before it: {'/'.join(parts)!r}")
        if not parts:
            raise problem
        try:
            fd = os.open(parts[-1], _OLD, dir_fd=self._directory(parts[:-1], make=False))
        except (FileNotFoundError, NotADirectoryError):
            raise problem from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise problem
        return fd

    def _directory(self, parts: Parts, *, make: bool = True) -> int:
        """Return a descriptor of a directory below the top, opened component by component; what is missing is made."""
        if self._here is None or self._here[0] != parts:
            self._leave()
            self._here = (parts, self._descend(parts, make=make))
        return self._here[1]

    def _descend(self, parts: Parts, *, make: bool) -> int:
        fd = os.dup(self._fd)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=fd)
                below = os.open(part, _DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _leave(self) -> None:
        if self._here is not None:
            os.close(self._here[1])
            self._here = None


def outside(links: Mapping[Parts, str], top: Parts) -> dict[Parts, str]:
    """Return those of `links` that do not stay below `top`, following each as the kernel would.

    Raises:
        Unreadable: One leads in a circle.
    """
    return {parts: target for parts, target in links.items() if not _stays(parts, links, top)}


def _stays(link: Parts, links: Mapping[Parts, str], top: Parts) -> bool:
    here, todo, followed = list(link[:-1]), _reversed(links[link]), 1
    if links[link].startswith("/"):
        return False
    while todo:
        part = todo.pop()
        if part == "..":
            if len(here) <= len(top):
                return False
            here.pop()
            continue
        here.append(part)
        further = links.get(tuple(here))
        if further is None:
            continue
        followed += 1
        if followed > _MOST_LINKS:
            raise Unreadable(f"has a link that leads in a circle: {'/'.join(link)!r}")
        if further.startswith("/"):
            return False
        here.pop()
        todo.extend(_reversed(further))
    return tuple(here[: len(top)]) == top


def _reversed(target: str) -> list[str]:
    return [part for part in reversed(target.split("/")) if part not in {"", "."}]


@contextlib.contextmanager
def _clashes(name: str) -> Iterator[None]:
    """Turn what a second member of the same name meets into a refusal."""
    try:
        yield
    except FileExistsError:
        raise Unreadable(f"has two members of one name: {name!r}") from None
    except (NotADirectoryError, IsADirectoryError):
        raise Unreadable(f"has a member below what is no directory: {name!r}") from None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _finish(fd: int, *, executable: bool, mtime_ns: int) -> None:
    os.fchmod(fd, 0o755 if executable else 0o644)  # whatever the umask
    os.utime(fd, ns=(mtime_ns, mtime_ns))  # bytecode names its source's time
