"""Which Python an environment is made with, when SOURCE does not bring one."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Self

from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.provision import ask


@dataclasses.dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python.

    Attributes:
        path: Its program.
        identity: What tells it from others: implementation, version, build.
    """

    path: Path
    identity: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a builder is that makes an environment with a Python of one's choice; None: the one that runs us."""

    python: str | None = None

    def using(self, python: str) -> Self:
        """Return a builder that uses `python`."""
        return dataclasses.replace(self, python=python)


def own() -> Interpreter:
    """Return the Python that runs this process, without its virtual environment.

    Inside a generation that is the bundled copy, whose identity is the original's: the key stays the same.
    """
    return Interpreter(Path(getattr(sys, "_base_executable", "") or sys.executable), _identity(sys.version))


def chosen(text: str | None) -> Interpreter:
    """Return the Python that `text` names: a path, a program on PATH, or a version such as 3.12; None: our own.

    Raises:
        UsageProblem: There is none, or it does not run.
    """
    if text is None:
        return own()
    name = f"python{text}" if re.fullmatch(r"\d+(\.\d+)?t?", text) else text
    found = shutil.which(os.path.expanduser(name))  # noqa: PTH111 - "~nobody" stays as it is
    if found is None:
        raise UsageProblem(
            f"there is no Python {text!r}",
            where="python",
            expected="the path of an interpreter, its name on PATH, or a version such as 3.12",
            hint="install it, or name another",
        )
    path = Path(found).absolute()
    try:
        version = ask.interpreter(path, ["version"])
    except NotReady as error:
        raise UsageProblem(
            f"{path} is no Python that runs: {error.what}", where="python", hint="name another"
        ) from None
    return Interpreter(path, _identity(version))


def _identity(version: str) -> str:
    return f"{sys.implementation.name} {version}"
