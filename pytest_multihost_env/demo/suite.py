"""The little suite of the demonstration, run by a real pytest, and what its tests noted about themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_multihost_env import process

RANKS = 4
LIMIT = 120.0
ARGUMENTS = ("--multihost-venv=source", "-v", "test_demo.py")

WITH_MPI = """\
import pytest
import demo_stack  # lies in the source environment only


def test_as_always():
    assert demo_stack.__version__ == "1.0"


@pytest.mark.multihost(ranks=4)
def test_on_four_ranks(comm):
    assert comm.allreduce(comm.rank) == 0 + 1 + 2 + 3


@pytest.mark.multihost(ranks=4)
def test_on_the_same_ranks(comm):
    assert comm.allgather(comm.rank) == [0, 1, 2, 3]
"""

WITHOUT_MPI = """\
import pytest
import demo_stack  # lies in the source environment only


def test_as_always():
    assert demo_stack.__version__ == "1.0"


@pytest.mark.multihost(ranks=4)
def test_on_four_ranks(multihost):
    assert multihost.size == 4


@pytest.mark.multihost(ranks=4)
def test_on_the_same_ranks(multihost):
    assert multihost.rank in range(4)
"""

_CONFTEST = '''\
"""Has every test note, on every rank, who ran it."""

import json
import os
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def note(request, multihost):
    began = time.monotonic()
    yield
    facts = {"test": request.node.name, "rank": multihost.rank, "size": multihost.size, "pid": os.getpid()}
    facts |= {"python": sys.executable, "began": began}
    folder = Path(__file__).with_name("facts")
    folder.mkdir(exist_ok=True)
    (folder / f"{request.node.name}-{multihost.rank}.json").write_text(json.dumps(facts))
'''

# What would make this run another one than a person's first: an outer job, an outer test, settings of a project.
_DROPPED = (
    "COV_", "HYDRA_", "MPI", "MULTIHOST_", "OMPI_", "PBS_", "PMIX_", "PMI_", "PRTE_", "PYTEST_", "PYTHON", "SLURM_",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """How the suite ended, and what its tests noted: a record for each test and rank."""

    code: int
    seconds: float
    notes: tuple[dict[str, Any], ...]

    def of(self, test: str) -> dict[int, dict[str, Any]]:
        """Return the notes of one test by rank."""
        return {note["rank"]: note for note in self.notes if note["test"] == test}

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the ranks, when both tests had the same four; else ()."""
        first, second = ([notes[rank]["pid"] for rank in sorted(notes)] for notes in map(self.of, self.ranked))
        return tuple(first) if first == second and len(set(first)) == RANKS else ()

    @property
    def ranked(self) -> tuple[str, str]:
        """Names of the tests that run on ranks."""
        return "test_on_four_ranks", "test_on_the_same_ranks"

    @property
    def pythons(self) -> set[str]:
        """The interpreters that ran tests."""
        return {str(note["python"]) for note in self.notes}

    @property
    def warm_seconds(self) -> float:
        """From the beginning of the first test on the ranks to that of the second, as rank 0 saw it."""
        first, second = (self.of(test)[0]["began"] for test in self.ranked)
        return float(second - first)


def write(directory: Path, *, mpi: bool) -> str:
    """Write the suite into `directory`, which becomes a rootdir of its own; return its text."""
    text = WITH_MPI if mpi else WITHOUT_MPI
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (directory / "conftest.py").write_text(_CONFTEST, encoding="utf-8")
    (directory / "test_demo.py").write_text(text, encoding="utf-8")
    return text


def run(directory: Path, show: Callable[[str], None], *, colour: bool, width: int) -> Ran:
    """Run pytest in `directory`, handing each line of its output to `show` as it comes."""
    began = time.monotonic()
    with contextlib.chdir(directory):
        child = process.start(
            [sys.executable, "-m", "pytest", *ARGUMENTS],
            env=_environ(colour=colour, width=width),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    watchdog = threading.Timer(LIMIT, process.kill_group, [child.pid, signal.SIGKILL])
    watchdog.start()
    try:
        assert child.stdout is not None  # noqa: S101 - it was asked for
        for line in child.stdout:
            show(line.decode("utf-8", "replace").rstrip("\n"))
        code = child.wait()
    finally:
        watchdog.cancel()
        if child.poll() is None:
            process.kill_group(child.pid, signal.SIGKILL)
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
    notes = tuple(json.loads(file.read_text()) for file in sorted((directory / "facts").glob("*.json")))
    return Ran(code, time.monotonic() - began, notes)


def _environ(*, colour: bool, width: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    return kept | {"PY_COLORS": "1" if colour else "0", "COLUMNS": str(width), "PYTHONUNBUFFERED": "1"}
