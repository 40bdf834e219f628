"""The builder for virtual environments refuses with a remedy, and its fingerprint follows the tree."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision.builders import VenvBuilder
from pytest_multihost_env.provision.copy import copy_tree


@pytest.fixture
def source(special: Path) -> Path:
    top = special / "venv"
    (top / "bin").mkdir(parents=True)
    (top / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (top / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (top / "lib" / "package" / "__pycache__").mkdir(parents=True)
    (top / "lib" / "package" / "module.py").write_text("x = 1\n")
    return top


def test_a_virtual_environment_is_accepted(source: Path) -> None:
    assert VenvBuilder().refuses(source) is None


def dangling(top: Path) -> None:
    (top / "bin" / "python").unlink()
    (top / "bin" / "python").symlink_to("/nowhere/bin/python3.11")


def system(top: Path) -> None:
    (top / "pyvenv.cfg").write_text("include-system-site-packages = True\n")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "does not exist"),
    "no pyvenv.cfg": (lambda top: (top / "pyvenv.cfg").unlink(), "no pyvenv.cfg"),
    "no python": (lambda top: (top / "bin" / "python").unlink(), "no bin/python"),
    "dangling": (dangling, "/nowhere/bin/python3.11, which does not exist"),
    "system packages": (system, "without --system-site-packages"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_none_is_refused_with_the_reason(source: Path, name: str) -> None:
    spoil, reason = REFUSED[name]
    spoil(source)
    assert reason in (VenvBuilder().refuses(source) or "accepted")


def test_a_file_is_refused(source: Path) -> None:
    assert "is not a directory" in (VenvBuilder().refuses(source / "pyvenv.cfg") or "accepted")


def changed_time(top: Path) -> None:
    os.utime(top / "lib" / "package" / "module.py", ns=(1, 1))


def same_size_and_time(top: Path) -> None:
    file = top / "lib" / "package" / "module.py"
    status = file.stat()
    file.chmod(0o600)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda top: (top / "lib" / "package" / "module.py").write_text("x = 1234\n"),
    "time": changed_time,
    "mode": same_size_and_time,
    "new file": lambda top: (top / "lib" / "new").touch(),
    "new empty directory": lambda top: (top / "lib" / "new").mkdir(),
    "renamed": lambda top: (top / "lib" / "package").rename(top / "lib" / "other"),
    "link target": lambda top: (
        dangling(top),
        (top / "bin" / "python").unlink(),
        (top / "bin" / "python").symlink_to("/bin/sh"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_fingerprint_follows_every_change(source: Path, name: str) -> None:
    before = VenvBuilder().fingerprint(source)
    CHANGES[name](source)
    assert VenvBuilder().fingerprint(source) != before


def test_fingerprint_ignores_bytecode(source: Path) -> None:
    before = VenvBuilder().fingerprint(source)
    (source / "lib" / "package" / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"x")
    (source / "lib" / "__pycache__").mkdir()
    assert VenvBuilder().fingerprint(source) == before


def test_fingerprint_follows_the_interpreter_behind_the_link(source: Path, special: Path) -> None:
    python = special / "python3"
    python.write_bytes(b"one")
    (source / "bin" / "python").unlink()
    (source / "bin" / "python").symlink_to(python)
    before = VenvBuilder().fingerprint(source)
    python.write_bytes(b"upgraded")
    assert VenvBuilder().fingerprint(source) != before


def test_what_vanishes_is_named(source: Path) -> None:
    shutil.rmtree(source)
    with pytest.raises(NotReady, match="looking through the source failed: No such file") as caught:
        VenvBuilder().fingerprint(source)
    assert caught.value.where == str(source)


def test_a_copy_has_the_fingerprint_of_its_source(source: Path, special: Path) -> None:
    VenvBuilder().build(source, special / "copy", Work())
    copy_tree(source, special / "again")
    assert VenvBuilder().fingerprint(special / "copy") == VenvBuilder().fingerprint(source)
    assert VenvBuilder().fingerprint(special / "again") == VenvBuilder().fingerprint(source)
