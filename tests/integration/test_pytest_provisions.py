"""What `pytest --multihost-venv` does around the environment: ready before collection, made once, pinned while it runs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_multihost_env.provision import pins, publish
from tests import suites

LIMIT = 90


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SOURCE with nothing of pytest: that is added."""
    path = tmp_path_factory.mktemp("pins") / "so'urce #1 \N{LATIN SMALL LETTER U WITH DIAERESIS}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True, timeout=LIMIT)
    return path


SUITE = """
    import os, sys, time
    from pathlib import Path

    HERE = Path(__file__).parent
    (HERE / "imported").touch()

    def test_inside():
        prefix = Path(sys.prefix)
        assert ".python_env.d" in str(prefix)
        # Row 1: it stood before this module was imported.
        assert (prefix / ".multihost-manifest").stat().st_mtime_ns <= (HERE / "imported").stat().st_mtime_ns
        # Row 2: of the root directory, and absolute, whatever the working directory was.
        assert prefix.is_relative_to(HERE / ".python_env.d")
        home = [line for line in (prefix / "pyvenv.cfg").read_text().splitlines() if line.startswith("home")]
        assert Path(home[0].partition("= ")[2]).is_relative_to(HERE)
        # The process that was started, and that has become another program, holds the environment.
        held = {int(path.name.split(".")[2]) for path in (prefix.parent.parent / "pins").iterdir()}
        assert held & {os.getpid(), os.getppid()}, held
        while (HERE / "wait").exists():
            (HERE / "waiting").touch()
            time.sleep(0.02)
"""


def held(directory: Path) -> list[Path]:
    return list(directory.glob(".python_env.d/v1/*/pins/*"))


def test_a_run_makes_pins_uses_and_releases(source: Path, special: Path) -> None:
    """Rows 1 and 2, and the life of a pin across the change to another program."""
    suites.write(special, SUITE)
    (special / "below").mkdir()
    first = suites.run(Path(sys.executable), special, f"--multihost-venv={source}")
    assert first.tests == {"test_inside": "passed"}, first
    assert held(special) == []
    (slot,) = special.glob(".python_env.d/v1/*")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "..", f"--multihost-venv={source}"],
        cwd=special / "below",
        env=suites.clean_environ(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [slot] == list(special.glob(".python_env.d/v1/*")), "row 2: the other directory has led to the same"
    assert held(special) == []


def test_workers_make_nothing_and_are_held_by_their_controller(source: Path, special: Path) -> None:
    """Row 33.  The controller stays in this Python, which has pytest-xdist; SOURCE has nothing."""
    pytest.importorskip("xdist")
    suites.write(
        special,
        """
        import os
        from pathlib import Path

        def test_worker():
            pins = Path(__file__).parent.glob(".python_env.d/v1/*/pins/*")
            assert [int(path.name.split(".")[2]) for path in pins] == [os.getppid()]
        """,
    )
    done = suites.run(Path(sys.executable), special, f"--multihost-venv={source}", "--multihost-no-reexec", "-n2")
    assert done.tests == {"test_worker": "passed"}, done
    assert len(list(special.glob(".python_env.d/v1/*/att/*.json"))) == 1
    assert held(special) == []


def test_gc_leaves_a_running_job_alone_and_not_a_killed_one(source: Path, special: Path) -> None:
    suites.write(special, SUITE)
    (special / "wait").touch()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--multihost-venv={source}"]
    job = subprocess.Popen(command, cwd=special, env=suites.clean_environ(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LIMIT
        while not (special / "waiting").exists():
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (pin,) = held(special)
        assert pin.name.split(".")[2] == str(job.pid)
        used = (special / "python_env").resolve()
        newer = suites.clean_environ({"COLUMNS": "200"})
        cli = [sys.executable, "-m", "pytest_multihost_env.cli"]
        subprocess.run([*cli, "provision", "--force", source], cwd=special, env=newer, check=True, capture_output=True)
        told = subprocess.run([*cli, "gc"], cwd=special, env=newer, check=True, capture_output=True, text=True).stdout
        assert f"in use by host {os.uname().nodename}, pid {job.pid}" in told
        assert (used / "bin" / "python").exists()
        job.send_signal(signal.SIGKILL)
        job.wait()
        told = subprocess.run([*cli, "gc"], cwd=special, env=newer, check=True, capture_output=True, text=True).stdout
        assert "removed" in told
        assert not used.exists()
    finally:
        job.kill()
        job.wait()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_shell_that_activated_holds_the_environment(source: Path, special: Path, shell: str) -> None:
    """Until it ends: then the pin that stays behind counts nothing on this host."""
    activate = shlex.join([sys.executable, "-m", "pytest_multihost_env.cli", "activate", str(source), "python_env"])
    script = f'set -e; eval "$({activate})"; python -c pass; ls .python_env.d/v1/*/pins; echo $$'
    done = subprocess.run(
        [shell, "-c", script], cwd=special, env=suites.clean_environ(), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    name, pid = done.stdout.split()
    assert name.split(".")[2] == pid
    (pin,) = pins.found(publish.slot_of((special / "python_env").resolve()), None)
    assert not pin.lives
