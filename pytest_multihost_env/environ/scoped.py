"""Paths that every rank has for itself: `/cache` becomes `/cache/<host>_rank_<N>`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

from pytest_multihost_env.config import Item
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Place, Variable

_SYSTEM: Final = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "usr")
_NOT_SYSTEM: Final = ("/dev/shm", "/run/user")  # noqa: S108 - a name, not a file
_OWN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*_rank_\d+")


def scoped(names: Iterable[Item], decided: Mapping[str, Variable], spot: Place) -> Iterator[Variable]:
    """Yield each of these variables that the rank receives, with a path that no other rank has.

    A path that a rank made its own already gets this rank's name in the place of that one.

    Args:
        names: The variables and who asked for it.
        decided: What the rank receives so far.
        spot: The rank and its host.

    Raises:
        UsageProblem: The value is a directory of the system, or leads out of itself with `..`.
    """
    for item in names:
        before = decided.get(item.value)
        if before is None or not before.value:
            continue
        path = PurePosixPath(before.value)
        base = path.parent if _OWN.fullmatch(path.name) else path
        if why := _unfit(base):
            raise UsageProblem(
                f"{item.value} cannot be made each rank's own: {why}",
                where=f"{before.rule} ({before.origin})",
                expected="a directory in which each rank may have one of its own",
                hint=f"give {item.value} another directory, or take it out of rank-scoped ({item.origin})",
            )
        own = str(base / f"{spot.host}_rank_{spot.rank}")
        yield Variable(item.value, own, "SET", f"rank-scoped; before: {before.rule}", item.origin)


def _unfit(path: PurePosixPath) -> str | None:
    if ".." in path.parts:
        return "it contains .."
    if len(path.parts) == 1 and path.is_absolute():
        return "it is the root directory"
    within = any(path.is_relative_to(other) for other in _NOT_SYSTEM)
    if path.is_absolute() and path.parts[1] in _SYSTEM and not within:
        return f"/{path.parts[1]} belongs to the system"
    return None
