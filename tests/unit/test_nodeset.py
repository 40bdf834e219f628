"""Node sets: what the user types, and what Slurm says."""

from __future__ import annotations

import pytest

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts import OptionSource, SlurmSource, fold
from pytest_multihost_env.model import Host


def named(text: str) -> list[tuple[str, int]]:
    return [(host.name, host.slots) for host in OptionSource(text).find({}).hosts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1,n2", [("n1", 1), ("n2", 1)]),
        ("node[01-03]:8,gpu1:4", [("node01", 8), ("node02", 8), ("node03", 8), ("gpu1", 4)]),
        ("n[09-11]", [("n09", 1), ("n10", 1), ("n11", 1)]),
        ("n[3,1-2]:2", [("n3", 2), ("n1", 2), ("n2", 2)]),
        ("b2,a1", [("b2", 1), ("a1", 1)]),
        ("r[1-2]n[1-2]", [("r1n1", 1), ("r1n2", 1), ("r2n1", 1), ("r2n2", 1)]),
        ("n[1-2]-ib.example.org:3", [("n1-ib.example.org", 3), ("n2-ib.example.org", 3)]),
        ("a.x.org,a.y.org", [("a.x.org", 1), ("a.y.org", 1)]),
        (" n1 ", [("n1", 1)]),
        ("n[08-10,9]x[1-2].y:2", [(f"n{a}x{b}.y", 2) for a in ("08", "09", "10", "9") for b in (1, 2)]),
        ("n[098-101]", [("n098", 1), ("n099", 1), ("n100", 1), ("n101", 1)]),
        ("n[98-101]", [("n98", 1), ("n99", 1), ("n100", 1), ("n101", 1)]),
        ("n[09-101]", [(f"n{number:02}", 1) for number in range(9, 102)]),
        ("n[1-10000]:4", [(f"n{number}", 4) for number in range(1, 10001)]),
    ],
)
def test_a_set_of_hosts(text: str, expected: list[tuple[str, int]]) -> None:
    assert named(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "item 1 of '' is empty"),
        ("n1,", "item 2 of 'n1,' is empty"),
        ("n1,,n2", "item 2 of"),
        (":4", "'' is not a host name"),
        ("-n1", "'-n1' is not a host name"),
        ("n1,-oProxyCommand=x", "'-oProxyCommand=x' is not a host name"),
        ("n1:0", "slots of 'n1:0'"),
        ("n1:-2", "slots of 'n1:-2'"),
        ("n1:two", "slots of 'n1:two'"),
        ("n1:", "slots of 'n1:'"),
        ("n1:²", "slots of 'n1:²'"),
        ("n1:9999999", "slots of"),
        ("n1:99999999999999999999999", "slots of"),
        ("n1, n2", "contains a blank"),
        ("n 1", "contains a blank"),
        ("n[1-2", "brackets of 'n[1-2' do not match"),
        ("n1-2]", "do not match"),
        ("n[[1]]", "do not match"),
        ("n[]", "[] in 'n[]'"),
        ("n[a-b]", "[a-b] in 'n[a-b]'"),
        ("n[4-1]", "[4-1] in"),
        ("n[1-99999]", "more than 65536"),
        ("n[1-999]m[1-999]", "'n[1-999]m[1-999]' names more than 65536"),
        ("@all", "'@all' is not a host name"),
        ("n*", "'n*' is not a host name"),
        ("n1!n2", "'n1!n2' is not a host name"),
        ("$(id)", "'$(id)' is not a host name"),
        ("n1,n1", "n1 names the same machine as n1"),
        ("n[1-3],n2", "n2 names the same machine as n2"),
        ("n1,n1.example.org:2", "n1.example.org names the same machine as n1"),
        ("n[1-65536],m[1-65536]", "more than 65536 hosts"),
        ("n[1-65536]:2,m[1-65536]:2", "more than 65536 hosts"),
        ("n[1-1000000000]", "is not a number or a rising range"),
        ("fe80::1", "'fe80::1' is no host with slots"),
        ("[fe80::1]:2", "'[fe80::1]:2' is no host with slots"),
        ("n1:2:3", "'n1:2:3' is no host with slots"),
        ("n[1-2]]", "do not match"),
        ("n][", "do not match"),
        ("n[1,]", "[] in 'n[1,]'"),
        ("n[-1]", "[-1] in 'n[-1]'"),
        ("n[1--2]", "[1--2] in"),
        ("n[٣-٤]", "is not a host name or a node set"),
        ("ñ", "'ñ' is not a host name"),
        ("n1\x00", "is not a host name"),
        ("n[1-2\n]", "contains a blank"),
    ],
)
def test_a_set_that_is_none_names_the_item(text: str, words: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        OptionSource(text, "variable MULTIHOST_ENV_HOSTS").find({})
    assert words in caught.value.what
    assert caught.value.where == "variable MULTIHOST_ENV_HOSTS"


@pytest.mark.parametrize(
    ("hosts", "items"),
    [
        ([("n1", 2), ("n2", 2), ("n3", 1)], ["n[1-2]:2", "n3:1"]),
        ([("n2", 1), ("n1", 1)], ["n2:1", "n1:1"]),
        ([("n1", 1), ("n3", 1), ("n2", 2)], ["n[1,3]:1", "n2:2"]),
        ([("n09", 1), ("n10", 1)], ["n[09-10]:1"]),
        ([("n1.x.org", 1), ("n2.x.org", 1)], ["n[1-2].x.org:1"]),
        ([("localhost", 16)], ["localhost:16"]),
        ([], []),
    ],
)
def test_hosts_are_folded_in_their_order(hosts: list[tuple[str, int]], items: list[str]) -> None:
    assert fold(Host(name, slots) for name, slots in hosts) == items


def test_a_node_set_is_named_short_in_an_error() -> None:
    with pytest.raises(UsageProblem) as caught:
        named("n[" + ",".join(map(str, range(100_000))) + "],n[")
    assert len(str(caught.value)) < 500


def slurm(nodes: str, **variables: str) -> list[tuple[str, int]]:
    allocation = SlurmSource().find({"SLURM_JOB_NODELIST": nodes, **variables})
    assert allocation is not None
    return [(host.name, host.slots) for host in allocation.hosts]


def test_outside_of_slurm_there_is_nothing_to_say() -> None:
    assert SlurmSource().find({"SLURM_CONF": "/etc/slurm.conf"}) is None


@pytest.mark.parametrize(
    ("nodes", "variables", "expected"),
    [
        ("n[01-03,07]", {}, [("n01", 1), ("n02", 1), ("n03", 1), ("n07", 1)]),
        ("n[1-3]", {"SLURM_TASKS_PER_NODE": "2(x2),1"}, [("n1", 2), ("n2", 2), ("n3", 1)]),
        ("b,a", {"SLURM_TASKS_PER_NODE": "4,2"}, [("b", 4), ("a", 2)]),
        ("n[1-2]", {"SLURM_JOB_CPUS_PER_NODE": "64(x2)"}, [("n1", 64), ("n2", 64)]),
        ("n1", {"SLURM_TASKS_PER_NODE": "2", "SLURM_JOB_CPUS_PER_NODE": "64"}, [("n1", 2)]),
        (
            "n[1-3]",
            {"SLURM_TASKS_PER_NODE": "2(x3),1", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1"},
            [("n1", 1), ("n2", 1), ("n3", 1)],
        ),
        (
            "n[1-3]",
            {"SLURM_TASKS_PER_NODE": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_JOB_CPUS_PER_NODE": "4(x3)"},
            [("n1", 4), ("n2", 4), ("n3", 4)],
        ),
        ("n1,n1", {}, [("n1", 1), ("n1", 1)]),
        ("a[1-2],b-[01-02]-x,c", {}, [("a1", 1), ("a2", 1), ("b-01-x", 1), ("b-02-x", 1), ("c", 1)]),
    ],
)
def test_a_slurm_job(nodes: str, variables: dict[str, str], expected: list[tuple[str, int]]) -> None:
    assert slurm(nodes, **variables) == expected


def test_the_old_name_of_the_node_list() -> None:
    allocation = SlurmSource().find({"SLURM_NODELIST": "n1"})
    assert allocation is not None
    assert allocation.names == ("n1",)


HET = {
    "SLURM_JOB_ID": "11",
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_NODELIST_HET_GROUP_0": "n1",
    "SLURM_TASKS_PER_NODE_HET_GROUP_0": "1",
    "SLURM_JOB_NODELIST_HET_GROUP_1": "gpu[1-2]",
    "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1": "8(x2)",
}


@pytest.mark.parametrize("also", [{}, {"SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "1"}], ids=["", "leader"])
def test_a_heterogeneous_job_has_the_hosts_of_all_components(also: dict[str, str]) -> None:
    for environ in ({**HET, **also}, {name: text for name, text in (HET | also).items() if name != "SLURM_HET_SIZE"}):
        allocation = SlurmSource().find(environ)
        assert allocation is not None
        found = [(host.name, host.slots, host.where) for host in allocation.hosts]
        assert found == [
            ("n1", 1, "SLURM_JOB_NODELIST_HET_GROUP_0"),
            ("gpu1", 8, "SLURM_JOB_NODELIST_HET_GROUP_1"),
            ("gpu2", 8, "SLURM_JOB_NODELIST_HET_GROUP_1"),
        ]


@pytest.mark.parametrize(
    ("environ", "where"),
    [
        ({"SLURM_JOB_ID": "7"}, "SLURM_JOB_NODELIST"),
        ({"SLURM_JOB_NODELIST": "n[1-"}, "SLURM_JOB_NODELIST"),
        ({"SLURM_JOB_NODELIST": "n1 n2"}, "SLURM_JOB_NODELIST"),
        ({"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "2"}, "SLURM_TASKS_PER_NODE"),
        ({"SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "2(x2)"}, "SLURM_TASKS_PER_NODE"),
        ({"SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "two"}, "SLURM_TASKS_PER_NODE"),
        ({"SLURM_JOB_NODELIST": "n1", "SLURM_JOB_CPUS_PER_NODE": "0"}, "SLURM_JOB_CPUS_PER_NODE"),
        ({"SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "1(x9999999)"}, "SLURM_TASKS_PER_NODE"),
        ({"SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "1(x65536),1(x65536)"}, "SLURM_TASKS_PER_NODE"),
        ({"SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "٣"}, "SLURM_TASKS_PER_NODE"),
        ({**HET, "SLURM_HET_SIZE": "3"}, "SLURM_JOB_NODELIST_HET_GROUP_2"),
        ({**HET, "SLURM_HET_SIZE": "two"}, "SLURM_HET_SIZE"),
        ({**HET, "SLURM_HET_SIZE": "0"}, "SLURM_HET_SIZE"),
        ({**HET, "SLURM_JOB_NODELIST_HET_GROUP_1": "n["}, "SLURM_JOB_NODELIST_HET_GROUP_1"),
        ({**HET, "SLURM_TASKS_PER_NODE_HET_GROUP_1": "1"}, "SLURM_TASKS_PER_NODE_HET_GROUP_1"),
    ],
)
def test_a_slurm_job_that_cannot_be_read_is_never_one_host(environ: dict[str, str], where: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        SlurmSource().find(environ)
    assert caught.value.where == where
