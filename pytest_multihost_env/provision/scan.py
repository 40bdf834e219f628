"""Looks through an environment and tells what is in it, as its manifest lists it."""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import ReadFile
from pytest_multihost_env.provision import digests
from pytest_multihost_env.provision.manifest import DIRECTORY, FILE, LINK, NAME, Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


OTHER = "other"
"""The type of what a manifest never lists: a device, a FIFO, a socket."""


def scan(
    root: Path, read: Mapping[str, ReadFile] | None = None, *, contents: bool = True, strict: bool = True
) -> Iterator[Entry]:
    """Yield what is below `root`: level by level, each directory's names in order.

    The manifest itself is left out.

    Args:
        root: The environment.
        read: Files that were read already, by path: as long as inode, size and time are those, so is the digest.
        contents: Tell each file's digest; else that is "".
        strict: What is neither file, directory nor symlink is an error; else it is told as `OTHER`.

    Raises:
        NotReady: There is such a thing.
        OSError: Something cannot be read.
    """
    known: Mapping[str, ReadFile] = read or {}
    below = collections.deque([""])
    while below:
        found = list(_directory(str(root), below.popleft()))
        below += [entry.path for entry, _ in found if entry.type == DIRECTORY]
        for entry, inode in found:
            if entry.type == OTHER and strict:
                what = "is neither a file, a directory nor a symlink"
                raise NotReady(f"{root}/{entry.path} {what}", hint="remove it from SOURCE")
            if entry.type == FILE and contents:
                yield entry._replace(content=_digest(root, entry, inode, known))
            else:
                yield entry


def _digest(root: Path, entry: Entry, inode: int, known: Mapping[str, ReadFile]) -> str:
    before = known.get(entry.path)
    if before is not None and (before.inode, before.size, before.mtime_ns) == (inode, entry.size, entry.mtime_ns):
        return before.digest
    return digests.of_file(f"{root}/{entry.path}")


def _directory(root: str, below: str) -> Iterator[tuple[Entry, int]]:
    """Yield each entry of one directory, without contents of files, and its inode."""
    prefix = f"{below}/" if below else ""
    descriptor = os.open(f"{root}/{below}", _DIRECTORY if below else _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for name in sorted(os.listdir(descriptor)):  # noqa: PTH208
            path = prefix + name
            if path == NAME:
                continue
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            mode = stat.S_IMODE(status.st_mode)
            match stat.S_IFMT(status.st_mode):
                case stat.S_IFREG:
                    yield Entry(path, FILE, mode, status.st_size, status.st_mtime_ns), status.st_ino
                case stat.S_IFDIR:
                    yield Entry(path, DIRECTORY, mode, mtime_ns=status.st_mtime_ns), status.st_ino
                case stat.S_IFLNK:
                    text = os.readlink(name, dir_fd=descriptor)
                    yield Entry(path, LINK, content=text), status.st_ino
                case _:
                    yield Entry(path, OTHER, mode), status.st_ino
    finally:
        os.close(descriptor)
