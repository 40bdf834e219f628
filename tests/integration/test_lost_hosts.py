"""A host that is lost in the middle of a test: noticed in time, told by name, and the session goes on without it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import suites
from tests.environments import ROOT, make
from tests.testbed.bed import Testbed

pytestmark = [
    pytest.mark.mpi_programs,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which takes root"),
]

SUITE = """
    import pathlib, socket, time
    import pytest

    @pytest.mark.multihost(ranks=3, hosts=3)
    def test_long(multihost):
        pathlib.Path(f"running-{multihost.rank}").touch()
        time.sleep(200)

    @pytest.mark.multihost(ranks=2)
    def test_fits(comm, multihost):
        assert comm.allgather(socket.gethostname()) == ["n1", "n2"]

    @pytest.mark.multihost(ranks=3, hosts=3)
    def test_does_not_fit(multihost): pass
"""


@pytest.fixture(scope="module")
def environments(testbed: Testbed) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(mpi: str) -> Path:
        if mpi not in made:
            made[mpi] = make(testbed.shared / f"lost {mpi}", "mpi4py", mpi, str(ROOT), python="/usr/bin/python3")
        return made[mpi]

    return of


def told(running: subprocess.Popen[str]) -> str:
    """Return what pytest says to its end; print how long it took to tell of the first failure."""
    assert running.stdout is not None
    begin = time.monotonic()
    lines = []
    for line in running.stdout:
        lines.append(line)
        if "test_long FAILED" in line:
            print(f"{time.monotonic() - begin:.1f} s from the fault to the verdict")
    running.wait(30)
    return "".join(lines)


FAULTS: dict[str, Callable[[Testbed], AbstractContextManager[None]]] = {
    "silent": lambda bed: bed.faults.link_down("n3"),
    "dead": lambda bed: bed.faults.kill("n3"),
}


@pytest.mark.parametrize(("mpi", "fault"), [("openmpi", "silent"), ("mpich", "silent"), ("openmpi", "dead")])
def test_a_lost_host(
    testbed: Testbed,
    environments: Callable[[str], Path],
    mpi: str,
    fault: str,
) -> None:
    env = environments(mpi)
    directory = testbed.shared / f"lost {mpi} {fault}"
    suites.write(directory, SUITE)
    directory.chmod(0o777)
    report = directory / "junit.xml"
    words = ["-v", "-p", "no:cacheprovider", "--multihost-hosts=n1:1,n2:1,n3:1", f"--junitxml={report}"]
    running = testbed.popen(
        "n1",
        [env / "bin" / "pytest", *words, "--multihost-host-timeout=6"],
        user="alice",
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert running.stdout is not None
    try:
        end = time.monotonic() + 60
        while len(list(directory.glob("running-*"))) < 3:
            assert time.monotonic() < end, "the ranks did not start"
            assert running.poll() is None, running.communicate()[0]
            time.sleep(0.05)
        with FAULTS[fault](testbed):
            text = told(running)
            outcomes, messages = suites.read(report)
            assert outcomes == {"test_long": "failure", "test_fits": "passed", "test_does_not_fit": "error"}, text
            assert running.returncode == 1, text
            left = {host: testbed.processes(host, str(directory)) for host in ("n1", "n2")}
            assert left == {"n1": [], "n2": []}
        said = messages["test_long"]
        if (mpi, fault) != ("mpich", "silent"):
            # Open MPI's daemons may notice before the ranks' channels do, and then mpirun ends all ranks.
            assert re.search(r"rank 2 of 3 on n3|its launcher ended the job", said), text
        else:
            assert "rank 2 of 3 on n3" in said, text
            assert "nothing was heard of its host for 6 s" in said, text
        assert "n3 was lost; what came after ran without it" in text
        assert "lost during this session: n3" in messages["test_does_not_fit"]
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
        shutil.rmtree(directory, ignore_errors=True)
