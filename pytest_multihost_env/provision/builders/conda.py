"""Builds from an `environment.yml`: rattler solves and installs the packages, uv the part for pip."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_multihost_env import process
from pytest_multihost_env.errors import NotReady, Passing, UsageProblem
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import environment_yml, prefix, uv
from pytest_multihost_env.provision.environment_yml import CondaEnvironment

LIMIT = 3600.0

_SUFFIXES = {".yml", ".yaml"}
_PASSED = ("RATTLER_AUTH_FILE", "CONDA_OVERRIDE_")
_KEY = re.compile(rb"^dependencies:", re.MULTILINE)
_TOKEN = re.compile(r"(?<=/t/)[^/\s]+")


class CondaBuilder:
    """Makes an environment with what an `environment.yml` lists."""

    name = "conda"

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why `source` is no such file; None if it is, perhaps with a mistake in it."""
        if not source.is_file():
            return f"{source} is not a file"
        if source.suffix in _SUFFIXES or _lists_packages(source):
            return None
        return f"{source} is neither called *.yml nor YAML with dependencies"

    def fingerprint(self, source: Path) -> str:
        """Return the sha256 over what the file asks for, what its pip part includes, and conda's overrides.

        Which packages the channels have today is not in it, nor which GPU driver this host has: `CONDA_OVERRIDE_CUDA`
        decides that, and is part of it.

        Raises:
            UsageProblem: Something in the file cannot be used.
        """
        wish = environment_yml.read(source)
        parts = [
            wish.channels,
            [text for text, _ in wish.packages],
            wish.pip,
            wish.listed.digest(source.absolute().parent),
            _overrides(os.environ),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Make the environment; scripts that a package wants to be run after its installation are not run.

        Raises:
            NotReady: The packages contradict each other, or cannot be had.
        """
        wish = environment_yml.read(source)
        with uv.building(destination, work):
            destination.mkdir(mode=0o755)
            _install(wish, source, destination / "py")
            prefix.make(destination)
            if wish.pip:
                hashes = ["--require-hashes"] if wish.listed.hashed else []
                text = "\n".join([*wish.pip, ""])
                uv.install(destination, ["install", *hashes, "-r", "-"], source, work, stdin=text)


def _lists_packages(source: Path) -> bool:
    try:
        with source.open("rb") as file:
            head = file.read(1 << 20)
        if not _KEY.search(head):
            return False
        environment_yml.read(source)
    except (OSError, UsageProblem):
        return False
    return True


def _overrides(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(environ.items()) if name.startswith("CONDA_OVERRIDE_")}


def _install(wish: CondaEnvironment, source: Path, destination: Path) -> None:
    child = Path(environment_yml.__file__).with_name("rattler_child.py")
    given = {name: value for name, value in uv.environment(os.environ).items() if not name.startswith("UV_")}
    given |= {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
    with _cache(os.environ) as cache:
        packages = [text for text, _ in wish.packages]
        request = {"channels": wish.channels, "packages": packages, "prefix": str(destination), "cache": cache}
        done = process.run(
            [sys.executable, "-I", "-B", str(child)],
            env=given,
            cwd=source.absolute().parent,
            input=json.dumps(request),
            timeout=LIMIT,
        )
    lines = done.stdout.strip().splitlines()
    if done.timed_out or not lines or not lines[-1].startswith("{"):
        said = redacted(done.stderr).strip() or f"nothing; it ended with {done.code}"
        raise Passing("py-rattler gave no answer", where=str(source), hint="try again", details={"it wrote": said})
    answer = json.loads(lines[-1])
    if "error" in answer:
        raise _failure(answer, wish, source)


def _failure(answer: Mapping[str, Any], wish: CondaEnvironment, source: Path) -> NotReady:
    said = redacted(answer["error"]).strip()
    details = {"rattler said": said}
    match answer["kind"]:
        case "absent":
            return Passing(
                f"py-rattler is needed to make an environment from this source: {said}",
                where=sys.executable,
                hint="pip install 'pytest-multihost-env[conda]'",
            )
        case "spec":
            text, where = wish.packages[answer["index"]]
            return NotReady(f"{text!r} is no package specification: {said}", where=where, hint="correct it")
        case "solver":
            what, hint = "the packages cannot be had together", "relax one of the specifications that it names"
            return NotReady(what, where=str(source), hint=hint, details=details)
        case "LookupError":
            return NotReady(said, where=str(source), hint="add python to the dependencies, with a version")
    if "hash mismatch" in said.lower():
        hint = "find out why that package is not what its channel says, or choose another channel"
        return NotReady(
            "a package has another content than its channel says", where=str(source), hint=hint, details=details
        )
    if uv.is_network(said):
        hint = "see to the network, or name a channel that this host reaches, and provision again"
        return Passing("a channel cannot be reached", where=str(source), hint=hint, details=details)
    return NotReady("the packages could not be installed", where=str(source), hint="mend what it says", details=details)


@contextlib.contextmanager
def _cache(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield where packages are kept: in rattler's own cache; where that cannot be written, for this call only."""
    home = environ.get("XDG_CACHE_HOME") or f"{environ.get('HOME') or '/nonexistent'}/.cache"
    path = environ.get("RATTLER_CACHE_DIR") or f"{home}/rattler/cache"
    if uv.can_write(Path(path)):
        yield str(Path(path).absolute())
        return
    with tempfile.TemporaryDirectory(prefix="multihost-env-") as folder:
        yield folder


def redacted(text: str) -> str:
    """Return `text` without accounts and without the tokens that conda has in URLs."""
    return _TOKEN.sub("***", uv.redacted(text))
