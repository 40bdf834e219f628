"""A `.env` file: variables and secrets, read by python-dotenv, with a look at who else can read the file."""

from __future__ import annotations

import dataclasses
import io
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pytest_multihost_env.config.settings import Assignment, Item
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Secret
from pytest_multihost_env.names import looks_secret, valid_variable

EXTRA: Final = "EXTRA_SECRET_KEYS"
"""A key of the file itself: names of further secrets, divided by commas."""
_MOST_BYTES: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Dotenv:
    """What one file says.

    Attributes:
        path: The file; None when there is none.
        entries: Its variables, those that are declared secrets among them.
        secrets: Names of secrets that the file itself declares.
        kept: Variables whose names look like secrets and that nobody has declared: they do not leave this machine.
    """

    path: Path | None = None
    entries: tuple[Assignment, ...] = ()
    secrets: tuple[Item, ...] = ()
    kept: tuple[Assignment, ...] = ()


def read(path: Path | None, declared: Sequence[str], cwd: Path) -> Dotenv:
    """Return what the file says.  A value is literal: nothing in it is filled in.

    Args:
        path: The file, or None.
        declared: Names of secrets.
        cwd: A file below it is named relative to it.

    Raises:
        UsageProblem: The file is not there, a line of it is none, or others can read secrets in it.
    """
    if path is None:
        return Dotenv()
    name = str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
    text, status = _content(path, name)
    found = {one.name: one for one in _entries(text, name)}
    listed = found.pop(EXTRA, None)
    secrets = tuple(_extra(listed)) if listed else ()
    known = {*declared, *(item.value for item in secrets)}
    wrapped = {key: dataclasses.replace(one, value=Secret(one.value or "")) for key, one in found.items()}
    kept = tuple(one for key, one in wrapped.items() if key not in known and looks_secret(key))
    entries = tuple(wrapped[key] if key in known else one for key, one in found.items() if wrapped[key] not in kept)
    _guard(status, name, secret=next((key for key in found if key in known or looks_secret(key)), None))
    return Dotenv(path, entries, secrets, kept)


def _content(path: Path, name: str) -> tuple[str, os.stat_result]:
    """Return text and status of the file, of the same one even if it is replaced meanwhile."""
    try:
        # Without waiting for somebody to write, should it be a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageProblem("the .env file is not a file", where=name, hint="correct its path")
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageProblem(
            f"the .env file cannot be read: {error.strerror}", where=name, hint="correct its path, or leave it out"
        ) from None
    if len(data) > _MOST_BYTES:
        raise UsageProblem("the .env file has more than 1 MiB", where=name, hint="correct its path")
    try:
        return data.decode("utf-8-sig"), status
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageProblem(
            "the line is not text", where=f"{name}:{line}", expected="UTF-8", hint="correct the line"
        ) from None


def _entries(text: str, name: str) -> Iterator[Assignment]:
    from dotenv.parser import parse_stream

    for one in parse_stream(io.StringIO(text)):
        blank = len(one.original.string) - len(one.original.string.lstrip())
        line = one.original.line + one.original.string.count("\n", 0, blank)
        if one.key is None and not one.error:
            continue
        # The line itself is not shown: it may hold a secret.
        problem = (
            "the line is not NAME=VALUE"
            if one.error
            else f"{one.key!r} is not a variable name"
            if not valid_variable(one.key or "")
            else f"{one.key} has no value"
            if one.value is None
            else f"{one.key} contains a NUL"
            if "\0" in one.value
            else ""
        )
        if problem:
            raise UsageProblem(
                problem,
                where=f"{name}:{line}",
                expected='NAME=VALUE, NAME="VALUE" or export NAME=VALUE',
                hint="close the quote, write NAME= for an empty value, or begin a comment with #",
            )
        yield Assignment(one.key or "", one.value or "", f"{name}:{line}")


def _extra(listed: Assignment) -> Iterator[Item]:
    for part in (listed.value or "").split(","):
        name = part.strip()
        if name and not valid_variable(name):
            raise UsageProblem(
                f"{EXTRA} has {name!r}, which is not a variable name",
                where=listed.origin,
                expected="names of variables, divided by commas",
                hint="correct the name",
            )
        if name:
            yield Item(name, f"{EXTRA} in {listed.origin}")


def _guard(status: os.stat_result, name: str, secret: str | None) -> None:
    """Refuse a file that somebody else owns or can write, or (with secrets) can read; as ssh does with keys."""
    if status.st_uid not in (os.geteuid(), 0):
        raise UsageProblem(
            f"the .env file belongs to the user {status.st_uid}",
            where=name,
            expected="a file of your own",
            hint=f"copy it: install -m 600 {name} ...",
        )
    others = status.st_mode & (0o077 if secret else 0o002)
    if others:
        what = f"which holds {secret}, can be read or changed by others" if secret else "can be changed by others"
        raise UsageProblem(
            f"the .env file, {what}" if secret else f"the .env file {what}",
            where=name,
            expected=f"mode 0600, not {stat.S_IMODE(status.st_mode):04o}",
            hint=f"chmod 600 {name}",
        )
