"""Claim and sweep the directories in which testbeds keep their keys, files and shared storage.

One directory per testbed below /var/tmp/multihost-testbed-UID, named INDEX-RANDOM: the index gives the subnet, the
random part makes sure that whoever removes a dead testbed's directory can never meet a living one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.testbed import linux

_NAME = re.compile(r"(\d+)-[0-9a-f]+")
_OWNER = "owner.json"
MOST = 250
"""Testbeds at a time: the index is the third number of an address."""


def base_directory(uid: int) -> Path:
    """Return where the testbeds of one user lie; it is the same path in all their hosts."""
    return Path(f"/var/tmp/multihost-testbed-{uid}")


def claim(base: Path, owner: tuple[int, str]) -> tuple[int, Path]:
    """Remove what dead testbeds left, take the lowest free index and make its directory.

    Args:
        base: Where all testbeds of this user lie.
        owner: pid and start time of the process that the testbed belongs to.

    Returns:
        The index and the new directory.

    Raises:
        OSError: `base` belongs to somebody else, or there are too many testbeds.
    """
    with _locked(base):
        _sweep(base)
        taken = {int(match[1]) for match in (_NAME.fullmatch(entry.name) for entry in base.iterdir()) if match}
        index = next((number for number in range(MOST) if number not in taken), None)
        if index is None:
            raise OSError(f"{base} holds {MOST} living testbeds")
        root = base / f"{index}-{secrets.token_hex(3)}"
        root.mkdir(mode=0o755)
        keeper = (os.getpid(), linux.start_time(os.getpid()))
        (root / _OWNER).write_text(json.dumps({"owner": owner, "keeper": keeper}), encoding="utf-8")
    return index, root


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    base.mkdir(mode=0o755, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise OSError(f"{base} is not a directory that only we can write to: remove it")
    descriptor = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(base: Path) -> None:
    for entry in base.iterdir():
        if not _NAME.fullmatch(entry.name):
            continue
        try:
            record = json.loads((entry / _OWNER).read_text(encoding="utf-8"))
            (owner, owner_start), (keeper, keeper_start) = record["owner"], record["keeper"]
        except (OSError, ValueError, KeyError):
            shutil.rmtree(entry, ignore_errors=True)
            continue
        keeper_lives = linux.start_time(keeper) == keeper_start
        if linux.start_time(owner) == owner_start and keeper_lives:
            continue
        if keeper_lives:
            # The hosts' first processes get SIGKILL from the kernel when it ends.
            with suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGKILL)
        shutil.rmtree(entry, ignore_errors=True)
