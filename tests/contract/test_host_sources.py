"""What every registered source of hosts must keep to.  A new one gets a recorded job in `tests.recorded`."""

from __future__ import annotations

import itertools
import unittest.mock
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_multihost_env import config, hosts, registry
from pytest_multihost_env.errors import MultihostError, UsageProblem
from pytest_multihost_env.hookspecs import hookimpl
from pytest_multihost_env.hosts.merge import merged
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.protocols import HostSource
from pytest_multihost_env.registry import Registry
from tests import recorded
from tests.recorded import Job

SOURCES: Mapping[str, HostSource] = registry.load().host_sources


def pairs(allocation: Allocation | None) -> tuple[tuple[str, int], ...]:
    assert allocation is not None
    return tuple((host.name, host.slots) for host in merged(allocation).hosts)


def find(place: Path, environ: Mapping[str, str], **options: object) -> Allocation:
    settings = config.load(options, {}, {}, place)
    return hosts.find(settings, environ, SOURCES.values(), hosts.SUFFIXES)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> HostSource:
    return SOURCES[request.param]


@pytest.fixture(params=recorded.RECORDED, ids=lambda job: job.origin)
def job(request: pytest.FixtureRequest) -> Job:
    found: Job = request.param
    return found


class TestEvery:
    def test_it_is_registered_under_its_own_name(self, source: HostSource) -> None:
        assert SOURCES[source.name] is source

    def test_outside_of_its_jobs_it_has_nothing_to_say(self, source: HostSource) -> None:
        assert source.find({"PATH": "/usr/bin", "HOME": "/root", "HOSTNAME": "n1", "SLURM_CONF": "/etc/x"}) is None

    def test_it_has_a_recorded_job(self, source: HostSource) -> None:
        assert source.name in {job.source for job in recorded.RECORDED}

    def test_it_is_silent_in_the_jobs_of_others(self, source: HostSource, special: Path) -> None:
        for number, job in enumerate(recorded.RECORDED):
            if job.source != source.name:
                place = special / str(number)
                place.mkdir()
                assert source.find(job.put(place)) is None


class TestRecorded:
    def test_its_hosts_are_found(self, job: Job, special: Path) -> None:
        environ = job.put(special)
        assert pairs(SOURCES[job.source].find(environ)) == job.expected
        allocation = find(special, environ)
        assert (pairs(allocation), allocation.source) == (job.expected, job.source)
        assert all(host.where for host in allocation.hosts)

    def test_without_its_files_and_programs_it_is_an_error_and_never_one_host(self, job: Job, special: Path) -> None:
        """Row 83."""
        environ = job.put(special)
        for name in job.files:
            (special / name.lstrip("/")).unlink()
        for program in (special / "bin").iterdir():
            program.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
        if job.files or job.programs:
            refused(special, environ)

    def test_without_its_lists_it_is_an_error_and_never_one_host(self, job: Job, special: Path) -> None:
        """Row 83."""
        environ = job.put(special)
        for name in job.lists:
            del environ[name]
        if job.lists:
            refused(special, environ)

    def test_with_mangled_lists_it_is_an_error_and_never_one_host(self, job: Job, special: Path) -> None:
        for text in ("n[1-", "-oProxyCommand=x", "n1,,n2", "\ufffd"):
            environ = job.put(special)
            for name in job.lists:
                environ[name] = text
            for name in job.files:
                (special / name.lstrip("/")).write_text(f"{text}\n")
            if job.lists:
                refused(special, environ)


def refused(place: Path, environ: Mapping[str, str]) -> None:
    with pytest.raises(MultihostError) as caught:
        find(place, environ)
    assert caught.value.where
    assert "--multihost-hosts" in (caught.value.hint or "")


ORDER = ("hosts", "hostfile", "Flux", "PBS", "Slurm", "LSF")


