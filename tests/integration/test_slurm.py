"""Real Slurm over three hosts: salloc, sbatch and srun with the pytest command, and what becomes of lost jobs and nodes."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import suites
from tests.environments import ROOT
from tests.jobs import Job, job
from tests.testbed.bed import Testbed
from tests.testbed.slurm import SlurmCluster, job_id

pytestmark = [
    pytest.mark.mpi_programs,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="munged and slurmd need root"),
]

SUITE = """
    import os, socket
    import pytest

    def where(comm, multihost):
        place = (multihost.rank, socket.gethostname(), multihost.local_rank)
        assert multihost.host == place[1]
        assert os.environ["SLURM_PROCID"] == str(multihost.rank)
        assert os.environ["SLURM_STEP_NUM_TASKS"] == str(multihost.size)
        return comm.allgather(place)

    @pytest.mark.multihost(ranks=6)
    def test_all(comm, multihost):
        assert where(comm, multihost) == [(n, f"n{1 + n // 2}", n % 2) for n in range(6)]
        assert len(os.sched_getaffinity(0)) == os.cpu_count()
        assert "MULTIHOST_ENV_CHANNEL_KEY" not in os.environ and "NOBODY_ASKED" not in os.environ

    @pytest.mark.multihost(ranks=3)
    def test_uneven(comm, multihost):
        assert where(comm, multihost) == [(0, "n1", 0), (1, "n1", 1), (2, "n2", 0)]

    @pytest.mark.multihost(ranks=3, hosts=3)
    def test_spread(comm, multihost):
        assert where(comm, multihost) == [(0, "n1", 0), (1, "n2", 0), (2, "n3", 0)]

    @pytest.mark.multihost(ranks=3, hosts=3)
    def test_one_fails(comm, multihost):
        assert multihost.rank != 2, "not here"

    @pytest.mark.multihost(ranks=3, hosts=3)
    def test_one_dies(comm, multihost):
        comm.Barrier()
        if multihost.rank == 1:
            os.kill(os.getpid(), 9)
        comm.Barrier()

    def test_same(drift_check):
        drift_check.assert_same("numpy")
"""
EXPECTED = {
    "test_all": "passed",
    "test_uneven": "passed",
    "test_spread": "passed",
    "test_one_fails": "failure",
    "test_one_dies": "failure",
    "test_same": "passed",
}


@pytest.fixture(scope="module")
def projects(testbed: Testbed, runner: Path, source_of: Mapping[str, Path]) -> Iterator[Mapping[str, Job]]:
    """A directory of alice's for each MPI, whose environment is made by the first run and then used again."""
    with ExitStack() as stack:
        yield {
            mpi: stack.enter_context(job(testbed, runner, source_of[mpi], "alice", SUITE, f"slurm {mpi}"))
            for mpi in ("openmpi", "mpich")
        }


def run(project: Job, before: tuple[str, ...], *args: str, env: Mapping[str, str] | None = None) -> suites.Outcome:
    """Run pytest by way of Slurm's own commands."""
    report = project.directory / "junit.xml"
    report.unlink(missing_ok=True)
    pytest_ = [str(project.runner / "bin" / "pytest"), f"--multihost-venv={project.source}", f"--junitxml={report}"]
    done = project.bed.run(
        "n1", [*before, *pytest_, *args], user=project.user, cwd=project.directory, env=dict(env or {}), timeout=120
    )
    return suites.Outcome(done.returncode, done.stdout + done.stderr, *suites.read(report))


def test_the_cluster_of_the_testbed_is_one(slurm: SlurmCluster) -> None:
    bed = slurm.bed
    done = bed.run("n1", ["srun", "-N3", "-l", "hostname"], user="alice", cwd=bed.shared, timeout=30)
    assert sorted(done.stdout.splitlines()) == ["0: n1", "1: n2", "2: n3"], done.stderr
    done = bed.run("n2", ["salloc", "-Q", "-N2", "-n4", "srun", "id", "-un"], user="alice", cwd=bed.shared, timeout=30)
    assert done.stdout.split() == ["alice"] * 4, done.stderr


@pytest.mark.parametrize("mpi", ["openmpi", "mpich"])
def test_salloc(slurm: SlurmCluster, projects: Mapping[str, Job], mpi: str) -> None:
    allocation = ("salloc", "-Q", "-N3", "--ntasks-per-node=2")
    outcome = run(projects[mpi], allocation, "test_suite.py", env={"NOBODY_ASKED": "for it"})
    assert outcome.tests == EXPECTED, outcome
    assert outcome.code == 1
    assert re.search(r"hosts n\[1-3\]:2 \(from Slurm\), launcher srun 22", outcome.text), outcome
    assert "rank 2 of 3 on n3" in outcome.messages["test_one_fails"], outcome
    assert "rank 1 of 3 on n2" in outcome.messages["test_one_dies"], outcome
    assert "SIGKILL" in outcome.messages["test_one_dies"], outcome


MEET = """
    import os, pathlib, time
    import pytest

    @pytest.mark.multihost(ranks=4, hosts=2)
    def test_meet(comm):
        pathlib.Path("here-" + os.environ["TT_ME"]).touch()
        end = time.monotonic() + 40
        while not pathlib.Path("here-" + os.environ["TT_OTHER"]).exists():
            assert time.monotonic() < end, "the other gang does not run at the same time"
            time.sleep(0.05)
        assert comm.allreduce(1) == 4
"""


