"""Caches on the host's own storage: made where the rank runs, shared by this user's ranks there.  Standard library only."""
# Without pathlib, which would cost every rank 5 ms.
# ruff: noqa: PTH102, PTH116

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence

from pytest_multihost_env.launch.secretfiles import kind_of

BEGINNING = "multihost-caches-"
_SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "9p", "afs", "panfs", "pvfs2", "orangefs", "fuse")


def make(names: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """Make a directory of this user for each variable and return the paths by variable.

    They lie below `TMPDIR`, /var/tmp or /tmp: the first that is the host's own, safe and writable.

    Args:
        names: The variables.
        env: What the rank's program will have, for its TMPDIR.

    Raises:
        OSError: There is no such storage, or somebody else has taken the name.
    """
    if not names:
        return {}
    base = _base((env.get("TMPDIR", ""), "/var/tmp", "/tmp"))  # noqa: S108 - only in a directory of our own
    for name in names:
        _mkdir(f"{base}/{name}")
    return {name: _mine(f"{base}/{name}") for name in names}


def _base(places: Sequence[str]) -> str:
    tried = list(dict.fromkeys(place for place in places if place.startswith("/")))
    for place in tried:
        if _fit(place):
            path = f"{place.rstrip('/')}/{BEGINNING}{os.geteuid()}"
            # Read-only, full, /proc: the next place may be better.
            with contextlib.suppress(OSError):
                _mkdir(path)
            if os.path.lexists(path):
                return _mine(path)
    raise OSError(f"no storage of this host's own can be written; tried {', '.join(tried)}")


def _fit(place: str) -> bool:
    """Whether it is this host's own, and nobody but root can put something else in the place of what we make there."""
    with contextlib.suppress(OSError):
        found = os.stat(place)
        alone = found.st_uid == os.geteuid() and not found.st_mode & 0o022
        sticky = found.st_uid in (0, os.geteuid()) and found.st_mode & stat.S_ISVTX
        return stat.S_ISDIR(found.st_mode) and bool(alone or sticky) and not shared(kind_of(place))
    return False


def shared(kind: str) -> bool:
    """Whether several hosts may see what lies on a file system of this type."""
    return kind.startswith(_SHARED) and "overlay" not in kind


def _mkdir(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)


def _mine(path: str) -> str:
    """Return the path of a directory that only this user can write.

    Raises:
        OSError: What is there belongs to another, is open to others, or is no directory.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{path} is no directory")
    if found.st_uid != os.geteuid():
        raise OSError(f"{path} belongs to user {found.st_uid}")
    if found.st_mode & 0o022:
        raise OSError(f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o})")
    return path
