"""Builds from a `uv.lock` and the `pyproject.toml` beside it: uv installs what is locked, less the project itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import interpreter, locks, uv

_NAME = "uv.lock"


@dataclasses.dataclass(frozen=True)
class UvLockBuilder(interpreter.Choice):
    """Makes an environment with what a `uv.lock` says; `python` None: with the Python that runs us."""

    name = "uv-lock"

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why `source` is no lock of uv; None if it is, perhaps with a mistake in it."""
        if not source.is_file():
            return f"{source} is not a file"
        if source.name == _NAME or locks.has_keys(source, "version", "requires-python", "package"):
            return None
        return f"{source} is not called uv.lock, nor is it one by its content"

    def fingerprint(self, source: Path) -> str:
        """Return the sha256 over the lock, what `pyproject.toml` says about dependencies, and the Python.

        Raises:
            UsageProblem: One of the two files cannot be used.
        """
        content, project = locks.load(source), _project(source)
        _refuse_directories(source, content)
        digest = hashlib.sha256(source.read_bytes())
        for path in _local(source, content):
            digest.update(f"{path}\0".encode() + locks.content(path, source))
        digest.update(json.dumps(project, sort_keys=True, default=str).encode())
        digest.update(interpreter.chosen(self.python).identity.encode())
        return digest.hexdigest()

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Make the environment with the default groups (so `dev`), and without the project: its tests bring the code.

        Raises:
            NotReady: There is no uv, or it cannot make the environment.
        """
        python = interpreter.chosen(self.python).path
        with uv.building(destination, work):
            uv.make(destination, python, source, work)
            words = ["sync", "--frozen", "--no-install-project", "--python", str(python)]
            uv.run(words, source, work, env={"UV_PROJECT_ENVIRONMENT": str(destination)})


def _project(source: Path) -> dict[str, Any]:
    """Return what decides of the `pyproject.toml` beside the lock.

    Raises:
        UsageProblem: There is none, or the lock has another name than the one that uv looks for.
    """
    if source.name != _NAME:
        raise UsageProblem("a lock of uv must be called uv.lock", where=str(source), hint="rename it")
    path = source.with_name("pyproject.toml")
    if not path.is_file():
        raise UsageProblem(
            "there is no pyproject.toml beside the lock, and uv.lock alone does not say what to install",
            where=str(path),
            hint="put it there, or export a lock that stands alone: `uv export --format pylock.toml -o pylock.toml`",
        )
    content = locks.load(path)
    project, tool = content.get("project", {}), content.get("tool", {})
    keys = ("name", "requires-python", "dependencies", "optional-dependencies")
    return {
        "project": {key: project.get(key) for key in keys},
        "groups": content.get("dependency-groups"),
        "uv": tool.get("uv"),
    }


def _refuse_directories(source: Path, content: dict[str, Any]) -> None:
    for number, package in enumerate(content.get("package", [])):
        where = package.get("source", {})
        place = where.get("directory") or where.get("editable") or where.get("virtual")
        if place is not None and place != ".":
            raise UsageProblem(
                f"{package.get('name')} comes from the directory {place}, "
                "and what is built from one can change without this file",
                where=f"{source}: package[{number}].source",
                hint="build a wheel of it (`uv build --wheel DIR`) and depend on that",
            )


def _local(source: Path, content: dict[str, Any]) -> list[Path]:
    """Return the distributions that the lock names as files and without a hash."""
    places = [package.get("source", {}).get("path") for package in content.get("package", [])]
    return [source.parent / place for place in places if place]