def add(project: Job, name: str, text: str) -> None:
    path = suites.write(project.directory, text, name)
    owner = project.bed.accounts["alice"]
    os.chown(path, owner.uid, owner.gid)


def test_two_gangs_run_at_once_in_one_allocation(slurm: SlurmCluster, projects: Mapping[str, Job]) -> None:
    project = projects["openmpi"]
    add(project, "test_meet.py", MEET)
    command = f"'{project.runner}/bin/pytest' \"--multihost-venv={project.source}\" -q test_meet.py"
    both = f"TT_ME=a TT_OTHER=b {command} & TT_ME=b TT_OTHER=a {command} && wait $!"
    allocation = ["salloc", "-Q", "-N2", "--ntasks-per-node=2", "bash", "-c", both]
    done = project.bed.run("n1", allocation, user="alice", cwd=project.directory, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 passed") == 2, done.stdout + done.stderr


def test_ranks_of_a_pytest_that_is_a_step_itself_are_their_own(
    slurm: SlurmCluster, projects: Mapping[str, Job]
) -> None:
    step = ("salloc", "-Q", "-N3", "--ntasks-per-node=2", "srun", "-N1", "-n1", "--mpi=pmi2")
    outcome = run(projects["openmpi"], step, "test_suite.py", "-k", "test_all or test_uneven")
    assert outcome.tests == {"test_all": "passed", "test_uneven": "passed"}, outcome
    assert outcome.code == 0


LONG = """
    import pathlib, time
    import pytest

    @pytest.mark.multihost(ranks=3, hosts=3)
    def test_long(multihost):
        pathlib.Path(f"running-{multihost.rank}").touch()
        time.sleep(1000)

    @pytest.mark.multihost(ranks=2, hosts=2)
    def test_after(comm):
        assert comm.allreduce(1) == 2
"""


@contextmanager
def long_job(project: Job, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Run a suite whose first test is under way on three hosts; it is written to the file `said`."""
    add(project, "test_long.py", LONG)
    for mark in project.directory.glob("running-*"):
        mark.unlink()
    words = [f"--multihost-venv={project.source}", "--junitxml=junit.xml", "test_long.py"]
    with (project.directory / "said").open("w") as said:
        started = project.bed.popen(
            "n1",
            [*before, project.runner / "bin" / "pytest", *words],
            user="alice", cwd=project.directory, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while len(list(project.directory.glob("running-*"))) < 3:
            assert time.monotonic() < end, (project.directory / "said").read_text()
            assert started.poll() is None, (project.directory / "said").read_text()
            time.sleep(0.05)
        yield started
    finally:
        started.kill()
        started.wait()


def gone_within(bed: Testbed, mark: str, seconds: float, hosts: tuple[str, ...]) -> None:
    end = time.monotonic() + seconds
    while left := {host: found for host in hosts if (found := bed.processes(host, mark))}:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_a_cancelled_job_leaves_nothing_on_any_node(slurm: SlurmCluster, projects: Mapping[str, Job]) -> None:
    project = projects["openmpi"]
    with long_job(project, "salloc", "-Q", "-N3", "--ntasks-per-node=2") as started:
        (number,) = slurm.queue()
        slurm.bed.run("n2", ["scancel", number], check=True, timeout=20)
        gone_within(slurm.bed, str(project.directory), 30, slurm.bed.names)
        started.wait(20)


def test_a_node_that_crashes_is_named_and_the_next_gang_does_without(
    slurm: SlurmCluster, projects: Mapping[str, Job]
) -> None:
    project = projects["openmpi"]
    with long_job(project, "salloc", "-Q", "--no-kill", "-N3", "--ntasks-per-node=2") as started:
        with slurm.bed.faults.crash("n3"):
            started.wait(60)
            gone_within(slurm.bed, str(project.directory), 10, ("n1", "n2"))
        said = (project.directory / "said").read_text()
        tests, messages = suites.read(project.directory / "junit.xml")
    assert tests["test_long"] in {"failure", "error"}, said
    assert "rank 2 of 3 on n3" in messages["test_long"], said
    assert tests["test_after"] == "passed", said


def test_the_batch_script_of_the_docs_can_be_pasted(slurm: SlurmCluster, projects: Mapping[str, Job]) -> None:
    project = projects["mpich"]
    page = (ROOT / "docs" / "howto" / "slurm.md").read_text()
    (script,) = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert script.count("--multihost-venv=/opt/venv") == 1
    path = project.directory / "job.sh"
    path.write_text(script.replace("--multihost-venv=/opt/venv", f'"--multihost-venv={project.source}" -k test_all'))
    env = {"PATH": f"{project.runner}/bin:/usr/bin:/bin"}
    done = slurm.bed.run(
        "n1",
        ["sbatch", "-W", "--chdir", project.directory, path],
        user="alice",
        cwd=project.directory,
        env=env,
        timeout=90,
    )
    number = job_id(done.stdout.splitlines())
    said = (project.directory / f"tests-{number}.txt").read_text()
    assert done.returncode == 0, said
    assert suites.read(project.directory / f"junit-{number}.xml")[0] == {"test_all": "passed"}, said
