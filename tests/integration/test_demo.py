"""The demonstration shows everything on a good day, and says so in its exit code when something does not hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.suites import clean_environ

pytestmark = pytest.mark.mpi_programs

# The planted drift is left out, and a test on ranks fails: a demonstration that cannot fail proves nothing.
SABOTAGE = """
import sys
from pytest_multihost_env import demo
from pytest_multihost_env.demo import source, suite
from pytest_multihost_env.table import Look

plant = source.write_stack
source.write_stack = lambda env, version: plant(env, "1.0")
suite.WITH_MPI = suite.WITH_MPI.replace("1 + 2 + 3", "1 + 2 + 4")
suite.WITHOUT_MPI = suite.WITHOUT_MPI.replace("== 4", "== 5")
sys.exit(demo.run(Look(width=200), keep=True))
"""


def run(temporary: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # What an outer job or a project has set must not make it another demonstration.
    outer = {
        "MULTIHOST_ENV_HOSTS": "n1,n2",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-4]",
        "PYTEST_ADDOPTS": "-x",
    }
    return subprocess.run(
        [sys.executable, *argv],
        cwd=temporary,
        env=clean_environ({"TMPDIR": str(temporary), "COLUMNS": "200", **outer, **variables}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        timeout=100,
    )


def left(temporary: Path) -> list[str]:
    # multihost-env-<uid> is this machine's directory of locks: shared by all runs, and made once.
    return [path.name for path in temporary.iterdir() if not re.fullmatch(r"multihost-env-\d+", path.name)]


def test_it_shows_everything_and_leaves_nothing(special: Path) -> None:
    done = run(special, "-m", "pytest_multihost_env.cli", "demo", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stdout
    assert "5 of 5 shown" in done.stdout
    assert "\x1b" not in done.stdout
    assert re.search(r"test_on_the_same_ranks PASSED", done.stdout)
    assert re.search(r"asked again: reused in \d", done.stdout)
    assert re.search(r"demo-stack[ |]+declared[ |]+1\.0[ |]+!= 1\.1", done.stdout)
    assert "demo-stack: host-b has 1.1, host-a has 1.0" in done.stdout
    pids = re.search(r"the same processes, ([\d, ]+):", done.stdout)
    assert pids is not None
    assert len(set(pids[1].split(", "))) == 4
    assert left(special) == []


def test_it_fails_when_a_test_fails_or_the_drift_is_not_found(special: Path) -> None:
    done = run(special, "-c", SABOTAGE)
    assert done.returncode == 1, done.stdout
    assert "3 of 5 shown" in done.stdout
    assert "NOT found" in done.stdout
    assert "pytest ended with 1" in done.stdout
    (kept,) = left(special)
    assert f"everything is still in {special / kept}" in done.stdout
    assert (special / kept / "python_env" / "bin" / "python").exists()
