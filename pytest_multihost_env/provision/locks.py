"""Reads lock files, which are TOML, and says where they are wrong."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

from pytest_multihost_env.errors import UsageProblem

_LARGEST = 64 << 20


def load(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        UsageProblem: It cannot be read, or is no TOML; the line is named.
    """
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(_LARGEST).decode("utf-8"))
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error.strerror}", where=str(path), hint="see to it") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(
            f"{path.name} is not valid TOML: {error}", where=str(path), hint="correct it, or lock again"
        ) from None


def has_keys(path: Path, *keys: str) -> bool:
    """Whether the file `path`, whatever its name, is TOML with all these keys at its top."""
    try:
        with path.open("rb") as file:
            if any(key.encode() not in file.read(_LARGEST) or file.seek(0) for key in keys):
                return False
        return all(key in load(path) for key in keys)
    except (OSError, UsageProblem):
        return False


def content(path: Path, by: Path) -> bytes:
    """Return the sha256 of a local distribution that the lock `by` names.

    Raises:
        UsageProblem: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UsageProblem(
            f"{path} cannot be read: {error.strerror}", where=str(by), hint="put it there, or lock again"
        ) from None
