"""Where an environment may be made.  Looks only; nothing is created here."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path

from pytest_multihost_env import files, filesystem
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.names import size_of
from pytest_multihost_env.provision import walk

PROTOCOL = "v1"
MARGIN = 1.2
"""Free space must be this many times the size of the source."""

_OF_A_FILE = 4
"""Fields in the line that `walk` has for a file; those of links and directories are fewer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A source and a target that were looked at.

    Attributes:
        source: What to build from; absolute.
        target: The symlink that people use; absolute, its parent's symlinks kept.
        foreign: There is something at `target` that this package did not make.
    """

    source: Path
    target: Path
    foreign: bool

    @property
    def home(self) -> Path:
        """The directory beside the target that holds everything that is made."""
        return self.target.with_name(f".{self.target.name}.d")

    @property
    def store(self) -> Path:
        """The part of `home` that this version of the protocol uses."""
        return self.home / PROTOCOL


def of_target(target: Path) -> Place:
    """Return the place of what was made for `target`, whatever it was made from."""
    target = _absolute(target)
    return Place(source=target, target=target, foreign=_is_foreign(target))


def examine(source: Path, target: Path, *, force: bool = False) -> Place:
    """Return where to build from and to.

    Raises:
        UsageProblem: One of them cannot be, with the remedy.
    """
    source, target = _absolute(source), _absolute(target)
    if not source.exists():
        raise UsageProblem(
            f"the source {source} does not exist" + (": a dangling symlink" if source.is_symlink() else ""),
            expected="a virtual environment, a packed one, or a file that says what to install",
            hint="correct the path"
            + ("" if source.suffix else f", or make an environment: python -m venv {shlex.quote(str(source))}"),
        )
    _refuse_dangerous(source, target)
    place = Place(source, target, foreign=_is_foreign(target))
    if place.foreign:
        _refuse_foreign(place, force)
    return place


def _absolute(path: Path) -> Path:
    path = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - "~nobody" stays as it is instead of raising
    return Path(os.path.realpath(path.parent)) / path.name if ".." in path.parts else path


def _refuse_dangerous(source: Path, target: Path) -> None:
    real_source = source.resolve()
    real = target.parent.resolve() / target.name
    # Not by a name that may not be there yet: a client that was told so goes on saying it.
    ways = {real, target.resolve()} if _is_there(target) else {real}
    home = Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - never raises
    reason = None
    if real.parent == real or not target.name or target.name in {".", ".."}:
        reason = "is the root of the file system"
    elif any(home.is_relative_to(way) for way in ways):
        reason = "is or contains the home directory"
    elif real_source.is_relative_to(real.with_name(f".{real.name}.d")):
        reason = "would be made from one of its own generations"
    elif real_source in ways:
        reason = "is the source itself"
    elif any(way.is_relative_to(real_source) for way in ways):
        reason = "lies inside the source"
    elif any(real_source.is_relative_to(way) for way in ways):
        reason = "contains the source"
    elif _too_long(target):
        reason = "has a part that is too long: what is made beside it gets a longer name"
    elif any(character in str(target) for character in ":\n\r"):
        reason = "has a colon or a line break in its path, which PATH and scripts cannot hold"
    if reason is not None:
        raise UsageProblem(
            f"the target {target} {reason}",
            where=f"source {source}",
            hint="name a directory of its own, such as ./python_env",
        )
    _refuse_parent(target)
    _refuse_encoding(source, target)


def _too_long(target: Path) -> bool:
    """Return whether the names that have to be made are longer than the file system lets names be."""
    existing = nearest(target.parent)
    try:
        limit = os.pathconf(existing, "PC_NAME_MAX")
    except (OSError, ValueError):
        limit = 255
    missing = target.parent.relative_to(existing).parts
    return max(len(os.fsencode(name)) for name in (*missing, target.name + "x" * files.BESIDE)) > limit


def _refuse_encoding(source: Path, target: Path) -> None:
    """Refuse to read names in another way than the other hosts: then a path has another text here than in a manifest."""
    encoding = sys.getfilesystemencoding()
    for path in (source, target):
        if encoding != "utf-8" and not str(path).isascii():
            raise UsageProblem(
                f"a path is not plain ASCII, and this Python reads file names as {encoding}",
                where=str(path),
                expected="UTF-8, as on the other hosts",
                hint="set PYTHONUTF8=1, or LC_ALL=C.UTF-8",
            )
    if any("\udc80" <= character <= "\udcff" for character in str(target)):  # os.fsdecode's way to say a byte
        raise UsageProblem(
            f"the target {target} has bytes in its path that are no UTF-8, which Python does not read from pyvenv.cfg",
            where=f"source {source}",
            hint="name another directory",
        )


def _refuse_parent(target: Path) -> None:
    parent = nearest(target.parent)
    if not parent.is_dir():
        raise UsageProblem(f"the target {target} cannot be made: {parent} is not a directory", hint="name another")
    if not os.access(parent, os.R_OK | os.X_OK):
        raise UsageProblem(f"the target {target} cannot be made: {parent} cannot be read", hint="name another")


def nearest(path: Path) -> Path:
    """Return `path` or its nearest ancestor that exists, dangling symlinks included."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def _is_there(target: Path) -> bool:
    parent = target.parent
    return parent.is_dir() and os.access(parent, os.R_OK | os.X_OK) and files.is_listed(target)


