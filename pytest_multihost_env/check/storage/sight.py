"""How late one host sees what another has made.  Standard library only; a part of `far`.

The maker's files lie in directories of their own for each way of looking: a listing makes an NFS client forget the names
that it took for missing (nfs(5), `lookupcache`), and so does a file of one's own in the same directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

OLD, NEW = b"before\n", b"beyond\n"
"""Of one length: a cache that knows the size alone is found out too."""

_WHEN = 1_000_000_000
"""A time that no file gets by itself, in seconds."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1


def prepare(mine: Path) -> None:
    """Make what is going to be changed."""
    for name in ("listed", "asked", "fresh", "changed"):
        (mine / name).mkdir()
    (mine / "changed" / "text").write_bytes(OLD)
    (mine / "changed" / "dated").write_bytes(OLD)


def prime(theirs: Path) -> None:
    """Look at everything too early, as a waiter does that polls by name."""
    for kind in LOOKS:
        if kind != "fresh":
            _seen(theirs, kind)


def change(mine: Path) -> None:
    """Make the new names, and change what was there."""
    for name in ("listed", "asked", "fresh"):
        (mine / name / "new").touch()
    (mine / "changed" / "text").write_bytes(NEW)
    os.utime(mine / "changed" / "dated", (_WHEN, _WHEN))


def _there(path: Path) -> bool:
    path.lstat()
    return True


LOOKS: dict[str, Callable[[Path], bool]] = {
    "listing": lambda theirs: "new" in os.listdir(theirs / "listed"),  # noqa: PTH208
    "asked": lambda theirs: _there(theirs / "asked" / "new"),
    "fresh": lambda theirs: _there(theirs / "fresh" / "new"),
    "content": lambda theirs: (theirs / "changed" / "text").read_bytes() == NEW,
    "mtime": lambda theirs: (theirs / "changed" / "dated").stat().st_mtime == _WHEN,
}


def watch(makers: Iterable[Path], patience: float) -> dict[str, dict[str, float]]:
    """Return after how many seconds each maker's changes were seen, by its name and the way of looking.

    What was not seen within `patience` seconds is left out.  0: at the first look.
    """
    open_ = [(maker, kind) for maker in makers for kind in LOOKS]
    seen: dict[str, dict[str, float]] = {maker.name: {} for maker, _ in open_}
    began, first, pause = time.monotonic(), True, _FIRST_PAUSE
    while open_:
        for maker, kind in list(open_):
            if _seen(maker, kind):
                seen[maker.name][kind] = 0.0 if first else round(time.monotonic() - began, 3)
                open_.remove((maker, kind))
        left = began + patience - time.monotonic()
        if left <= 0:
            break
        if open_:
            time.sleep(min(pause, left))
        first, pause = False, min(pause * 1.5, _LONGEST_PAUSE)
    return seen


def _seen(maker: Path, kind: str) -> bool:
    with contextlib.suppress(OSError):  # a name that is not there yet, or a handle that a cache kept (ESTALE)
        return LOOKS[kind](maker)
    return False
