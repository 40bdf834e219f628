"""Faults that once went unseen, or that once made a good suite red; each was reproduced before it was mended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import suites

pytestmark = pytest.mark.mpi_programs

PYTHON = Path(sys.executable)
TWO = """
    import atexit, ctypes, os, signal, time
    import pytest
    two = pytest.mark.multihost(ranks=2)
"""
ON_RANKS = """
    import os
    def pytest_sessionfinish(session):
        if session.config.pluginmanager.hasplugin("multihost_env_rank"):
            {statement}
"""


def test_a_late_crash_under_xdist_is_not_green(special: Path) -> None:
    body = """
    @two
    def test_good(multihost):
        if multihost.rank == 1:
            atexit.register(lambda: os.kill(os.getpid(), signal.SIGKILL))
    """
    suites.write(special, TWO + body)
    outcome = suites.run(PYTHON, special, "-n1")
    assert outcome.code == 1, outcome
    assert "killed by signal 9 after the last test" in outcome.text


@pytest.mark.parametrize(
    ("statement", "said"),
    [("os._exit(0)", "without having finished its session"), ("session.exitstatus = 1", "exit code 1")],
)
def test_a_rank_whose_session_does_not_end_well_is_not_green(special: Path, statement: str, said: str) -> None:
    suites.write(special, TWO + "    @two\n    def test_good(multihost): pass\n")
    suites.write(special, ON_RANKS.format(statement=statement), "conftest.py")
    outcome = suites.run(PYTHON, special)
    assert outcome.code == 1, outcome
    assert said in outcome.text, outcome


def test_a_test_that_the_look_at_its_stack_wakes_up_is_late_all_the_same(mpi_python: Path, special: Path) -> None:
    body = """
    @pytest.mark.multihost(ranks=2, timeout=2)
    def test_polls(comm):
        ctypes.CDLL(None).poll(None, 0, 60_000)
    """
    suites.write(special, TWO + body)
    outcome = suites.run(mpi_python, special)
    assert (outcome.code, outcome.tests) == (1, {"test_polls": "failure"}), outcome
    assert "the time limit of 2 s was reached" in outcome.messages["test_polls"]


def test_a_forked_child_does_not_speak_for_its_rank(special: Path) -> None:
    body = """
    @two
    def test_forks(multihost):
        if multihost.rank == 1 and os.fork():
            os._exit(0)

    @two
    def test_after(multihost): pass
    """
    suites.write(special, TWO + body)
    outcome = suites.run(PYTHON, special, "-W", "ignore")
    assert (outcome.code, outcome.tests) == (1, {"test_forks": "failure", "test_after": "passed"}), outcome
    assert "rank 1 of 2" in outcome.messages["test_forks"]


def test_fixtures_kept_for_a_test_that_never_comes_disturb_nobody(special: Path) -> None:
    first = """
    @pytest.fixture(scope="module")
    def here(): yield

    @two
    def test_a1(here): pass

    @two
    @pytest.mark.skip
    def test_a2(here): pass

    @pytest.mark.multihost(ranks=2, fresh=True)
    def test_a3(here): pass
    """
    suites.write(special, TWO + first, "test_a.py")
    suites.write(special, TWO + "    @two\n    def test_b1(multihost): pass\n", "test_b.py")
    outcome = suites.run(PYTHON, special)
    assert outcome.code == 0, outcome
    assert outcome.tests == {"test_a1": "passed", "test_a2": "skipped", "test_a3": "passed", "test_b1": "passed"}


@pytest.mark.parametrize("args", [("-W", "error"), ("--setup-show",), ("-p", "no:capture"), ("-p", "no:terminal")])
def test_ways_of_running_that_ranks_must_bear(special: Path, args: tuple[str, ...]) -> None:
    suites.write(special, TWO + "    @two\n    def test_good(multihost, request): pass\n")
    outcome = suites.run(PYTHON, special, *args)
    assert (outcome.code, outcome.tests) == (0, {"test_good": "passed"}), outcome


@pytest.mark.parametrize("layer", ["pyproject.toml", "multihost-env.toml", "pytest.ini"])
def test_a_rank_never_provisions_and_is_no_controller(special: Path, layer: str) -> None:
    source = special / "source"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", source], check=True, timeout=60)
    suites.write(special, TWO + "    @two\n    def test_good(multihost): assert multihost.size == 2\n")
    text = {
        "pyproject.toml": f'[tool.multihost-env]\nvenv = "{source}"\n',
        "multihost-env.toml": f'venv = "{source}"\n',
        "pytest.ini": f"[pytest]\nmultihost_venv = {source}\n",
    }
    (special / layer).write_text(text[layer], encoding="utf-8")
    outcome = suites.run(PYTHON, special)
    assert (outcome.code, outcome.tests) == (0, {"test_good": "passed"}), outcome
    assert "multihost: environment .python_env.d" in outcome.text


def test_tmp_path_of_ranks_under_xdist(special: Path) -> None:
    suites.write(special, TWO + "    @two\n    def test_it(multihost, tmp_path): (tmp_path / 'x').touch()\n")
    outcome = suites.run(PYTHON, special, "-n2")
    assert (outcome.code, outcome.tests) == (0, {"test_it": "passed"}), outcome


def test_subtests_on_ranks(special: Path) -> None:
    body = """
    import unittest

    @pytest.mark.multihost(ranks=2)
    class TestCase(unittest.TestCase):
        def test_parts(self):
            for part in range(3):
                with self.subTest(part=part):
                    assert part < 3
    """
    suites.write(special, TWO + body)
    outcome = suites.run(PYTHON, special)
    assert outcome.code == 0, outcome


@pytest.mark.parametrize(
    "value", ["10**6000", "Odd()", "'x' * 70_000_000", "b'\\xff'", "'\\udcff'", "float('nan')", "loop"]
)
def test_reports_may_hold_anything(special: Path, value: str) -> None:
    body = f"""
    class Odd:
        def __repr__(self): raise ValueError("no")

    loop = []
    loop.append(loop)

    @two
    def test_odd(multihost, record_property):
        record_property("odd", {value})

    @two
    def test_after(multihost): pass
    """
    suites.write(special, TWO + body)
    done = subprocess.run(
        [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=special, env=suites.clean_environ(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_what_broke_a_rank_s_session_is_told(special: Path) -> None:
    suites.write(special, TWO + "    @two\n    def test_it(multihost): pass\n")
    hook = """
    def pytest_runtest_logreport(report):
        import os
        if os.environ.get("MULTIHOST_RANK") == "1":
            raise RuntimeError("this hook is broken")
    """
    suites.write(special, hook, "conftest.py")
    outcome = suites.run(PYTHON, special)
    assert outcome.code == 1, outcome
    assert "this hook is broken" in outcome.text, outcome
    assert "rank 1 of 2" in outcome.text


def processes_of(directory: Path, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(word in text for text in process.cmdline()) and process.cwd() == str(directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


HANG = """
    @pytest.mark.multihost(ranks=2, timeout={limit})
    def test_long(comm):
        open(f"running-{{comm.rank}}", "w").close()
        time.sleep(1000)
