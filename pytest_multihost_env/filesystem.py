"""What a directory lies on, and whether a name can be published there once.  Standard library only.

Hosts run it too, as a part of `check.storage.far`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env import files

PREFIX = ".multihost-fs-"
"""Begins the name of every directory that a look at a file system makes."""

REFUSES = "refuses"
_ESCAPE = re.compile(r"\\([0-7]{3})")

Make = Callable[[bytes, Path], None]
"""Makes a name that carries some text."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """The mount that a directory lies on, as this host has it.

    Attributes:
        point: Where it is mounted.
        kind: Type of the file system (`ext4`, `nfs4`, `lustre`).
        source: What is mounted: a device, or `server:/export`.
        options: Of the mount and of the file system.
    """

    point: str
    kind: str
    source: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.point} ({self.kind}, {','.join(self.options)})"


UNKNOWN = Mount("/", "unknown", "", ())


def mount_of(path: Path) -> Mount:
    """Return the mount that holds `path`; `UNKNOWN` where the kernel does not say (proc_pid_mountinfo(5))."""
    real = os.path.realpath(path)
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return UNKNOWN
    found = UNKNOWN
    for line in table.splitlines():
        mount = _mount(line)
        below = mount is not None and (real == mount.point or real.startswith(mount.point.rstrip("/") + "/"))
        # A later mount covers an earlier one, and a deeper one its parent.
        if mount is not None and below and (found is UNKNOWN or len(mount.point) >= len(found.point)):
            found = mount
    return found


def _mount(line: str) -> Mount | None:
    front, _, back = line.partition(" - ")
    before, after = front.split(), back.split(" ")
    if len(before) < 6 or len(after) < 3:
        return None
    options = dict.fromkeys([*before[5].split(","), *after[2].split(",")])
    return Mount(_plain(before[4]), after[0], _plain(after[1]), tuple(map(_plain, options)))


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


# -- a name that is made once ------------------------------------------------------------------------------------


def exclusive(text: bytes, name: Path) -> None:
    """Make `name` as a new file."""
    files.write_new(name, text)


def link(text: bytes, name: Path) -> None:
    """Make `name` as a hard link to a file."""
    other = name.with_name(f"{name.name}.{secrets.token_hex(4)}")
    files.write_new(other, text)
    os.link(other, name)


def symlink(text: bytes, name: Path) -> None:
    """Make `name` as a symlink."""
    os.symlink(text, os.fsencode(name))  # noqa: PTH211 - a Path would tidy the text


def refusal(make: Make, directory: Path) -> str:
    """Say whether `make` refuses a name that is taken, and leaves what it says alone.

    Returns:
        `refuses`; `accepts` or `replaces` when two makers would both believe that the name is theirs; `misreports` when
        it says that it failed and has not; `cannot: ERRNO` when no name can be made in this way.
    """
    name = directory / make.__name__
    try:
        make(b"first", name)
    except OSError as error:
        if name.name in os.listdir(directory):  # noqa: PTH208
            return f"misreports: {code(error)}"
        return f"cannot: {code(error)}"
    try:
        make(b"second", name)
    except OSError:
        return REFUSES if files.read_record(name).data == b"first" else "replaces"
    return "accepts"


def code(error: OSError) -> str:
    """Return the name of an error's number (`EPERM`)."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def unfit(directory: Path) -> str | None:
    """Return why nothing can be published below `directory`, which exists; None when it can, or cannot be tried.

    `files.publish_once` needs a hard link that refuses a taken name, or a symlink that does; a target and most
    environments need symlinks.  It takes a few ms, and leaves nothing behind.
    """
    trial = directory / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        trial.mkdir(mode=0o700)
        by_link, by_symlink = refusal(link, trial), refusal(symlink, trial)
    except OSError:
        return None  # no room, no permission: whoever goes on says it better
    finally:
        with contextlib.suppress(OSError):
            files.remove_tree(trial)
    return verdict(by_link, by_symlink)


def verdict(by_link: str, by_symlink: str) -> str | None:
    """Return why nothing can be published where link(2) and symlink(2) behave like this; None when it can."""
    if by_symlink.startswith("cannot"):
        also = " and no hard link either" if by_link.startswith("cannot") else ""
        return f"no symlink can be made there ({by_symlink.removeprefix('cannot: ')}){also}"
    if by_link == REFUSES or (by_link.startswith("cannot") and by_symlink == REFUSES):
        return None
    if by_link.startswith("misreports"):
        return None  # `publish_once` judges by the listing
    how = "a hard link" if not by_link.startswith("cannot") else "a symlink"
    return f"{how} can be made there under a name that is taken, so two hosts would both believe that they had won"
