"""The whole sentence on three real hosts: one command provisions, starts MPI ranks on all of them, and names drift."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.jobs import job
from tests.testbed.bed import Testbed

pytestmark = [
    pytest.mark.mpi_programs,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which takes root"),
]

HOSTS = "--multihost-hosts=n1:2,n2:2,n3:2"

SUITE = """
    import os, socket, sys
    import numpy
    import pytest

    def test_ordinary():
        assert "python_env.d" in sys.prefix
        assert "python_env.d" in numpy.__file__

    @pytest.mark.multihost(ranks=6, hosts=3)
    def test_ranks(comm, multihost):
        found = comm.allgather((socket.gethostname(), sys.executable, multihost.host, multihost.local_rank))
        assert [entry[0] for entry in found] == ["n1", "n1", "n2", "n2", "n3", "n3"]
        assert {entry[1] for entry in found} == {sys.executable}
        assert "python_env.d" in sys.executable and "python_env.d" in numpy.__file__
        assert [entry[2:] for entry in found] == [(f"n{1 + n // 2}", n % 2) for n in range(6)]

    @pytest.mark.multihost(ranks=4, hosts=2, env={"OF_MARKER": "yes"})
    def test_environment(comm):
        seen = comm.allgather({name: os.environ.get(name) for name in
            ("TT_PASSED", "GITHUB_SECRET_NAME", "OF_MARKER", "GIVEN", "VIRTUAL_ENV", "MULTIHOST_RANK", "NOBODY_ASKED")})
        assert [entry.pop("MULTIHOST_RANK") for entry in seen] == ["0", "1", "2", "3"]
        assert all(entry == seen[0] for entry in seen)
        assert seen[0] == {
            "TT_PASSED": "a b,c='d\\"\\\\n\\u00fc", "GITHUB_SECRET_NAME": None, "OF_MARKER": "yes", "GIVEN": "it",
            "VIRTUAL_ENV": sys.prefix, "NOBODY_ASKED": None}

    def test_same(drift_check, smoke_check):
        drift_check.assert_same("numpy")
        smoke_check.assert_imports("numpy", "mpi4py")
