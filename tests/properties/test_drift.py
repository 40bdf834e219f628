"""Laws of the comparison: equal hosts never fail, and nothing else ever passes."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_multihost_env.check.contract import satisfied
from pytest_multihost_env.check.drift import compare
from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.requirements import parse
from pytest_multihost_env.check.smoke import smoke
from pytest_multihost_env.check.values import Asked, Declared, Imported, Snapshot, Unanswered
from pytest_multihost_env.check.versions import same
from pytest_multihost_env.report import text
from pytest_multihost_env.report.json import to_json
from pytest_multihost_env.table import Look

NAMES = ["numpy", "torch", "pyyaml"]
FACTS = ["python", "implementation", "machine", "glibc"]
versions = st.from_regex(r"[0-9]{1,2}\.[0-9]{1,2}(\.[0-9])?(rc1)?(\+cu12[68])?", fullmatch=True)
hosts = st.lists(st.from_regex(r"[a-z]{1,3}[0-9]{0,3}", fullmatch=True), min_size=1, max_size=6, unique=True)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A sound host: whatever it declares it imports, from where it is installed."""
    declared = draw(
        st.dictionaries(
            st.sampled_from(NAMES),
            st.builds(Declared, versions, files=st.none() | st.sampled_from(["a" * 64, "b" * 64])),
            min_size=1,
        )
    )
    return Snapshot(
        platform={fact: draw(st.sampled_from(["x", "y"])) for fact in FACTS},
        asked={name: Asked((name,), (name,)) for name in declared},
        declared=declared,
        modules={n: Imported(d.version, f"/env/{n}.py", distributions=(n,)) for n, d in declared.items()},
    )


@given(hosts, snapshots(), st.booleans())
def test_equal_hosts_never_fail(names: list[str], snapshot: Snapshot, by_name: bool) -> None:
    answers = dict.fromkeys(names, snapshot)

    assert compare(answers, packages=list(snapshot.declared) if by_name else None).passed
    assert smoke(answers, list(snapshot.declared)).passed


@given(hosts, snapshots(), st.data())
def test_a_host_without_an_answer_is_never_a_pass(names: list[str], snapshot: Snapshot, data: st.DataObject) -> None:
    dead = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    reached = data.draw(st.booleans())
    answers = {name: Unanswered("gone", reached) if name in dead else snapshot for name in names}
    asked = list(snapshot.declared)
    wants = [parse(name, "here") for name in asked]

    for findings in (
        compare(answers),
        compare(answers, packages=asked),
        smoke(answers, asked),
        satisfied(answers, wants),
    ):
        assert not findings.passed
        assert {host for d in findings.differences for host in d.hosts} == set(dead)


def changed(snapshot: Snapshot, data: st.DataObject) -> Snapshot:
    """Return the snapshot with one thing changed that every comparison by name has to see."""
    name = data.draw(st.sampled_from(sorted(snapshot.declared)))
    kind = data.draw(
        st.sampled_from(["version", "gone", "files", "fact", "import", "error", "origin", "unasked", "untried"])
    )
    dist, module = snapshot.declared[name], snapshot.modules[name]
    match kind:
        case "version":
            other = data.draw(versions)
            assume(not same(other, dist.version))
            return dataclasses.replace(
                snapshot,
                declared={**snapshot.declared, name: dataclasses.replace(dist, version=other)},
                modules={**snapshot.modules, name: dataclasses.replace(module, version=other)},
            )
        case "gone":
            rest = {n: d for n, d in snapshot.declared.items() if n != name}
            return dataclasses.replace(snapshot, declared=rest)
        case "files":
            other_files = dataclasses.replace(dist, files="c" * 64)
            return dataclasses.replace(snapshot, declared={**snapshot.declared, name: other_files})
        case "fact":
            fact = data.draw(st.sampled_from(FACTS))
            return dataclasses.replace(snapshot, platform={**snapshot.platform, fact: "z"})
        case "import":
            new = dataclasses.replace(module, version="99.99.99")
        case "error":
            new = dataclasses.replace(module, error="ImportError")
        case "origin":
            new = dataclasses.replace(module, origin=data.draw(st.sampled_from(["outside", "misplaced"])))
        case "unasked":
            return dataclasses.replace(snapshot, asked={n: a for n, a in snapshot.asked.items() if n != name})
        case _:
            return dataclasses.replace(snapshot, modules={n: m for n, m in snapshot.modules.items() if n != name})
    return dataclasses.replace(snapshot, modules={**snapshot.modules, name: new})


@given(hosts.filter(lambda names: len(names) >= 2), snapshots(), st.data())
def test_one_change_on_one_host_is_always_found(names: list[str], snapshot: Snapshot, data: st.DataObject) -> None:
    odd = data.draw(st.sampled_from(names))
    other = changed(snapshot, data)
    findings = compare({n: other if n == odd else snapshot for n in names}, packages=list(snapshot.declared))

    assert not findings.passed
    named = {host for d in findings.differences for host in d.hosts}
    # With two hosts nobody can say which is right: the first is held to be.
    assert named == {odd} if len(names) > 2 else named


@given(st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), st.just(Unanswered("gone")) | snapshots()))
def test_nothing_is_a_pass_by_accident(answers: dict[str, Snapshot | Unanswered]) -> None:
    """Whatever hosts say: a pass means that all answered and declare the same."""
    if not answers:
        with pytest.raises(Exception, match="no host"):
            compare(answers)
        return
    if compare(answers).passed:
        first, *others = answers.values()
        assert isinstance(first, Snapshot)
        for other in others:
            assert isinstance(other, Snapshot)
            assert other.declared.keys() == first.declared.keys()
            assert all(same(other.declared[n].version, d.version) for n, d in first.declared.items())


@given(st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), st.just(Unanswered("gö\x1bne")) | snapshots(), min_size=1))
def test_every_report_can_be_told_in_ascii_and_written_as_json(answers: dict[str, Snapshot | Unanswered]) -> None:
    findings = compare(answers, packages=NAMES)

    text.drift(findings, Look(encoding="ascii")).encode("ascii")
    assert json.loads(to_json(findings))["hosts"] == list(answers)
    for difference in findings.differences:
        assert difference.sentence in findings.sentences
        assert difference.hosts


def unfolded(text_: str) -> list[str]:
    from ClusterShell.NodeSet import NodeSet

    return sorted(NodeSet(text_))


@given(hosts)
def test_folding_loses_no_host(names: list[str]) -> None:
    assert unfolded(fold(names)) == sorted(names)
