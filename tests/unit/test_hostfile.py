"""Sources of hosts: hostfiles, PBS, this machine, their order, and machines that have two names."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pytest_multihost_env import config, hosts
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.hostfile import parse
from pytest_multihost_env.hosts.merge import Entry, merge
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import same_host, valid_host


def pairs(allocation: Allocation | None) -> list[tuple[str, int]]:
    assert allocation is not None
    return [(host.name, host.slots) for host in allocation.hosts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1\nn2\n", [("n1", 1), ("n2", 1)]),
        ("n1 slots=2 max_slots=4\nn2 slots = 3", [("n1", 2), ("n2", 3)]),
        ("n1 max-slots=4 slots=2", [("n1", 2)]),
        ("n1:2\nn2:1", [("n1", 2), ("n2", 1)]),
        ("# all\n\n  n1 slots=2 # two\r\n\t\nn2:4#x\n", [("n1", 2), ("n2", 4)]),
        ("n2\nn1\nn2\nn2\n", [("n2", 3), ("n1", 1)]),
        ("n1 slots=2\nn1.example.org slots=1\n", [("n1", 3)]),
        ("n1.example.org\nN1\n", [("n1.example.org", 2)]),
        ("a.x.org\na.y.org\n", [("a.x.org", 1), ("a.y.org", 1)]),
        ("10.0.0.1\n10.0.0.2:2\n", [("10.0.0.1", 1), ("10.0.0.2", 2)]),
        ("\ufeffn1 slots=1", [("n1", 1)]),
    ],
)
def test_hostfile_grammar(text: str, expected: list[tuple[str, int]], special: Path) -> None:
    path = special / "hosts"
    path.write_text(text, encoding="utf-8", newline="")
    assert pairs(hosts.HostfileSource(path).find({})) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("n1 slots=0", "'0' is not a positive number"),
        ("n1 slots=two", "'two' is not a positive number"),
        ("n1 slots=", "'' is not a positive number"),
        ("n1:", "'' is not a positive number"),
        ("n1:-1", "'-1' is not a positive number"),
        ("n1 n2", "'n2' is not understood"),
        ("n1:2 slots=2", "'slots=2' is not understood"),
        ("n1 slots=4 max_slots=2", "max_slots=2 is less than slots=4"),
        ("-oProxyCommand=x", "is not a host name"),
        ("n1,n2", "'n1,n2' is not a host name"),
        ("n[1-2]", "is not a host name"),
        ("nü", "is not a host name"),
    ],
)
def test_a_bad_line_is_shown_with_its_number(line: str, words: str, special: Path) -> None:
    path = special / "hosts"
    path.write_text(f"# first\ngood\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageProblem) as caught:
        hosts.HostfileSource(path).find({})
    assert words in caught.value.what
    assert caught.value.where == f"{path}:3"


@pytest.mark.parametrize("text", ["", "\n\n", "# n1\n"])
def test_a_file_without_hosts_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="names no host"):
        parse(text, "hosts")


def test_a_missing_hostfile_is_refused(special: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        hosts.HostfileSource(special / "gone").find({})
    assert str(special / "gone") in (caught.value.where or "")


def test_a_short_name_of_two_domains_is_refused() -> None:
    with pytest.raises(UsageProblem, match=r"a may mean a\.x\.org or a\.y\.org"):
        merge([Entry(name, 1, "x") for name in ("a.x.org", "a", "a.y.org")], "x")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("n1", "n1", True),
        ("n1", "N1.example.org", True),
        ("n1.example.org.", "n1.example.org", True),
        ("n1", "n10", False),
        ("a.x.org", "a.y.org", False),
        ("n1.example", "n1.example.org", False),
        ("10.0.0.1", "10", False),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_same_host(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same
    assert same_host(other, one) is same


@pytest.mark.parametrize("name", ["", "-n", ".n", "n 1", "n1\n", "n1;x", "n1:2", "n/1", "nü", "n1,n2"])
def test_names_that_no_launcher_may_get(name: str) -> None:
    assert not valid_host(name)


def test_lines_of_a_pbs_node_file_are_slots(special: Path) -> None:
    path = special / "nodes"
    path.write_text("n1\nn1\n\nn2.example.org\nn1\n")
    assert pairs(hosts.PbsSource().find({"PBS_NODEFILE": str(path)})) == [("n1", 3), ("n2.example.org", 1)]
    assert hosts.PbsSource().find({}) is None


@pytest.mark.parametrize("content", [None, "", "n1\nn1 slots=2\n"])
def test_a_pbs_job_without_a_node_file_is_refused(content: str | None, special: Path) -> None:
    path = special / "nodes"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageProblem) as caught:
        hosts.PbsSource().find({"PBS_NODEFILE": str(path)})
    assert str(path) in (caught.value.where or "")


def test_the_order_of_sources(special: Path) -> None:
    hostfile, nodes = special / "hosts", special / "nodes"
    hostfile.write_text("from-hostfile:3")
    nodes.write_text("from-pbs")
    options: dict[str, object] = {"hosts": "from-option:2", "hostfile": str(hostfile)}
    environ = {"PBS_NODEFILE": str(nodes), "SLURM_JOB_NODELIST": "from-slurm", "SLURM_TASKS_PER_NODE": "4"}

    def found() -> tuple[list[tuple[str, int]], str]:
        allocation = hosts.find(config.load(options, {}, {}, special), environ)
        return pairs(allocation), allocation.source

    assert found() == ([("from-option", 2)], "option --multihost-hosts")
    del options["hosts"]
    assert found() == ([("from-hostfile", 3)], str(hostfile))
    del options["hostfile"]
    assert found() == ([("from-pbs", 1)], "PBS")
    del environ["PBS_NODEFILE"]
    assert found() == ([("from-slurm", 4)], "Slurm")
    environ.clear()
    assert found()[1] == "this machine"


def test_a_source_that_fails_is_not_skipped(special: Path) -> None:
    environ = {"PBS_NODEFILE": str(special / "gone"), "SLURM_JOB_NODELIST": "n1"}
    with pytest.raises(UsageProblem):
        hosts.find(config.load({}, {}, {}, special), environ)


def test_this_machine_has_slots_enough_for_small_suites() -> None:
    allocation = hosts.MachineSource().find({})
    assert len(allocation.hosts) == 1
    assert hosts.is_local(allocation.hosts[0].name)
    assert allocation.slots == max(16, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.localdomain", "127.0.0.1", "127.1.2.3"])
def test_names_of_this_machine(name: str) -> None:
    assert hosts.is_local(name)


def test_the_host_name_is_this_machine_and_others_are_not() -> None:
    own = socket.gethostname()
    assert hosts.is_local(own)
    assert hosts.is_local(own.upper())
    assert not hosts.is_local(f"x{own}")
    assert not hosts.is_local("192.0.2.1")


def test_this_machine_named_alone_has_its_own_slots() -> None:
    own: Host = hosts.MachineSource().find({}).hosts[0]
    assert pairs(hosts.OptionSource("localhost").find({})) == [("localhost", own.slots)]
    assert pairs(hosts.OptionSource("localhost:2").find({})) == [("localhost", 2)]
    assert pairs(hosts.OptionSource("localhost,n2").find({})) == [("localhost", 1), ("n2", 1)]