"""
VARIABLES = {
    "TT_PASSED": "a b,c='d\"\\nü",
    "GITHUB_SECRET_NAME": "x",
    "MULTIHOST_ENV_ENV": "GIVEN=it",
    "NOBODY_ASKED": "for it",
}


@pytest.mark.parametrize(("mpi", "user"), [("openmpi", "alice"), ("openmpi", None), ("mpich", "alice")])
def test_one_command_on_three_hosts(
    testbed: Testbed, runner: Path, source_of: Mapping[str, Path], mpi: str, user: str | None
) -> None:
    with job(testbed, runner, source_of[mpi], user, SUITE) as three:
        first = three.pytest(HOSTS, env=VARIABLES)
        assert first.code == 0, first
        assert first.tests == dict.fromkeys(
            ["test_ordinary", "test_ranks", "test_environment", "test_same"], "passed"
        ), first
        assert f"launcher {mpi}" in first.text
        again = three.pytest(HOSTS, "-k", "test_ordinary")
        assert again.code == 0, again
        assert "(reused, checked by stat walk, " in again.text
        assert [path for path in three.directory.glob(".python_env.d/v1/*/att/*") if path.is_dir()] == [
            (three.directory / "python_env").resolve()
        ]


def test_a_host_with_another_numpy_is_named_in_a_table(
    testbed: Testbed, runner: Path, source_of: Mapping[str, Path]
) -> None:
    text = """
    def test_same(drift_check): drift_check.assert_same("numpy")
    """
    with job(testbed, runner, source_of["openmpi"], "alice", text, "drift") as three:
        assert three.pytest(HOSTS).code == 0
        generation = (three.directory / "python_env").resolve()
        info = next(generation.glob("lib/*/site-packages/numpy-*.dist-info"))
        version = info.name.removeprefix("numpy-").removesuffix(".dist-info")
        older = three.directory / "older"
        shutil.copytree(info, older)
        metadata = (older / "METADATA").read_text()
        (older / "METADATA").chmod(0o644)
        (older / "METADATA").write_text(metadata.replace(f"\nVersion: {version}\n", "\nVersion: 1.26.4\n"))
        testbed.run("n3", ["mount", "--bind", older, info], check=True)
        try:
            outcome = three.pytest(HOSTS)
        finally:
            testbed.run("n3", ["umount", info], check=True)
        assert outcome.code == 1, outcome
        said = outcome.messages["test_same"]
        assert "n3" in said, outcome
        row = next(line for line in said.splitlines() if "1.26.4" in line and version in line)
        assert "numpy" in row, outcome


def test_a_host_that_cannot_be_reached_is_named_before_the_first_test(
    testbed: Testbed, runner: Path, source_of: Mapping[str, Path]
) -> None:
    with job(testbed, runner, source_of["openmpi"], "alice", SUITE, "unreachable") as three:
        with testbed.faults.reject_port("n3", 22):
            outcome = three.pytest(HOSTS)
        assert outcome.code != 0, outcome
        assert not outcome.tests, outcome
        assert re.search(r"\bn3\b.*refused", outcome.text, re.DOTALL), outcome
        assert "n2:" not in outcome.text.replace("n2:2", ""), outcome


def test_an_environment_that_one_host_lacks_is_named(
    testbed: Testbed, runner: Path, source_of: Mapping[str, Path]
) -> None:
    with job(testbed, runner, source_of["openmpi"], "alice", SUITE, "hidden") as three:
        with testbed.faults.hide("n2", three.directory):
            outcome = three.pytest(HOSTS)
        assert outcome.code != 0, outcome
        assert not outcome.tests, outcome
        assert re.search(r"\bn2\b.*No such file", outcome.text, re.DOTALL), outcome


@pytest.mark.parametrize("mpi", ["openmpi", "mpich"])
def test_nothing_is_left_on_any_host_when_the_controller_is_killed(
    testbed: Testbed, runner: Path, source_of: Mapping[str, Path], mpi: str
) -> None:
    text = """
    import pathlib, time
    import pytest

    @pytest.mark.multihost(ranks=3, hosts=3)
    def test_long(comm):
        pathlib.Path(f"running-{comm.rank}").touch()
        time.sleep(1000)
    """
    with job(testbed, runner, source_of[mpi], "alice", text, "killed") as three:
        controller = testbed.popen(
            "n1",
            [runner / "bin" / "pytest", f"--multihost-venv={source_of[mpi]}", HOSTS],
            user="alice",
            cwd=three.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        mark = str(three.directory)
        try:
            end = time.monotonic() + 120
            while len(list(three.directory.glob("running-*"))) < 3:
                assert time.monotonic() < end, "the ranks did not start"
                assert controller.poll() is None
                time.sleep(0.05)
            found = [pid for pid, line in testbed.processes("n1", mark) if "-m pytest" in line]
            assert found
            assert all(testbed.processes(host, mark) for host in testbed.names)
            testbed.run("n1", ["kill", "-KILL", *map(str, found)], check=True)
        finally:
            controller.send_signal(signal.SIGKILL)
            controller.wait()
        end = time.monotonic() + 15
        while left := {host: found for host in testbed.names if (found := testbed.processes(host, mark))}:
            assert time.monotonic() < end, left
            time.sleep(0.1)


def test_bad_source_stops_before_any_module_is_imported(testbed: Testbed, runner: Path) -> None:
    text = """
    import pathlib
    pathlib.Path("imported").touch()
    def test_it(): pass
    """
    with job(testbed, runner, testbed.shared / "no such venv", "alice", text, "bad") as three:
        outcome = three.pytest(HOSTS)
        assert outcome.code == 4, outcome
        assert "no such venv" in outcome.text
        assert "remedy" in outcome.text
        assert sorted(path.name for path in three.directory.iterdir()) == ["pytest.ini", "test_suite.py"]