"""


def interfere(special: Path, word: str, number: int, limit: int) -> str:
    """Run a long test, send a signal to one process of ours when it is under way, and return how that was told."""
    suites.write(special, TWO + HANG.format(limit=limit))
    controller = subprocess.Popen(
        [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=special, env=suites.clean_environ(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while len(list(special.glob("running-*"))) < 2:
            assert time.monotonic() < end
            assert controller.poll() is None
            time.sleep(0.05)
        victims = processes_of(special, word)
        # Of a supervisor and the process above it, the younger one.
        victim = max(victims, key=lambda process: (process.create_time(), process.pid))
        os.kill(victim.pid, number)
        text, _ = controller.communicate(timeout=90)
    finally:
        controller.kill()
        controller.wait()
    return text


def test_a_killed_launcher_is_noticed_long_before_the_time_limit(special: Path) -> None:
    text = interfere(special, "prterun", signal.SIGKILL, limit=80)
    assert "its launcher ended the job" in text, text
    assert "1 failed" in text
    assert "time limit" not in text


def test_a_stopped_supervisor_is_not_left_behind(special: Path) -> None:
    text = interfere(special, "bootstrap.py", signal.SIGSTOP, limit=8)
    assert "1 failed" in text, text
    assert re.search(r"ranks? \S+ of 2", text)
    end = time.monotonic() + 10
    while processes_of(special, "multihost"):
        assert time.monotonic() < end
        time.sleep(0.05)