@pytest.mark.parametrize("present", [set(some) for n in range(7) for some in itertools.combinations(ORDER, n)], ids=str)
def test_the_order_of_sources(present: set[str], special: Path) -> None:
    """Row 79: setting > hostfile > a job that was started inside another's > PBS > Slurm > LSF > this machine."""
    options: dict[str, object] = {}
    environ: dict[str, str] = {}
    for source, job in (
        ("LSF", recorded.LSF),
        ("PBS", recorded.TORQUE),
        ("Flux", recorded.FLUX_JOB),
        ("Slurm", recorded.SLURM_HET),
    ):
        if source in present:
            (special / source).mkdir()
            environ |= job.put(special / source)
    if "Flux" in present:
        environ["PATH"] = str(special / "Flux" / "bin")
    if "hosts" in present:
        options["hosts"] = "from-option:2"
    if "hostfile" in present:
        (special / "file").write_text("from-hostfile:3")
        options["hostfile"] = str(special / "file")
    said = {"hosts": "option --multihost-hosts", "hostfile": f"hostfile {special / 'file'}"}
    first = next((source for source in ORDER if source in present), "this machine")
    assert find(special, environ, **options).source == said.get(first, first)


def test_a_source_that_fails_is_not_passed_over(special: Path) -> None:
    environ = {"PBS_NODEFILE": str(special / "gone"), "SLURM_JOB_NODELIST": "n1"}
    with pytest.raises(UsageProblem, match="cannot be read"):
        find(special, environ)


@pytest.mark.parametrize("variable", ["PE_HOSTFILE", "COBALT_NODEFILE", "OAR_NODEFILE", "LOADL_HOSTFILE"])
def test_a_scheduler_without_a_source_is_an_error_and_never_one_host(variable: str, special: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        find(special, {variable: "/var/spool/nodes"})
    assert variable in caught.value.what
    assert "--multihost-hostfile" in (caught.value.hint or "")
    assert find(special, {variable: "/var/spool/nodes"}, hosts="localhost").names == ("localhost",)


class Tower:
    """A source of a site, as somebody else would write it."""

    def __init__(self, name: str = "tower", *, broken: bool = False) -> None:
        self.name = name
        self._broken = broken

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        if self._broken:
            raise KeyError("TOWER_HOSTS")
        names = environ.get("TOWER_HOSTS", "").split()
        return Allocation(tuple(Host(name, 2, "TOWER_HOSTS") for name in names), self.name) if names else None


class Last:
    """A plugin that adds a source behind ours, and a suffix."""

    source = Tower()

    @hookimpl
    def multihost_env_register(self, registry: Registry) -> None:
        registry.add_host_source(self.source)
        registry.add_host_suffix("-ib0")


class First:
    """A plugin whose parts are tried before ours."""

    @hookimpl(tryfirst=True)
    def multihost_env_register(self, registry: Registry) -> None:
        registry.add_host_source(Tower("high tower"))


def test_a_plugin_adds_a_source_and_a_suffix(special: Path) -> None:
    known = registry.load([Last()])
    assert list(known.host_sources) == [*SOURCES, "tower"]
    found = hosts.find(
        config.load({}, {}, {}, special),
        {"TOWER_HOSTS": "n1 n2-ib0 N2.x.org"},
        known.host_sources.values(),
        known.host_suffixes,
    )
    assert pairs(found) == (("n1", 2), ("n2-ib0", 4))
    assert found.hosts[1].where == "TOWER_HOSTS"


def test_a_plugin_may_come_before_ours() -> None:
    assert list(registry.load([Last(), First()]).host_sources) == ["high tower", *SOURCES, "tower"]


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(UsageProblem, match="two host sources are called 'tower'"):
        registry.load([Last(), Last()])


def test_a_hook_that_is_not_marked_is_refused() -> None:
    class Forgetful:
        def multihost_env_register(self, registry: Registry) -> None:
            raise AssertionError("never called")

    with pytest.raises(UsageProblem, match="not marked as a hook") as caught:
        registry.load([Forgetful()])
    assert "@hookimpl" in (caught.value.hint or "")


def test_a_plugin_that_has_every_attribute_is_left_alone() -> None:
    assert list(registry.load([unittest.mock.MagicMock(), object(), None]).host_sources) == list(SOURCES)


@pytest.mark.parametrize("suffix", ["", "-", "-IB", ".org", "-ib.x", "*", "-ib "])
def test_a_suffix_that_is_none_is_refused(suffix: str) -> None:
    with pytest.raises(UsageProblem, match="is not the end of a host's name"):
        Registry().add_host_suffix(suffix)


def test_a_source_that_breaks_is_named(special: Path) -> None:
    with pytest.raises(UsageProblem, match="the host source 'tower' failed: KeyError") as caught:
        hosts.find(config.load({}, {}, {}, special), {}, [Tower(broken=True)])
    assert caught.value.where == __name__
