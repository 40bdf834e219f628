"""Caches on the host's own storage: made where the rank runs, shared by this user's ranks there.  Standard library only."""
# Without pathlib, which would cost every rank 5 ms.
# ruff: noqa: PTH102, PTH112

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

    They lie below `TMPDIR`, /var/tmp or /tmp: the first that is no storage of several hosts and can be written.

    Args:
        names: The variables.
        env: What the rank's program will have, for its TMPDIR.

    Raises:
        OSError: There is no such storage, or somebody else has taken the name.
    """
    if not names:
        return {}
    base = _base((env.get("TMPDIR", ""), "/var/tmp", "/tmp"))  # noqa: S108 - only in a directory of our own
    return {name: _own(f"{base}/{name}") for name in names}


def _base(places: Sequence[str]) -> str:
    tried = list(dict.fromkeys(place for place in places if place.startswith("/")))
    for place in tried:
        if os.path.isdir(place) and not shared(kind_of(place)):
            with contextlib.suppress(PermissionError):
                return _own(f"{place.rstrip('/')}/{BEGINNING}{os.geteuid()}")
    raise OSError(f"no storage of this host's own can be written; tried {', '.join(tried)}")


def shared(kind: str) -> bool:
    """Whether several hosts may see what lies on a file system of this type."""
    return kind.startswith(_SHARED) and "overlay" not in kind


def _own(path: str) -> str:
    """Make a directory that only this user can write, or take the one that is there.

    Raises:
        PermissionError: None can be made there.
        OSError: What is there belongs to another, is open to others, or is no directory.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{path} is no directory")
    if found.st_uid != os.geteuid():
        raise OSError(f"{path} belongs to user {found.st_uid}")
    if found.st_mode & 0o022:
        raise OSError(f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o})")
    return path
