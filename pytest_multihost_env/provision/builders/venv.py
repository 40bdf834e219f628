"""Builds from a virtual environment: copies it."""

from __future__ import annotations

import hashlib
import operator
import os
from pathlib import Path

from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import mishaps
from pytest_multihost_env.provision.copy import copy_tree
from pytest_multihost_env.provision.pyvenv import read

_NAME = operator.attrgetter("name")


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
        if read(config).get("include-system-site-packages", "false").lower() == "true":
            return (
                f"{config} says include-system-site-packages = true, so packages come from each host's own Python: "
                "make the environment without --system-site-packages and install what it needs"
            )
        return None

    def fingerprint(self, source: Path) -> str:
        """Return the sha256 over what the tree holds and which interpreter it runs.

        Names, types, modes, sizes, times and link targets count, contents do not: a walk costs microseconds per
        file.  Bytecode is left out, since merely importing a module writes it.
        """
        with mishaps.named("looking through the source"):
            return _fingerprint(source)

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Copy `source` to `destination`; the interpreter may still lie outside (`bundle`) and paths be old.

        Raises:
            NotReady: Something could not be copied; `destination` is then removed.
        """
        work.progress.begin("copying", work.files, work.size)
        try:
            copied = copy_tree(source, destination, work=work, digests=True)
        finally:
            work.progress.end()
        for name in copied.outside:
            if not name.startswith("bin/python"):  # those lead to the interpreter, which is put inside later
                work.notify(f"{source}/{name} is a link that leads out of the environment; it is copied as it is")


def _fingerprint(source: Path) -> str:
    digest = hashlib.sha256()
    stack = [(str(source), "")]
    while stack:
        path, prefix = stack.pop()
        records, below = _directory(path, prefix)
        digest.update(records.encode("utf-8", "surrogateescape"))
        stack.extend(reversed(below))
    python = os.path.realpath(source / "bin" / "python")
    status = os.stat(python)  # noqa: PTH116
    digest.update(f"{python}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _directory(path: str, prefix: str) -> tuple[str, list[tuple[str, str]]]:
    """Return one record per entry of a directory, in the order of names, and its sub-directories.

    Listed by descriptor: the kernel then looks up one name per entry instead of the whole path (a fifth faster).
    """
    records: list[str] = []
    below: list[tuple[str, str]] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as found:
            for entry in sorted(found, key=_NAME):
                name = entry.name
                if name == "__pycache__" or name.endswith(".pyc"):
                    continue
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    # no time of a directory: writing bytecode below it changes that
                    records.append(f"{prefix}{name}\0{status.st_mode}\n")
                    below.append((f"{path}/{name}", f"{prefix}{name}/"))
                    continue
                target = os.readlink(name, dir_fd=descriptor) if entry.is_symlink() else ""
                records.append(f"{prefix}{name}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\0{target}\n")
    finally:
        os.close(descriptor)
    return "".join(records), below
