"""Hostfiles, this machine, and machines that have two names."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pytest_multihost_env import config, hosts, plan, telling
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.hostfile import parse
from pytest_multihost_env.hosts.merge import merged
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import same_host, valid_host


def pairs(allocation: Allocation | None) -> list[tuple[str, int]]:
    assert allocation is not None
    return [(host.name, host.slots) for host in merged(allocation).hosts]


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
        ("\tn1\tslots\t=\t2\r\n\r\nn2\r", [("n1", 2), ("n2", 1)]),
        ("n1 cpu=2 max-cpu=4\nn2 count=3 count_max=3\n", [("n1", 2), ("n2", 3)]),
        ("n1 slots=02", [("n1", 2)]),
        ("n1 max_slots=4", [("n1", 1)]),
        ("n1:2#\n#n2", [("n1", 2)]),
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
        ("n1 slots=1234567", "'1234567' is not a positive number"),
        ("n1 slots=٣", "is not a positive number"),
        ("n1 slots=1 slots=2", "'slots=2' is not understood"),
        ("n1 max_slots=0", "'0' is not a positive number"),
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
        ("n1:2:3", "'n1:2:3' is not a host name"),
        ("a" * 300, "is not a host name"),
        ("n\x00", "is not a host name"),
        ("slots=2", "'slots=2' is not a host name"),
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
    with pytest.raises(UsageProblem, match="names no host") as caught:
        parse(text, "hosts")
    assert caught.value.hint == "write one host a line, as in: n1 slots=8"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("n1 user=bob", "~/.ssh/config"),
        ("bob@n1 slots=2", "~/.ssh/config"),
        ("n1 port=2222", "~/.ssh/config"),
        ("n1 slots=0", "leave out the line"),
        ("^n1", "leave out the line"),
        ("rank 0=n1 slot=0", "rankfile"),
        ("rank=n1", "rankfile"),
        ("fe80::1", "IPv6"),
        ("[fe80::1]:2", "IPv6"),
        ("n[1-2]:4", "--multihost-hosts"),
        ("n1,n2", "--multihost-hosts"),
        ("n1 n2", "correct the line"),
    ],
)
def test_what_others_write_in_a_hostfile_has_a_remedy_of_its_own(line: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse(line, "hosts")
    assert caught.value.where == "hosts:1"
    assert hint in (caught.value.hint or "")


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    with pytest.raises(UsageProblem) as caught:
        parse("n1 slots=2\u2028\x0bmax_slots=2\x0c\r\nn2\x1c\x85\rn3\n\nbad line here\n", "hosts")
    assert caught.value.where == "hosts:5"


def test_an_error_about_an_endless_line_is_short() -> None:
    with pytest.raises(UsageProblem) as caught:
        parse("n1 " + "x" * 1_000_000, "hosts")
    assert len(str(caught.value)) < 500


def test_files_that_are_none_are_refused(special: Path) -> None:
    (special / "utf-16").write_bytes("n1\nn2\n".encode("utf-16"))
    (special / "latin").write_bytes(b"n1\nn2 # k\xfcche\n")
    (special / "loop").symlink_to("loop")
    said = {
        "gone": "No such file",
        ".": "Is a directory",
        "loop": "symbolic links",
        "nul\0": "null",
        "utf-16": "line 1 of the file of hosts is not UTF-8",
        "latin": "line 2 of the file of hosts is not UTF-8",
        "/dev/zero": "more than 64 MiB",
    }
    for name, words in said.items():
        with pytest.raises(UsageProblem) as caught:
            hosts.HostfileSource(special / name, "ini multihost_hostfile").find({})
        assert words in caught.value.what
        assert caught.value.where == f"ini multihost_hostfile: {special / name}"
        assert caught.value.hint


def merge(*names: str, suffixes: tuple[str, ...] = ()) -> Allocation:
    found = Allocation(tuple(Host(name, 2, f"hosts:{line}") for line, name in enumerate(names, 1)), "test")
    return merged(found, suffixes)


def test_a_short_name_of_two_domains_is_refused() -> None:
    with pytest.raises(UsageProblem, match=r"a may mean a\.x\.org or a\.y\.org") as caught:
        merge("a.x.org", "a", "a.y.org")
    assert caught.value.where == "hosts:2"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["n1", "n1.x.org", "N1."], [("n1", 6)]),
        (["n1-hsn0", "n2", "n1", "n1-hsn1.x.org"], [("n1-hsn0", 6), ("n2", 2)]),
        (["n1-hsn0.x.org", "n1.x.org", "n1.y.org"], [("n1-hsn0.x.org", 4), ("n1.y.org", 2)]),
        (["n1-hsn0", "n1-ib0"], [("n1-hsn0", 2), ("n1-ib0", 2)]),
        (["-hsn0x", "n1"], None),
        (["hsn0", "n1"], [("hsn0", 2), ("n1", 2)]),
        (["10.0.0.1", "10.0.0.2", "10.0.0.1"], [("10.0.0.1", 4), ("10.0.0.2", 2)]),
    ],
)
def test_each_machine_is_there_once(names: list[str], expected: list[tuple[str, int]] | None) -> None:
    """Row 84."""
    if expected is None:
        with pytest.raises(UsageProblem, match="is not a host name"):
            merge(*names, suffixes=hosts.SUFFIXES)
    else:
        found = merge(*names, suffixes=hosts.SUFFIXES)
        assert [(host.name, host.slots) for host in found.hosts] == expected


def test_a_suffix_and_two_domains_are_refused() -> None:
    with pytest.raises(UsageProblem, match=r"n1-hsn0 may mean n1\.x\.org or n1\.y\.org"):
        merge("n1.x.org", "n1.y.org", "n1-hsn0", suffixes=hosts.SUFFIXES)


def test_where_a_host_is_named() -> None:
    assert [host.where for host in merge("n1", "n1", "n2", "n1", "n2").hosts] == ["hosts:1-2,4", "hosts:3,5"]
    mixed = Allocation((Host("n1", 1, "a:1"), Host("n1", 1, "b:2"), Host("n1", 1, "a:1")), "test")
    assert merged(mixed).hosts[0].where == "a:1 and 1 more"
    assert merged(Allocation((Host("n1", 1), Host("n1", 1)), "test")).hosts[0].where == ""


@pytest.mark.parametrize(
    ("found", "words"),
    [((), "test names no host"), ((Host("n1", 0),), "n1 has 0 slots"), ((Host("-n1", 1),), "'-n1' is not a host name")],
)
def test_what_a_source_may_not_say(found: tuple[Host, ...], words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        merged(Allocation(found, "test"))


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


def test_the_header_folds_the_hosts(special: Path) -> None:
    settings = config.load({"hosts": "n[09-101]:8,gpu1:4,gpu2:4", "launcher": "ssh"}, {}, {}, special)
    header = telling.header(plan.make(settings))
    assert header[-1].startswith("hosts n[09-99,100-101]:8, gpu[1-2]:4 (from option --multihost-hosts), launcher ssh")


def test_this_machine_named_alone_has_its_own_slots() -> None:
    own: Host = hosts.MachineSource().find({}).hosts[0]
    assert pairs(hosts.OptionSource("localhost").find({})) == [("localhost", own.slots)]
    assert pairs(hosts.OptionSource("localhost:2").find({})) == [("localhost", 2)]
    assert pairs(hosts.OptionSource("localhost,n2").find({})) == [("localhost", 1), ("n2", 1)]
    assert pairs(hosts.OptionSource("localhost-hsn0", suffixes=hosts.SUFFIXES).find({})) == [
        ("localhost-hsn0", own.slots)
    ]
