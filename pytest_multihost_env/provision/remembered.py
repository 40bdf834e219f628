"""Remembers on this machine what would be added to an environment, for as long as nothing is installed or removed.

To find that out, the metadata of everything installed is read: 50 ms, most of what a reuse would take otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import election

_RECORDS = ("RECORD", "METADATA", "direct_url.json")
"""What of a distribution decides; an installer writes all of them anew, in a directory of that name."""


def identity(wanted: Sequence[str]) -> str:
    """Return `overlay.identity(wanted)`."""
    stamp = _hash("\0".join(_stamp()))
    with contextlib.suppress(NotReady, OSError, ValueError):
        return _read(wanted, stamp)
    from pytest_multihost_env.provision import overlay

    found = overlay.identity(wanted)
    if not overlay.is_editable(wanted):  # of that, a file may change while nothing is installed
        with contextlib.suppress(NotReady, OSError):
            path = election.private_directory() / _name(wanted)
            files.replace_file(path, f"{stamp} {found}".encode("ascii"), 0o600)
    return found


def _read(wanted: Sequence[str], stamp: str) -> str:
    # Of this machine alone: a file that is not there need not be waited for.
    then, found = (election.private_directory() / _name(wanted)).read_text("ascii").split(" ")
    if then != stamp:
        raise ValueError("something was installed since")
    return found


def _name(wanted: Sequence[str]) -> str:
    return f"added-{_hash(repr((sys.prefix, sys.version, sys.path, wanted)))[:32]}.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp() -> Iterator[str]:
    """Yield which distributions are installed, and when each was."""
    for directory in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(directory or "."))  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info", ".egg-link")):
                yield f"{directory}/{name}"
                for record in _RECORDS:
                    with contextlib.suppress(OSError):
                        status = os.stat(f"{directory}/{name}/{record}")  # noqa: PTH116
                        yield f"{record} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
