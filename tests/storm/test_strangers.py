"""Somebody else swaps links and directories at our names, all the time: nothing is given away, and nothing of theirs runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_multihost_env.errors import MultihostError
from tests.integration.tiny import make_source
from tests.storm import alone
from tests.storm.scale import scaled
from tests.testbed.fixtures import skip_or_fail

SWAPPER = """
import os, signal, sys
os.setgid(65534); os.setuid(65534)
shared, evil = sys.argv[1:]
swaps = 0
going = True
def end(number, frame):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
print("on", flush=True)
while going:
    for name in ("python_env", ".python_env.d", ".python_env.d/v1"):
        path = os.path.join(shared, name)
        for call in (lambda: os.symlink(evil, path), lambda: os.unlink(path), lambda: os.mkdir(path), lambda: os.rmdir(path)):
            try:
                call()
                swaps += 1
            except OSError:
                pass
print(swaps)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp, in a place that every user can look into; those of pytest are closed to others."""
    if os.geteuid() != 0:
        skip_or_fail("only root can become a second user")
    with tempfile.TemporaryDirectory(prefix="it's #1 ü ") as text:
        Path(text).chmod(0o755)
        (path := Path(text) / "tmp").mkdir()
        path.chmod(0o1777)
        yield path


def planted(base: Path) -> dict[Path, bytes]:
    """Make what a name of ours is swapped for: a tree that everybody may write to, with a Python that leaves a mark."""
    evil = base / "evil"
    for directory in (evil, evil / "bin", evil / "v1"):
        directory.mkdir()
        directory.chmod(0o777)
    python = evil / "bin" / "python"
    python.write_text(f"#!/bin/sh\ntouch '{base / 'theirs ran'}'\n".replace("it's", "it'\\''s"))
    python.chmod(0o755)
    return {path: path.read_bytes() if path.is_file() else b"" for path in evil.rglob("*")}


def test_a_race_for_the_names_gives_nothing_away(shared: Path, figure: Callable[[str], None]) -> None:
    """T2: in a directory where everybody may make names, and may not touch another's."""
    source = make_source(shared.parent / "source")
    before, evil = planted(shared.parent), shared.parent / "evil"
    argv = [sys.executable, "-c", SWAPPER, str(shared), str(evil)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            made = sum(_provisioned(source, shared) for _ in range(scaled(25, 200)))
        finally:
            swapper.terminate()
        swaps = int(swapper.stdout.read())
    assert {path: path.read_bytes() if path.is_file() else b"" for path in evil.rglob("*")} == before
    assert not (shared.parent / "theirs ran").exists()
    assert made > 0
    assert swaps >= scaled(100, 10_000)
    figure(f"{scaled(25, 200)} provisions against {swaps} swaps: {made} made, the others refused; 0 outside, 0 foreign")


def _provisioned(source: Path, shared: Path) -> bool:
    """Provision, and clear up; return whether it was made, which is then ours alone, and runs as ours."""
    try:
        made = alone.ensure(source, shared / "python_env")
        assert {path.lstat().st_uid for path in (made.path, *made.path.rglob("*"))} == {0}
        assert made.path.resolve().is_relative_to(shared)
        assert subprocess.run([made.python], capture_output=True, text=True).stdout == "tiny\n"
    except MultihostError:
        return False
    finally:
        for name in ("python_env", ".python_env.d"):
            path = shared / name
            with contextlib.suppress(OSError):
                path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
    return True
