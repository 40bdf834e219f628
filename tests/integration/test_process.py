"""Programs end with their time limit, with everything that they started, and with the process that ran them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pytest_multihost_env import process

CHILD_AND_GRANDCHILD = """
import pathlib, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(grandchild.pid))
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.4)


def _ends(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_output_code_and_input_come_back(special: Path) -> None:
    program = "import sys, os; print(sys.stdin.read(), os.getcwd()); print('ü', file=sys.stderr); sys.exit(7)"
    env = {"PATH": os.defpath, "PYTHONUTF8": "1"}
    done = process.run([sys.executable, "-c", program], env=env, cwd=special, input="hällo", timeout=30)
    assert (done.code, done.stdout, done.stderr) == (7, f"hällo {special}\n", "ü\n")
    assert not done.timed_out
    assert not done


def test_the_environment_is_the_whole_environment() -> None:
    done = process.run([sys.executable, "-c", "import os; print('HOME' in os.environ)"], env={}, timeout=30)
    assert done.stdout == "False\n"


def test_a_missing_program_is_an_error_of_the_system(special: Path) -> None:
    with pytest.raises(FileNotFoundError):
        process.run([str(special / "nothing")], timeout=5)


def test_the_time_limit_ends_the_whole_group_and_keeps_the_output(special: Path) -> None:
    note = special / "pid"
    done = process.run([sys.executable, "-c", CHILD_AND_GRANDCHILD, str(note)], timeout=2)
    assert done.timed_out
    assert done.stdout == "started\n"
    assert done.code == -signal.SIGTERM
    assert _ends(int(note.read_text()))


def test_a_program_that_ignores_term_is_killed() -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    done = process.run([sys.executable, "-c", program], timeout=1.5)
    assert (done.code, done.stdout, done.timed_out) == (-signal.SIGKILL, "deaf\n", True)


def test_a_grandchild_that_left_the_group_does_not_hold_us() -> None:
    program = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(p.pid, flush=True)"
    )
    done = process.run([sys.executable, "-c", program], timeout=1.5)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.timed_out


def test_a_program_dies_with_the_process_that_ran_it(special: Path) -> None:
    note = special / "pid"
    inner = f"import os, pathlib, sys, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); print(1, flush=True); time.sleep(600)"
    outer = f"from pytest_multihost_env import process\nprocess.run([{sys.executable!r}, '-c', {inner!r}], timeout=600)"
    parent = subprocess.Popen([sys.executable, "-c", outer])
    try:
        deadline = 200
        while deadline and not (note.exists() and note.read_text()):
            deadline -= 1
            with pytest.raises(subprocess.TimeoutExpired):
                parent.wait(0.1)
        child = int(note.read_text())
    finally:
        parent.kill()
        parent.wait()
    assert _ends(child)


def test_what_a_program_started_dies_with_the_process_that_ran_it(special: Path) -> None:
    """A builder that is killed leaves no installer behind, nor what that one had started."""
    note = special / "pid"
    outer = f"from pytest_multihost_env import process\nprocess.run([{sys.executable!r}, '-c', {CHILD_AND_GRANDCHILD!r}, {str(note)!r}], timeout=600)"
    parent = subprocess.Popen([sys.executable, "-c", outer])
    try:
        deadline = 200
        while deadline and not (note.exists() and note.read_text()):
            deadline -= 1
            with pytest.raises(subprocess.TimeoutExpired):
                parent.wait(0.1)
        grandchild = int(note.read_text())
    finally:
        parent.kill()
        parent.wait()
    assert _ends(grandchild)


def test_start_leads_a_session_of_its_own() -> None:
    child = process.start(["sleep", "600"])
    try:
        assert os.getsid(child.pid) == child.pid != os.getsid(0)
    finally:
        process.kill_group(child.pid, signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    process.kill_group(child.pid, signal.SIGKILL)
