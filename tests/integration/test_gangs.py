"""Marked tests on real MPI ranks of one machine, with Open MPI and with MPICH: what passes, fails, dies and hangs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests import suites

pytestmark = pytest.mark.mpi_programs

HEAD = """
    import os, signal, sys, time
    import pytest
"""


def run(mpi_python: Path, special: Path, body: str, *args: str) -> suites.Outcome:
    suites.write(special, HEAD + body)
    return suites.run(mpi_python, special, *args)


def test_ranks_form_the_world_that_the_marker_asks_for(mpi_python: Path, special: Path) -> None:
    outcome = run(
        mpi_python,
        special,
        """
    @pytest.mark.multihost(ranks=4)
    def test_four(comm, multihost):
        assert comm.size == multihost.size == 4
        assert comm.rank == multihost.rank
        assert comm.allgather(multihost.rank) == [0, 1, 2, 3]

    @pytest.mark.multihost(ranks=[1, 2, 3])
    def test_list(comm, multihost_ranks):
        assert comm.size == multihost_ranks

    class TestIn:
        @pytest.mark.multihost(ranks=2)
        @pytest.mark.parametrize("text", ["a b/c", "ü'#"])
        def test_class(self, comm, text):
            assert comm.bcast(text if comm.rank == 0 else None) == text

    def test_plain():
        assert "OMPI_COMM_WORLD_RANK" not in os.environ and "PMI_RANK" not in os.environ
    """,
    )
    assert outcome.code == 0, outcome
    assert sorted(outcome.tests) == sorted(
        ["test_four", "test_list[ranks=1]", "test_list[ranks=2]", "test_list[ranks=3]", "test_plain"]
        + [name for name in outcome.tests if name.startswith("test_class")]
    )
    assert len(outcome.tests) == 7


def test_second_test_of_a_shape_runs_in_the_same_processes(mpi_python: Path, special: Path) -> None:
    outcome = run(
        mpi_python,
        special,
        """
    MADE = []

    @pytest.fixture(scope="module")
    def costly():
        MADE.append(os.getpid())
        return MADE

    @pytest.mark.multihost(ranks=2)
    def test_first(costly, multihost, record_property):
        record_property(f"pid{multihost.rank}", os.getpid())

    def test_between(): pass

    @pytest.mark.multihost(ranks=2)
    def test_second(costly, multihost, record_property):
        assert costly == [os.getpid()]
        record_property(f"pid{multihost.rank}", os.getpid())

    @pytest.mark.multihost(ranks=2, fresh=True)
    def test_fresh(multihost, record_property):
        record_property(f"pid{multihost.rank}", os.getpid())
    """,
    )
    assert outcome.code == 0, outcome
    report = (special / "junit.xml").read_text()
    pids = [
        dict(re.findall(r'<property name="(pid\d)" value="(\d+)"', case))
        for case in report.split("<testcase")[1:]
        if "pid0" in case
    ]
    assert len(pids) == 3
    assert len(set(pids[0].values())) == 2
    assert pids[0] == pids[1]
    assert not set(pids[2].values()) & set(pids[0].values())


def test_message_of_one_test_never_reaches_the_next(mpi_python: Path, special: Path) -> None:
    outcome = run(
        mpi_python,
        special,
        """
    @pytest.mark.multihost(ranks=2)
    def test_leaves_a_message_behind(comm):
        if comm.rank == 0:
            comm.isend("stale", dest=1, tag=5)

    @pytest.mark.multihost(ranks=2)
    def test_receives_its_own(comm):
        from mpi4py import MPI
        if comm.rank == 0:
            comm.send("mine", dest=1, tag=5)
        else:
            assert comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG) == "mine"
    """,
    )
    assert outcome.code == 0, outcome


FATES = {
    "assert": ("assert comm.size == 7", "AssertionError"),
    "segv": ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV during call"),
    "kill": ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL during call"),
    "exit0": ("os._exit(0)", "exited with code 0 during call"),
    "exit3": ("os._exit(3)", "exited with code 3 during call"),
    "abort": ("from mpi4py import MPI; MPI.COMM_WORLD.Abort(7)", "during call"),
    "pytest.exit": ("pytest.exit('enough')", "during call"),
}


@pytest.mark.parametrize("fate", FATES)
def test_one_bad_rank_fails_its_own_test_only(mpi_python: Path, special: Path, fate: str) -> None:
    statement, expected = FATES[fate]
    outcome = run(
        mpi_python,
        special,
        f"""
    @pytest.mark.multihost(ranks=3)
    def test_before(comm): pass

    @pytest.mark.multihost(ranks=3)
    def test_bad(comm):
        if comm.rank == 1:
            {statement}
        comm.Barrier()

    @pytest.mark.multihost(ranks=3)
    def test_after(comm):
        assert comm.allreduce(1) == 3
    """,
    )
    assert outcome.code == 1, outcome
    assert outcome.tests["test_before"] == "passed", outcome
    assert outcome.tests["test_bad"] in {"failure", "error"}, outcome
    assert outcome.tests["test_after"] == "passed", outcome
    assert expected in outcome.messages["test_bad"], outcome
    assert "rank 1 of 3" in outcome.messages["test_bad"] or fate == "abort", outcome
    assert "INTERNALERROR" not in outcome.text


def test_hang_is_told_with_the_stack_of_every_rank(mpi_python: Path, special: Path) -> None:
    outcome = run(
        mpi_python,
        special,
        """
    @pytest.mark.multihost(ranks=3, timeout=2)
    def test_hangs(comm):
        if comm.rank == 2:
            time.sleep(1000)  # here rank 2 sleeps
        comm.Barrier()  # here the others wait

    @pytest.mark.multihost(ranks=3)
    def test_after(comm):
        assert comm.allreduce(1) == 3
    """,
    )
    lines = (special / "test_suite.py").read_text().splitlines()
    sleeping = next(n for n, line in enumerate(lines, 1) if "# here rank 2 sleeps" in line)
    waiting = next(n for n, line in enumerate(lines, 1) if "# here the others wait" in line)
    assert outcome.code == 1, outcome
    assert outcome.tests == {"test_hangs": "failure", "test_after": "passed"}, outcome
    assert "the time limit of 2 s was reached" in outcome.messages["test_hangs"]
    assert re.search(rf"ranks 0-1 stand at\n.*test_suite.py:{waiting} in test_hangs", outcome.text), outcome
    assert re.search(rf"rank 2 stands at\n.*test_suite.py:{sleeping} in test_hangs", outcome.text), outcome


def test_crash_after_the_last_report_is_not_green(mpi_python: Path, special: Path) -> None:
    outcome = run(
        mpi_python,
        special,
        """
    import atexit

    @pytest.mark.multihost(ranks=2)
    def test_good(comm):
        if comm.rank == 1:
            atexit.register(lambda: os.kill(os.getpid(), signal.SIGKILL))
    """,
    )
    assert outcome.code == 1, outcome
    assert "rank 1@" in outcome.text
    assert "after the last test" in outcome.text


def test_outcomes_of_ranks_become_one(mpi_python: Path, special: Path) -> None:
    outcome = run(
        mpi_python,
        special,
        """
    two = pytest.mark.multihost(ranks=2)

    @two
    @pytest.mark.skip(reason="not today")
    def test_skip_mark(comm): pass

    @two
    def test_skip_all(comm): pytest.skip("nobody wants")

    @two
    def test_skip_some(multihost):
        if multihost.rank: pytest.skip("rank 1 does not want")

    @two
    @pytest.mark.xfail(reason="known", strict=True)
    def test_xfail_one_rank(multihost):
        assert multihost.rank == 0

    @two
    @pytest.mark.xfail(reason="known", strict=True)
    def test_xpass(multihost): pass

    @pytest.fixture
    def bad_setup(multihost):
        assert multihost.rank != 1, "no set-up on rank 1"

    @two
    def test_setup(bad_setup): pass

    @pytest.fixture
    def bad_teardown(multihost):
        yield
        assert multihost.rank != 0, "no tear-down on rank 0"

    @two
    def test_teardown(bad_teardown): pass
    """,
    )
    assert outcome.code == 1, outcome
    assert outcome.tests == {
        "test_skip_mark": "skipped",
        "test_skip_all": "skipped",
        "test_skip_some": "failure",
        "test_xfail_one_rank": "skipped",
        "test_xpass": "failure",
        "test_setup": "error",
        "test_teardown": "error",
    }, outcome
    assert "nobody wants" in outcome.messages["test_skip_all"]
    assert "rank 0 passed, rank 1 skipped" in outcome.messages["test_skip_some"]
    assert "rank 1 of 2" in outcome.messages["test_setup"]
    assert "no tear-down on rank 0" in outcome.messages["test_teardown"]


def test_too_few_slots_skip_or_fail_when_strict(special: Path) -> None:
    import sys

    suites.write(special, HEAD + "    @pytest.mark.multihost(ranks=4)\n    def test_wide(comm): pass\n")
    python = Path(sys.executable)
    skipped = suites.run(python, special, "-rs", "--multihost-hosts=localhost:2")
    assert (skipped.code, skipped.tests) == (0, {"test_wide": "skipped"}), skipped
    assert "SKIPPED [1] test_suite.py:" in skipped.text, "the line is the test's, and none of ours"
    assert "4 ranks asked for" in skipped.messages["test_wide"]
    failed = suites.run(python, special, "--multihost-hosts=localhost:2", "--multihost-strict")
    assert failed.code == 1, failed
    assert "2 slots" in failed.messages["test_wide"]


def ours(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(directory) in text for text in process.cmdline()) or process.cwd() == str(directory):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_nothing_outlives_a_killed_controller(mpi_python: Path, special: Path) -> None:
    suites.write(
        special,
        HEAD
        + """
    @pytest.mark.multihost(ranks=3)
    def test_long(comm):
        open(f"running-{comm.rank}", "w").close()
        time.sleep(1000)
    """,
    )
    controller = subprocess.Popen(
        [str(mpi_python), "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=special,
        env=suites.clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.monotonic() + 60
        while len(list(special.glob("running-*"))) < 3:
            assert time.monotonic() < end, "the ranks did not start"
            assert controller.poll() is None
            time.sleep(0.05)
        assert len(ours(special)) > 3
    finally:
        os.kill(controller.pid, signal.SIGKILL)
        controller.wait()
    end = time.monotonic() + 15
    while ours(special):
        assert time.monotonic() < end, ours(special)
        time.sleep(0.05)


def test_stop_at_the_first_failure_and_selection_behave_as_ever(mpi_python: Path, special: Path) -> None:
    body = """
    @pytest.mark.multihost(ranks=2)
    def test_a(multihost): assert multihost.rank != 0

    @pytest.mark.multihost(ranks=2)
    def test_b(multihost): pass
    """
    outcome = run(mpi_python, special, body, "-x")
    assert (outcome.code, list(outcome.tests)) == (1, ["test_a"]), outcome
    outcome = run(mpi_python, special, body, "-k", "test_b", "-q")
    assert (outcome.code, outcome.tests) == (0, {"test_b": "passed"}), outcome


def test_live_output_is_tagged(special: Path) -> None:
    import sys

    suites.write(special, HEAD + "    @pytest.mark.multihost(ranks=2)\n    def test_it(multihost): print('hi there')\n")
    outcome = suites.run(Path(sys.executable), special, "-s")
    assert outcome.code == 0, outcome
    assert re.search(r"^\[0@\S+\] .*hi there$", outcome.text, re.MULTILINE), outcome
    assert re.search(r"^\[1@\S+\] .*hi there$", outcome.text, re.MULTILINE), outcome
