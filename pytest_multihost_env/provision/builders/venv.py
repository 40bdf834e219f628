"""Builds from a virtual environment: copies it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.model import STAT, ReadFile
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import manifest, mishaps
from pytest_multihost_env.provision.pyvenv import read
from pytest_multihost_env.provision.source import fingerprint


class VenvBuilder:
    """Makes a tree out of a virtual environment (PEP 405), whichever tool made it."""

    name = "venv"

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why `source` is not a virtual environment that can be copied; None if it is."""
        if not source.exists():
            return f"{source} does not exist: name the directory of a virtual environment"
        if not source.is_dir():
            return f"{source} is not a directory: name the directory of a virtual environment"
        config = source / "pyvenv.cfg"
        if not config.is_file():
            return f"{source} has no pyvenv.cfg, so it is not a virtual environment: make one with `python3 -m venv`"
        python = source / "bin" / "python"
        if not os.path.lexists(python):
            return f"{source} has no bin/python: make the environment anew with `python3 -m venv --clear`"
        if not python.exists():
            return (
                f"{python} leads to {os.path.realpath(python)}, which does not exist on this host: install that "
                "interpreter again, or make the environment anew with `python3 -m venv --clear`"
            )
        if not os.access(python, os.X_OK):
            return f"{python} may not be executed by this user: change its mode, or make the environment anew"
        home = read(config).get("home", "")
        if home and not home.startswith("/"):
            return (
                f"{config} says home = {home}, which Python would look for in whatever directory it is "
                "started: make the environment anew with `python3 -m venv --clear`"
            )
        if read(config).get("include-system-site-packages", "false").lower() == "true":
            return (
                f"{config} says include-system-site-packages = true, so packages come from each host's own Python: "
                "make the environment without --system-site-packages and install what it needs"
            )
        return None

    def fingerprint(self, source: Path) -> str:
        """Return the sha256 over what the tree holds and which interpreter it runs.

        Names, types, modes, sizes, times and link targets count, contents do not: a walk costs microseconds per file.
        """
        return self.glance(source, STAT, {})

    def glance(self, source: Path, tier: str, read: Mapping[str, ReadFile], algorithm: str = "") -> str:
        """Return what a look of that tier shows, as a digest (see `provision.source`)."""
        with mishaps.named("looking through the source"):
            return fingerprint(source, tier, read, algorithm)

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Copy `source` to `destination`; the interpreter may still lie outside (`bundle`) and paths be old.

        Raises:
            NotReady: Something could not be copied; `destination` is then removed.
        """
        from pytest_multihost_env.provision.copy import copy_tree  # what is used again need not be copied

        work.progress.begin("copying", work.files, work.size)
        try:
            copied = copy_tree(source, destination, work=work, digests=True)
        finally:
            work.progress.end()
        with mishaps.named("copying"):
            _unseal(destination)
        for name in copied.outside:
            if not name.startswith("bin/python"):  # those lead to the interpreter, which is put inside later
                work.notify(f"{source}/{name} is a link that leads out of the environment; it is copied as it is")


def _unseal(env: Path) -> None:
    """Make the copy of a published environment one that can be worked on: it is read-only and has a manifest."""
    if not env.stat().st_mode & stat.S_IWUSR:
        for folder, _, _ in os.walk(env):
            os.chmod(folder, os.stat(folder).st_mode | stat.S_IWUSR)  # noqa: PTH101, PTH116
    (env / manifest.NAME).unlink(missing_ok=True)