def _is_foreign(target: Path) -> bool:
    if not target.parent.is_dir() or not files.is_listed(target):
        return False
    try:
        text = files.read_link(target)
    except FileNotFoundError:  # it was taken away meanwhile
        return False
    return text is None or not text.startswith(f".{target.name}.d/")


def _refuse_foreign(place: Place, force: bool) -> None:
    target = place.target
    if target.is_symlink():
        kind = "symlink to " + os.readlink(target) + ("" if target.exists() else ", which does not exist")  # noqa: PTH115
    elif target.is_dir():
        kind = "directory"
    else:
        raise UsageProblem(f"the target {target} is a file", hint="remove it, or name another target")
    remedy = f"move it away (`mv {target} {target}.old`), or name another target"
    if kind == "directory" and not (target / "pyvenv.cfg").is_file():
        raise UsageProblem(f"the target {target} is a directory, and no environment", hint=remedy)
    if not force:
        raise UsageProblem(
            f"the target {target} is a {kind}, and was not made by multihost-env",
            hint=f"{remedy}, or have it put aside with --force",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Amount:
    """How much a source is: its files, None when they cannot be counted (an archive), and their bytes."""

    files: int | None
    size: int


def require_space(place: Place, amount: Amount | None = None) -> Amount:
    """Check that the target's file system has room for a copy of the source, and return how much that is.

    Args:
        place: Source and target.
        amount: What an earlier check found: only the room is looked at again.

    Raises:
        NotReady: It has not.
    """
    amount = amount or _amount(place.source)
    where = nearest(place.target.parent)
    status = os.statvfs(where)
    free, needed = status.f_bavail * status.f_frsize, int(amount.size * MARGIN)
    if status.f_blocks and free < needed:  # a file system without a size (FUSE may have none) cannot be judged
        raise NotReady(
            f"{place.source} needs {size_of(needed)} and the file system of {where} has {size_of(free)} free",
            where=str(place.target),
            hint="free some space, or name a target on another file system",
        )
    names = int((amount.files or 0) * MARGIN)
    if status.f_files and status.f_favail < names:  # btrfs and others count none
        raise NotReady(
            f"{place.source} has {amount.files} files and the file system of {where} has room for {status.f_favail} more",
            where=str(place.target),
            hint="remove files there (df -i shows how many there are), or name a target on another file system",
        )
    return amount


def require_publishing(place: Place) -> None:
    """Check that a name can be made once on the target's file system: hours of building must not end with a refusal.

    Raises:
        NotReady: It cannot.
    """
    where = nearest(place.target.parent)
    if why := filesystem.unfit(where):
        raise NotReady(
            f"no environment can be published at {place.target}: {why}",
            where=f"mount {filesystem.mount_of(where)}",
            expected="a file system on which a hard link or a symlink refuses a name that is taken",
            hint=f"name a target on another one; `multihost-env doctor --fs {shlex.quote(str(where))}` says more",
        )


def _amount(path: Path) -> Amount:
    if not path.is_dir():
        return Amount(None, path.stat().st_size)
    lines = (line.split("\t") for block in walk.walk(str(path), walk.with_stat) for line in block.text.split("\n"))
    sizes = [int(fields[1]) for fields in lines if len(fields) == _OF_A_FILE]
    return Amount(len(sizes), sum(sizes))
