"""Real virtual environments for integration tests, made once a session from PyPI."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from tests.testbed.bed import Testbed

ROOT = Path(__file__).parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"
REQUIRED = os.environ.get("MULTIHOST_TESTBED") == "require"


def missing(reason: str) -> NoReturn:
    """Skip the test that cannot be run here; where everything has to be there, fail it, so that no lack goes unseen."""
    if REQUIRED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def make(directory: Path, *requirements: str, python: str = sys.executable) -> Path:
    """Make a virtual environment with `requirements` and return its directory; skip where PyPI is out of reach."""
    subprocess.run([python, "-m", "venv", str(directory)], check=True, capture_output=True, timeout=120)
    install = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    if done.returncode:
        missing(f"pip could not install {' '.join(requirements)}: {done.stderr.strip()[-500:]}")
    return directory


@pytest.fixture(scope="session")
def mpich_env(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this package, mpi4py and the MPICH wheel."""
    return make(tmp_path_factory.mktemp("envs") / "mpich", "mpich", "mpi4py", "numpy", "-e", str(ROOT))


@pytest.fixture(scope="session")
def plain_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SOURCE as a user has it: numpy, mpi4py and the Open MPI wheel, nothing of pytest."""
    return make(tmp_path_factory.mktemp("envs") / "so'urce #1", "numpy", "mpi4py", "openmpi")


@pytest.fixture(scope="session")
def conda_channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conda channel of files, with the Python that runs the tests in it."""
    from tests import channel

    return channel.make(tmp_path_factory.mktemp("conda") / "channel #1", tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="session", params=["openmpi", "mpich"])
def mpi_python(request: pytest.FixtureRequest) -> Path:
    """The Python of an environment with this package and one MPI; tests that use it run with both."""
    if request.param == "openmpi":
        pytest.importorskip("mpi4py")
        return Path(sys.executable)
    env: Path = request.getfixturevalue("mpich_env")
    return env / "bin" / "python"


@pytest.fixture(scope="session")
def runner(testbed: Testbed) -> Path:
    """A virtual environment with this package, on storage that all hosts share, for every user."""
    return make(testbed.shared / "runner", str(ROOT), python=SYSTEM_PYTHON)


@pytest.fixture(scope="session")
def source_of(testbed: Testbed) -> Mapping[str, Path]:
    """A SOURCE for each MPI, made of PyPI's wheels and nothing else, on the same storage."""
    directory = testbed.shared / "it's #1 \N{LATIN SMALL LETTER U WITH DIAERESIS}"
    directory.mkdir()
    return {mpi: make(directory / mpi, "numpy", "mpi4py", mpi, python=SYSTEM_PYTHON) for mpi in ("openmpi", "mpich")}
