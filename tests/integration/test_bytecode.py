"""No module of an environment is without valid bytecode, and valid bytecode is never made anew (rows 46; R5)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pytest_multihost_env.protocols import Progress, Work
from pytest_multihost_env.provision import bytecode

TAG = sys.implementation.cache_tag
MAGIC = importlib.util.MAGIC_NUMBER


class Seen(Progress):
    """A progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.files = 0
        self.ended = 0

    def begin(self, stage: str, files: int | None = None, size: int | None = None) -> None:
        self.stages.append((stage, files))

    def advance(self, files: int, size: int) -> None:
        self.files += files

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def env(special: Path) -> Path:
    top = special / "env"
    venv.create(top, with_pip=False, symlinks=True)
    package = site_of(top) / "some package"
    package.mkdir()
    for number in range(5):
        (package / f"m{number}.py").write_text(f"value = {number}\n")
    (package / "template.py").write_text("print 'of another Python'\n")
    return top


def site_of(env: Path) -> Path:
    return next((env / "lib").glob("python3.*/site-packages"))


def compiled(source: Path) -> Path:
    return source.parent / "__pycache__" / f"{source.stem}.{TAG}.pyc"


def test_what_is_missing_is_compiled_once_with_progress_and_what_is_no_python_passed_over(env: Path) -> None:
    seen = Seen()
    assert bytecode.complete(env, Work(progress=seen)) == 6
    assert (seen.stages, seen.files, seen.ended) == ([("compiling", 6)], 6, 1)
    sources = sorted((site_of(env) / "some package").glob("m*.py"))
    assert [bytecode.is_valid(str(compiled(source)), str(source), MAGIC) for source in sources] == [True] * 5
    assert [path.name for path in bytecode.lacking(env, TAG, MAGIC)] == ["template.py"]


def test_valid_bytecode_is_left_alone_and_stale_is_not(env: Path) -> None:
    bytecode.complete(env, Work())
    old, same = (site_of(env) / "some package" / name for name in ("m0.py", "m1.py"))
    before = compiled(same).stat()
    old.write_text("value = 1000\n")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    bytecode.complete(env, Work())
    assert compiled(same).stat().st_mtime_ns == before.st_mtime_ns
    assert compiled(same).stat().st_ino == before.st_ino
    assert bytecode.is_valid(str(compiled(old)), str(old), MAGIC)


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (b"", False),
        (MAGIC + bytes(8), False),
        (b"\0\0\r\n" + bytes(12), False),
        (MAGIC + bytes(12), False),
        (MAGIC + b"\x01\0\0\0" + bytes(8), True),
        (MAGIC + b"\x03\0\0\0" + bytes(8), True),
        (MAGIC + b"\x04\0\0\0" + bytes(8), False),
    ],
    ids=["empty", "short", "another Python", "no time", "unchecked hash", "checked hash", "unknown"],
)
def test_the_header_decides(tmp_path: Path, header: bytes, good: bool) -> None:
    source, cache = tmp_path / "m.py", tmp_path / "m.pyc"
    source.write_text("x = 1\n")
    cache.write_bytes(header)
    assert bytecode.is_valid(str(cache), str(source), MAGIC) is good


def test_python_agrees(env: Path) -> None:
    """What is_valid calls valid is loaded and not written again: an import shows it."""
    bytecode.complete(env, Work())
    code = "import sys; sys.path.insert(0, sys.argv[1]); import m0; print(m0.__cached__)"
    package = site_of(env) / "some package"
    before = compiled(package / "m0.py").stat().st_mtime_ns
    done = subprocess.run(
        [env / "bin" / "python", "-v", "-c", code, str(package)], capture_output=True, text=True, env={}
    )
    assert f"# {compiled(package / 'm0.py')} matches " in done.stderr
    assert compiled(package / "m0.py").stat().st_mtime_ns == before
