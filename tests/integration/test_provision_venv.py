"""A real virtual environment, from source to a published tree that is proven, used, verified and seen to be changed."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import activate, manifest

SPECIAL = "it's #1 \N{LATIN SMALL LETTER U WITH DIAERESIS}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    top = tmp_path_factory.mktemp("venv") / SPECIAL
    source = top / "source"
    venv.create(source, with_pip=False, symlinks=True)
    site = next((source / "lib").glob("python3.*/site-packages"))
    (site / "mine.py").write_text("answer = 42\n")
    return ensure(source, top / "shared" / "python_env")


def ensure(source: Path, target: Path, **more: bool) -> Generation:
    return provision.ensure(provision.ProvisionRequest(source, target, **more), notify=print)


def source_of(made: Generation) -> Path:
    return target_of(made).parent.parent / "source"


def target_of(made: Generation) -> Path:
    return made.path.parents[4] / "python_env"


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, env={}, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_alone_and_has_what_was_added(made: Generation) -> None:
    program = "import sys, os, mine, pytest, pytest_multihost_env; print(sys.prefix, sys.base_prefix, os.__file__, mine.answer, sep='\\n')"
    prefix, base, library, answer = run(made.python, "-c", program).splitlines()
    assert prefix == str(made.path)
    assert base.startswith(f"{made.path}/")
    assert library.startswith(f"{made.path}/")
    assert answer == "42"
    assert any(added.startswith("pytest-multihost-env ") for added in made.added)
    assert any(added.startswith("pytest ") for added in made.added)


def test_the_manifest_says_where_it_came_from(made: Generation) -> None:
    known = manifest.parse((made.path / manifest.NAME).read_bytes())
    assert known.header.source == str(source_of(made))
    assert known.header.python == f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    assert known.header.added == made.added
    outside = [entry.path for entry in known.entries if entry.type == manifest.LINK and entry.content.startswith("/")]
    assert outside == []


def test_the_next_call_uses_it(made: Generation) -> None:
    again = ensure(source_of(made), target_of(made))
    assert again.reused
    assert (again.path, again.digest, again.added) == (made.path, made.digest, made.added)


def test_it_verifies_and_using_it_changes_nothing(made: Generation) -> None:
    run(made.python, "-c", "import json, mine")
    run(target_of(made) / "bin" / "python", "-m", "pytest", "--version")
    report = provision.verify(target_of(made))
    assert (report.differing, report.missing, report.extra, report.problem) == ((), (), (), "")
    assert report
    assert str(made.path) in report.proof


def test_a_shell_uses_it(made: Generation) -> None:
    code = f"{activate.script(made)} python -c 'import sys; print(sys.prefix)'"
    done = subprocess.run(["/bin/sh", "-c", code], env={"PATH": os.defpath}, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{made.path}\n", "")


def test_a_build_that_is_not_hermetic_is_not_published(tmp_path: Path) -> None:
    source = tmp_path / SPECIAL
    venv.create(source, with_pip=False, symlinks=True)
    site = next((source / "lib").glob("python3.*/site-packages"))
    (tmp_path / "elsewhere").mkdir()
    (site / "editable.pth").write_text(f"{tmp_path}/elsewhere\n")
    with pytest.raises(NotReady, match="outside"):
        ensure(source, tmp_path / "env")
    assert not (tmp_path / "env").is_symlink()
    assert not list((tmp_path / ".env.d" / "v1").glob("*/att/*"))


def test_a_source_without_python_creates_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    venv.create(source, with_pip=False, symlinks=True)
    (source / "bin" / "python").unlink()
    with pytest.raises(UsageProblem, match="has no bin/python"):
        ensure(source, tmp_path / "env")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_changed_byte_is_found(made: Generation) -> None:
    victim = next(made.path.glob("lib/python3.*/site-packages/mine.py"))
    before = victim.stat()
    victim.chmod(0o644)
    victim.write_text("answer = 43\n")
    victim.chmod(0o444)
    try:
        report = provision.verify(target_of(made))
        assert not report
        assert [one.path for one in report.differing] == [str(victim.relative_to(made.path))]
    finally:
        victim.chmod(0o644)
        victim.write_text("answer = 42\n")
        victim.chmod(0o444)
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert provision.verify(target_of(made))
