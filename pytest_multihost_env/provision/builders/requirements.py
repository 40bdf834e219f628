"""Builds from a requirements file: uv resolves and installs it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import interpreter, requirements, uv

_SUFFIXES = {".txt", ".in"}


@dataclasses.dataclass(frozen=True)
class RequirementsBuilder(interpreter.Choice):
    """Makes an environment with what a requirements file lists; `python` None: with the Python that runs us."""

    name = "requirements"

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why `source` is no requirements file; None if it is, perhaps with a mistake in it."""
        if not source.is_file():
            return f"{source} is not a file"
        if source.suffix in _SUFFIXES and _is_text(source):
            return None
        if requirements.is_one(source):
            return None
        return f"{source} is neither called *.txt or *.in nor a list of requirements"

    def fingerprint(self, source: Path) -> str:
        """Return the sha256 over the file, its includes, the local wheels that it names, and the Python.

        What an index has is not in it: a file that does not pin everything is resolved when the environment is made,
        and again only when something here changes.

        Raises:
            UsageProblem: Something in the file cannot be used.
        """
        text = requirements.read(source).digest(source.absolute().parent)
        return hashlib.sha256(f"{text}\0{interpreter.chosen(self.python).identity}".encode()).hexdigest()

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Make the environment; where one requirement has a hash, every file must have the right one.

        Raises:
            NotReady: There is no uv, or it cannot make the environment.
        """
        hashes = ["--require-hashes"] if requirements.read(source).hashed else []
        with uv.building(destination, work):
            uv.make(destination, interpreter.chosen(self.python).path, source, work)
            uv.install(destination, ["install", *hashes, "-r", str(source.absolute())], source, work)


def _is_text(source: Path) -> bool:
    try:
        with source.open("rb") as file:
            file.read(4096).decode("utf-8", "strict" if source.stat().st_size <= 4096 else "ignore")
            file.seek(0)
            return b"\0" not in file.read(4096)
    except (OSError, UnicodeDecodeError):
        return False
