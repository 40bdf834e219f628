"""Builds from a lock file in the standard's format, `pylock.toml` (PEP 751): uv installs exactly what it says."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import interpreter, locks, uv

_NAME = re.compile(r"pylock(\.[^.]+)?\.toml")


@dataclasses.dataclass(frozen=True)
class PylockBuilder(interpreter.Choice):
    """Makes an environment with what a `pylock.toml` says; `python` None: with the Python that runs us."""

    name = "pylock"

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why `source` is no such lock; None if it is, perhaps with a mistake in it."""
        if not source.is_file():
            return f"{source} is not a file"
        if _NAME.fullmatch(source.name) or locks.has_keys(source, "lock-version", "packages"):
            return None
        return f"{source} is neither called pylock.toml or pylock.NAME.toml nor has a lock-version and packages"

    def fingerprint(self, source: Path) -> str:
        """Return the sha256 over the file, the local files that it names, and the Python.

        Raises:
            UsageProblem: The file is no valid lock.
        """
        if not _NAME.fullmatch(source.name):
            raise UsageProblem(
                "a lock of this kind must be called pylock.toml or pylock.NAME.toml (PEP 751)",
                where=str(source),
                hint="rename it",
            )
        digest = hashlib.sha256(source.read_bytes())
        for path in _local(source, _valid(source)):
            digest.update(f"{path}\0".encode() + locks.content(path, source))
        digest.update(interpreter.chosen(self.python).identity.encode())
        return digest.hexdigest()

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Make the environment; every file must have the hash that stands in the lock.

        Raises:
            NotReady: There is no uv, or it cannot make the environment.
        """
        with uv.building(destination, work):
            uv.make(destination, interpreter.chosen(self.python).path, source, work)
            uv.install(destination, ["sync", "--preview-features", "pylock", str(source.absolute())], source, work)


def _valid(source: Path) -> dict[str, Any]:
    """Return the content of the lock.

    Raises:
        UsageProblem: It is none; the message has the address of what is wrong: `packages[3].wheels[0].hashes`.
    """
    content = locks.load(source)
    try:
        from packaging import pylock
    except ImportError:  # an older packaging: uv judges alone
        return content
    try:
        pylock.Pylock.from_dict(content)
    except pylock.PylockValidationError as error:
        raise UsageProblem(
            f"the lock is not valid: {error}",
            where=str(source),
            expected="a lock file as in PEP 751",
            hint="make it anew, for example with `uv export --format pylock.toml`",
        ) from None
    return content


def _local(source: Path, content: dict[str, Any]) -> list[Path]:
    """Return the local files that the lock names.

    Raises:
        UsageProblem: It names a directory, whose content no lock can hold.
    """
    found = []
    for number, package in enumerate(content.get("packages", [])):
        if "directory" in package:
            raise UsageProblem(
                f"{package.get('name')} comes from the directory {package['directory'].get('path')}, "
                "and what is built from one can change without this file",
                where=f"{source}: packages[{number}].directory",
                hint="build a wheel of it (`uv build --wheel DIR`) and lock that, or leave it out of the lock",
            )
        parts = [*package.get("wheels", []), package.get("sdist", {}), package.get("archive", {})]
        found += [source.parent / part["path"] for part in parts if "path" in part]
    return found
