"""The fixture `testbed` and what it brings: a marker, a skip with the reason, and a look around after each test.

`slurm` has Slurm on top of it.  `stale_mounts` is the smaller sister: no hosts, but storage as several hosts see it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.testbed.bed import Testbed, Unavailable
from tests.testbed.mounts import StaleMounts
from tests.testbed.mounts import Unavailable as NoMounts
from tests.testbed.slurm import SlurmCluster

REQUIRE = "MULTIHOST_TESTBED"
"""Set to `require`, a machine that cannot hold a testbed is a failure and not a skip."""

_GRACE = 3.0
_OWN_MODULE = "tests.testbed."
_OWN_DAEMONS = ("sshd: /usr/sbin/sshd ", "munged ", "slurmctld", ": slurmscriptd", "slurmd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses a testbed, so that `-m "not testbed"` leaves none over."""
    for item in items:
        if "testbed" in getattr(item, "fixturenames", ()):
            item.add_marker("testbed")


def skip_or_fail(reason: str) -> None:
    """Leave the test that asked for a testbed, in the way that the environment wants."""
    if os.environ.get(REQUIRE) == "require":
        pytest.fail(f"no testbed: {reason} ({REQUIRE}=require makes this a failure)", pytrace=False)
    pytest.skip(f"no testbed: {reason}")


@pytest.fixture(scope="session")
def testbed() -> Iterator[Testbed]:
    """Three hosts n1, n2, n3 and the user alice, up for the whole session."""
    bed = Testbed(hosts=3, users=("alice",))
    try:
        bed.up()
    except Unavailable as error:
        skip_or_fail(str(error))
    try:
        yield bed
    finally:
        bed.down()


@pytest.fixture(scope="session")
def _slurm_cluster(testbed: Testbed) -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(testbed)
    try:
        cluster.up()
    except Unavailable as error:
        skip_or_fail(str(error))
    try:
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def slurm(_slurm_cluster: SlurmCluster) -> SlurmCluster:
    """Slurm over n1, n2, n3, with every node idle; a host that was booted meanwhile has its daemons again."""
    _slurm_cluster.ready()
    return _slurm_cluster


@pytest.fixture
def stale_mounts(special: Path) -> Iterator[Callable[..., StaleMounts]]:
    """`stale_mounts("n1", "n2", cache=5.0)`: one directory as these hosts see it, each with caches of its own."""
    with contextlib.ExitStack() as stack:

        def make(*hosts: str, cache: float = 5.0, seed: int = 0) -> StaleMounts:
            base = special / f"storage {secrets.token_hex(2)}"
            try:
                return stack.enter_context(StaleMounts(base, hosts, cache=cache, seed=seed))
            except NoMounts as error:
                skip_or_fail(str(error))
                raise AssertionError("not reached") from None

        yield make


@pytest.fixture(autouse=True)
def _hosts_left_clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves processes on the hosts, name them, and end them."""
    if "testbed" not in request.fixturenames:
        yield
        return
    bed: Testbed = request.getfixturevalue("testbed")
    before = _strangers(bed)
    yield
    limit = time.monotonic() + _GRACE
    while (left := _strangers(bed) - before) and time.monotonic() < limit:
        time.sleep(0.05)
    for host, pid, _ in left:
        bed.run(host, ["kill", "-KILL", str(pid)])
    if left:
        names = ", ".join(f"{host} pid {pid} ({line[:160]})" for host, pid, line in sorted(left))
        pytest.fail(f"this test leaves processes on the hosts: {names}", pytrace=False)


def _strangers(bed: Testbed) -> set[tuple[str, int, str]]:
    """Return what runs on the hosts and is no part of them."""
    return {
        (host, pid, line)
        for host in bed.names
        for pid, line in bed.processes(host)
        if not line.startswith(_OWN_DAEMONS) and _OWN_MODULE not in line
    }
