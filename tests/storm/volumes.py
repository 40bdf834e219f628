"""Real small file systems, mounted for one test: with little room, few inodes, a quota; and a disk that loses power."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.testbed.fixtures import skip_or_fail

_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), which ext4 and xfs have
_NO_LOG_FLUSH = 2


def _run(*argv: str | Path) -> str:
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"{argv[0]}: {done.stderr.strip().splitlines()[-1:]}"


@contextlib.contextmanager
def _mounted(where: Path, *argv: str | Path) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    problem = _run("mount", *argv, where)
    if problem:
        skip_or_fail(f"no file system can be mounted here: {problem}")
    try:
        yield where
    finally:
        _run("umount", "-l", where)


@contextlib.contextmanager
def memory(where: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs; `options` as in tmpfs(5)."""
    with _mounted(where, "-t", "tmpfs", "-o", options, "storm") as path:
        yield path


def remount(where: Path, options: str) -> None:
    """Change the options of the file system at `where`."""
    assert _run("mount", "-o", f"remount,{options}", where) == ""


@contextlib.contextmanager
def quota(where: Path, limit: int) -> Iterator[Path]:
    """Mount a btrfs on which at most `limit` bytes can be used."""
    image = where.with_name(f"{where.name}.btrfs")
    with image.open("wb") as file:
        file.truncate(160 << 20)
    problem = _run("mkfs.btrfs", "-q", image)
    if problem:
        skip_or_fail(f"no file system with a quota: {problem}")
    with _mounted(where, "-o", "loop", image) as path:
        assert _run("btrfs", "quota", "enable", path) == ""
        limited(path, str(limit))
        yield path
    image.unlink()


def limited(where: Path, limit: str) -> None:
    """Set the quota of the btrfs at `where` ("none": there is no limit)."""
    assert _run("btrfs", "qgroup", "limit", limit, where) == ""


@contextlib.contextmanager
def disk(where: Path) -> Iterator[Path]:
    """Make an ext4 on a disk of its own, which is not mounted yet; return its image."""
    image = where.with_name(f"{where.name}.ext4")
    with image.open("wb") as file:
        file.truncate(24 << 20)
    problem = _run("mkfs.ext4", "-q", "-F", image)
    if problem:
        skip_or_fail(f"no disk: {problem}")
    yield image
    image.unlink()


@contextlib.contextmanager
def on(image: Path, where: Path) -> Iterator[Path]:
    """Mount the disk `image`; what its journal has is replayed."""
    with _mounted(where, "-o", "loop", image) as path:
        yield path


def as_it_is(image: Path) -> Path:
    """Return a copy of the disk `image`.

    The file system that lost its power may live on, since every mount namespace that was made meanwhile has it too; to
    mount its own image again would give that one.
    """
    copy = image.with_name(f"{image.name}.copy")
    assert _run("cp", "--sparse=always", image, copy) == ""
    return copy


def lose_power(where: Path) -> None:
    """End the file system at `where` as a loss of power does: what is not on the disk by now never comes there."""
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(fd)
