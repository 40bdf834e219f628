"""Takes the digests of many files, shared out among as many processes as there are processors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pytest_multihost_env import process
from pytest_multihost_env.provision import digests
from pytest_multihost_env.provision.manifest import FILE, Entry
from pytest_multihost_env.provision.scan import scan

_MOST = 8
_EACH = 50_000
"""Bytes that could be hashed in the time that opening a file takes."""

_LITTLE = 50_000_000
"""So much is done before a second process has begun."""


def look_again(root: Path, known: Iterable[Entry]) -> list[Entry]:
    """Return what is below `root`; files that are `known` with their digests, by the same algorithm as there.

    Raises:
        NotReady: An algorithm is not there.
        OSError: Something cannot be read.
    """
    then = {entry.path: digests.algorithm(entry.content) for entry in known if entry.type == FILE}
    found = list(scan(root, contents=False, strict=False))
    read: dict[str, str] = {}
    for name in set(then.values()):
        read |= of_files(root, ((e.path, e.size) for e in found if e.type == FILE and then.get(e.path) == name), name)
    return [entry._replace(content=read[entry.path]) if entry.path in read else entry for entry in found]


def of_files(root: Path, files: Iterable[tuple[str, int]], name: str) -> dict[str, str]:
    """Return the digests, by the algorithm `name`, of files below `root`, given with their sizes.

    Raises:
        NotReady: There is no such algorithm here.
        OSError: One cannot be read.
    """
    digests.require(name)
    own, *others = _shared_out(list(files))
    helpers = [(part, helper) for part in others for helper in [_Helper(root, part, name)]]
    try:
        found = {path: digests.of_file(f"{root}/{path}", name) for path in own}
        for part, helper in helpers:
            # Whatever kept it from the end, a file that cannot be read or a signal, shows when it is done here.
            taken = helper.result() or [digests.of_file(f"{root}/{path}", name) for path in part]
            found |= zip(part, taken, strict=True)
    finally:
        for _, helper in helpers:
            helper.close()
    return found


def _shared_out(files: Sequence[tuple[str, int]]) -> list[list[str]]:
    """Return the paths in parts that take about equally long."""
    whole = sum(size + _EACH for _, size in files)
    count = min(len(os.sched_getaffinity(0)), _MOST, whole // _LITTLE + 1)
    parts: list[list[str]] = [[] for _ in range(count)]
    done = [0] * count
    for path, size in sorted(files, key=lambda file: -file[1]):
        least = done.index(min(done))
        parts[least].append(path)
        done[least] += size + _EACH
    return parts


class _Helper:
    """A process that takes the digests of some files."""

    def __init__(self, root: Path, paths: Sequence[str], name: str) -> None:
        self._count = len(paths)
        self._child: process.Popen | None = None
        program = [sys.executable, "-I", "-S", digests.__file__, name, *_modules(name)]
        try:
            self._child = process.start(
                program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            if self._child.stdin is not None:
                with self._child.stdin as stream:
                    stream.write(b"\0".join(os.fsencode(f"{root}/{path}") for path in paths))
        except OSError:
            return

    def result(self) -> list[str]:
        """Return what it found, once it has; nothing when it did not get to the end."""
        if self._child is None or self._child.stdout is None:
            return []
        lines = self._child.stdout.read().decode("ascii").splitlines()
        return lines if len(lines) == self._count and self._child.wait() == 0 else []

    def close(self) -> None:
        """End it, wanted or not."""
        if self._child is not None:
            self._child.kill()
            if self._child.stdout is not None:
                self._child.stdout.close()
            self._child.wait()


def _modules(name: str) -> Iterator[str]:
    """Yield where a Python without site-packages, which starts twice as fast, finds the algorithm."""
    if name == digests.BLAKE3:
        import blake3

        yield str(Path(blake3.__file__).parent.parent)
