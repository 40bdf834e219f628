"""Real Slurm over three hosts: salloc, sbatch and srun with the pytest command, and what becomes of lost jobs and nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import suites
from tests.jobs import Job, job
from tests.testbed.bed import Testbed
from tests.testbed.slurm import SlurmCluster

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
    outcome = run(projects[mpi], allocation, env={"NOBODY_ASKED": "for it"})
    assert outcome.tests == EXPECTED, outcome
    assert outcome.code == 1
    assert re.search(r"hosts n\[1-3\]:2 \(from Slurm\), launcher srun 22", outcome.text), outcome
    assert "rank 2 of 3 on n3" in outcome.messages["test_one_fails"], outcome
    assert "rank 1 of 3 on n2" in outcome.messages["test_one_dies"], outcome
    assert "SIGKILL" in outcome.messages["test_one_dies"], outcome
