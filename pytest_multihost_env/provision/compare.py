"""What differs between two listings of an environment, file by file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import PurePosixPath

from pytest_multihost_env.provision.manifest import FILE, LINK, Entry
from pytest_multihost_env.provision.walk import escaped


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One path that is in both, and what about it differs: `type`, `content`, `size`, `mode`, `time` or `target`."""

    path: str
    what: tuple[str, ...]

    def __str__(self) -> str:
        return f"{escaped(self.path)} ({', '.join(self.what)})"


@dataclasses.dataclass(frozen=True, slots=True)
class Differences:
    """How one listing differs from another.

    Attributes:
        differing: What is in both and not the same.
        missing: Paths that only the first has.
        extra: Paths that only the second has; bytecode that Python adds is not counted.
    """

    differing: tuple[Difference, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.differing or self.missing or self.extra)


def compare(then: Iterable[Entry], now: Iterable[Entry]) -> Differences:
    """Return how `now` differs from `then`."""
    before = {entry.path: entry for entry in then}
    after = {entry.path: entry for entry in now}
    found = (Difference(path, differs(before[path], after[path])) for path in before if path in after)
    return Differences(
        differing=tuple(one for one in found if one.what),
        missing=tuple(path for path in before if path not in after),
        extra=tuple(path for path in after if path not in before and not is_bytecode(path)),
    )


def differs(then: Entry, now: Entry) -> tuple[str, ...]:
    """Return what about one path is not the same; a directory's time says nothing, since Python writes bytecode."""
    if then == now:
        return ()
    if then.type != now.type:
        return ("type",)
    found = []
    if then.content != now.content:
        found.append("target" if then.type == LINK else "content")
    if then.size != now.size:
        found.append("size")
    if then.mode != now.mode:
        found.append("mode")
    if then.type == FILE and then.mtime_ns != now.mtime_ns:
        found.append("time")
    return tuple(found)


def is_bytecode(path: str) -> bool:
    """Return whether `path` is what Python writes when a module without bytecode is imported."""
    return "__pycache__" in PurePosixPath(path).parts
