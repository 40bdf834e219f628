"""Where hosts differ: kinds, who is the odd one, versions, what is asked for in files, folding."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_multihost_env.check.contract import satisfied, unpinned
from pytest_multihost_env.check.drift import compare
from pytest_multihost_env.check.fixtures import DriftCheck, explain
from pytest_multihost_env.check.gate import failure
from pytest_multihost_env.check.grid import Line, fold, grid
from pytest_multihost_env.check.outcome import Findings, Policy, Row
from pytest_multihost_env.check.requirements import logical_lines, parse, read
from pytest_multihost_env.check.values import (
    Asked,
    Declared,
    Imported,
    Library,
    Snapshot,
    Unanswered,
    request,
    understood,
)
from pytest_multihost_env.check.versions import same, same_here
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Completed

LINUX = {"sys_platform": "linux", "python_version": "3.13", "platform_machine": "x86_64"}
PLATFORM = {"python": "3.13.1", "implementation": "cpython", "machine": "x86_64", "glibc": "glibc 2.36"}


def host(version: str | None = "2.4.6", imported: str | None = None, **changes: Any) -> Snapshot:
    """A host that has numpy in this version (None: has it not) and imports it in the same one, unless told."""
    declared = {} if version is None else {"numpy": Declared(version, files="f" * 64, location="/env/site")}
    asked = Asked(("numpy",) if version else (), ("numpy",))
    module = Imported(imported or version, "/env/site/numpy/__init__.py", distributions=asked.distributions)
    if version is None:
        module = Imported(error="ModuleNotFoundError: No module named 'numpy'")
    base = Snapshot(
        platform={**PLATFORM, "kernel": "6.1"},
        markers=LINUX,
        asked={"numpy": asked},
        declared=declared,
        modules={"numpy": module},
    )
    return dataclasses.replace(base, **changes)


def kinds(findings: Findings) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(d.kind, d.layer, d.hosts) for d in findings.differences}


def three(odd: Snapshot | Unanswered, packages: tuple[str, ...] | None = ("numpy",), **options: Any) -> Findings:
    return compare({"n1": host(), "n2": host(), "n3": odd}, packages=packages, **options)


def test_equal_hosts_pass() -> None:
    assert three(host()).passed
    assert three(host(), packages=None).passed


def test_mismatch_names_the_odd_host_and_what_the_others_have() -> None:
    findings = three(host("2.1.0"), packages=None)

    assert kinds(findings) == {("mismatch", "declared", ("n3",))}
    assert findings.sentences == ("numpy: n3 has 2.1.0, the other 2 hosts have 2.4.6",)


def test_the_majority_is_the_reference_and_the_first_host_at_a_tie() -> None:
    majority = compare({"n1": host("1"), "n2": host("2"), "n3": host("2")}, packages=None)
    tie = compare({"n1": host("1"), "n2": host("2")}, packages=None)

    assert majority.sentences == ("numpy: n1 has 1, the other 2 hosts have 2",)
    assert tie.sentences == ("numpy: n2 has 2, n1 has 1",)


def test_two_odd_values_are_two_sentences() -> None:
    findings = compare({f"n{i}": host(v) for i, v in enumerate(["1", "1", "2", "2", "2", "3"])}, packages=None)

    assert findings.sentences == ("numpy: n[0-1] have 1, 3 hosts have 2", "numpy: n5 has 3, 3 hosts have 2")


def test_missing_and_extra() -> None:
    missing = three(host(None), packages=None)
    extra = compare({"n1": host(None, declared={"pip": Declared("1")}), "n2": host(None, declared={"pip": Declared("1")}), "n3": host(declared={"pip": Declared("1"), "numpy": Declared("2")})})  # fmt: skip

    assert kinds(missing) == {("missing", "declared", ("n3",))}
    assert kinds(extra) == {("extra", "declared", ("n3",))}


def test_what_was_asked_for_by_name_is_never_extra() -> None:
    findings = compare({"n1": host(None), "n2": host(None), "n3": host()}, packages=["numpy"])

    assert ("missing", "declared", ("n1", "n2")) in kinds(findings)
    assert "extra" not in {d.kind for d in findings.differences}


def test_missing_everywhere_is_no_agreement() -> None:
    findings = compare({"n1": host(None), "n2": host(None)}, packages=["numpy"])

    assert kinds(findings) == {("missing", "imported", ("n1", "n2"))}


def test_imported_version_that_the_metadata_does_not_know() -> None:
    findings = three(host("2.4.6", "2.1.0"))

    assert ("shadowed", "imported", ("n3",)) in kinds(findings)
    assert "n3 imports 2.1.0 from /env/site/numpy/__init__.py, but its metadata says 2.4.6" in findings.sentences[-1]


def test_all_hosts_shadowed_alike_is_found() -> None:
    odd = host("2.4.6", "2.1.0")

    assert kinds(compare({"n1": odd, "n2": odd}, packages=["numpy"])) == {("shadowed", "imported", ("n1", "n2"))}


@pytest.mark.parametrize("origin", ["outside", "misplaced"])
def test_a_file_that_is_not_the_environments_is_a_shadow_unless_allowed(origin: str) -> None:
    module = Imported("2.4.6", "/home/me/numpy/__init__.py", origin=origin, distributions=("numpy",))
    odd = host(modules={"numpy": module})

    assert kinds(three(odd)) == {("shadowed", "imported", ("n3",))}
    assert three(odd, policy=Policy(outside=("/home/me",))).passed
    assert not three(odd, policy=Policy(outside=("/home/m",))).passed


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(Unanswered("no route"), "unreachable"), (Unanswered("code 1", reached=True), "not-run")],
)
def test_a_host_without_an_answer_fails(answer: Unanswered, kind: str) -> None:
    findings = three(answer)

    assert kinds(findings) == {(kind, "host", ("n3",))}
    assert not findings.passed
    assert not compare({"n1": answer}, packages=["numpy"]).passed


@pytest.mark.parametrize("part", ["asked", "modules"])
def test_a_host_that_leaves_out_what_was_asked_has_not_run_it(part: str) -> None:
    findings = three(host(**{part: {}}))

    assert {(d.kind, d.hosts) for d in findings.differences} == {("not-run", ("n3",))}


def test_findings_without_a_host_or_a_row_are_no_pass() -> None:
    row = Row("numpy", "declared", {"n1": "1"})

    assert Findings(("n1",), (row,), ()).passed
    assert not Findings((), (row,), ()).passed
    assert not Findings(("n1",), (), ()).passed


def test_nothing_to_compare_is_an_error() -> None:
    for answers, packages in (({}, None), ({"n1": host()}, []), ({"n1": host(None), "n2": host(None)}, None)):
        with pytest.raises(UsageProblem):
            compare(answers, packages=packages)


def test_same_version_with_other_files_differs() -> None:
    findings = three(host(declared={"numpy": Declared("2.4.6", files="e" * 64)}), packages=None)

    assert kinds(findings) == {("mismatch", "files", ("n3",))}


def test_commits_of_installs_from_version_control_are_compared() -> None:
    one, other = (host(declared={"numpy": Declared("2", commit=c * 40)}) for c in "ab")

    assert kinds(compare({"n1": one, "n2": one, "n3": other})) == {("mismatch", "commit", ("n3",))}


def test_loaded_libraries_are_compared_by_name_and_build() -> None:
    libraries = [(Library("nccl", "/env/libnccl.so.2", build * 8, ("numpy",)),) for build in ("a1", "a1", "b2")]
    findings = compare({f"n{i}": host(loaded=lib) for i, lib in enumerate(libraries)}, packages=["numpy"])

    assert kinds(findings) == {("mismatch", "loaded", ("n2",))}
    assert "nccl of numpy: n2 has loaded libnccl.so.2 (b2b2b2b2)" in findings.sentences[0]


def test_platform_differences_fail_or_are_noted() -> None:
    python = three(host(platform={**PLATFORM, "python": "3.13.2"}))
    kernel = three(host(platform={**PLATFORM, "kernel": "6.2"}))

    assert python.sentences == ("python (platform): n3 has 3.13.2, the other 2 hosts have 3.13.1",)
    assert kernel.passed
    assert kernel.notes == ("kernel differs: n[1-2] 6.1; n3 6.2",)
    assert three(host(platform={**PLATFORM, "python": "3.13.2"}), policy=Policy(facts=("machine",))).passed


def test_local_version_label_by_policy() -> None:
    odd = host("2.4.6+cu128")

    assert not three(odd).passed
    assert three(odd, policy=Policy(local="ignore-local")).passed
    assert not three(host("2.4.7+cu128"), policy=Policy(local="ignore-local")).passed


def test_versions() -> None:
    assert same("1.0", "1.0.0")
    assert same("1.0rc1", "1.0-rc.1")
    assert not same("1.0", "1.0+cpu")
    assert same("1.0", "1.0+cpu", "ignore-local")
    assert not same("not a version", "1.0")
    assert same_here("2.9.1", "2.9.1+cu128")
    assert not same_here("2.9.1+cpu", "2.9.1+cu128")
    assert same_here("4.9.0.80", "4.9.0")
    assert not same_here("4.9", "4.9.1")
    assert not same_here("2.1.0", "2.4.6")


def test_the_failure_shows_table_sentence_and_remedy_in_this_order() -> None:
    text = explain("drift", three(host("2.1.0")))

    table, sentence, remedy = (text.index(part) for part in ("!= 2.1.0", "numpy: n3 has 2.1.0", "remedy: provision n3"))
    assert table < sentence < remedy
    assert "n[1-2]" in text


def test_folding() -> None:
    assert fold(["n1", "n2", "n3", "x"]) == "n[1-3],x"
    assert fold(["node08", "node09", "node10", "node12"]) == "node[08-10,12]"
    assert fold(["a2.dc", "a1.dc", "a1.dc", "b1"]) == "a[1-2].dc,b1"
    assert fold(["n1", "n01"]) == "n1,n01"
    assert fold(["n7"]) == "n7"


def test_more_groups_than_fit_are_named_below_the_table() -> None:
    table = grid(("", ""), [Line(("a", "b"), {f"n{i}": str(i) for i in range(9)})], [f"n{i}" for i in range(9)])

    assert len(table.columns) == 2 + 6
    assert table.caption == "not shown here, for width: n[6-8]"


# ---- requirements --------------------------------------------------------------------------------------------------


def wants(*texts: str) -> list[Any]:
    return [parse(text, "here") for text in texts]


def test_requirements_per_host() -> None:
    findings = satisfied({"n1": host(), "n2": host("1.0"), "n3": host(None)}, wants("numpy>=2"))

    assert kinds(findings) == {("mismatch", "required", ("n2",)), ("missing", "required", ("n3",))}
    assert "numpy>=2 (here): n2 has 1.0" in findings.sentences
    assert findings.remedy.startswith("add what is required to the source that n[2-3] is provisioned from")


def test_a_requirement_for_another_platform_is_not_missing() -> None:
    mac = host(None, markers={**LINUX, "sys_platform": "darwin"})
    findings = satisfied({"n1": host(), "n2": mac}, wants("numpy>=2; sys_platform == 'linux'"))

    assert findings.passed
    assert findings.rows[0].values["n2"] == "not applicable"


def test_requirements_that_apply_nowhere_check_nothing() -> None:
    for answers, wanted in (
        ({"n1": host()}, wants("numpy; sys_platform == 'win32'")),
        ({"n1": host()}, []),
        ({}, wants("numpy")),
    ):
        with pytest.raises(UsageProblem):
            satisfied(answers, wanted)
    assert not satisfied({"n1": Unanswered("gone")}, wants("numpy; sys_platform == 'win32'")).passed


def test_a_commit_is_compared_and_a_branch_is_told() -> None:
    at = host(declared={"numpy": Declared("2", commit="abcdef0" + "1" * 33)})
    url = "numpy @ git+https://example.org/numpy.git@"

    assert satisfied({"n1": at}, wants(url + "abcdef0")).passed
    assert kinds(satisfied({"n1": at}, wants(url + "0bcdef0"))) == {("mismatch", "required", ("n1",))}
    assert len(unpinned(wants(url + "main", url + "abcdef0", "numpy"))) == 1


def test_files(special: Path) -> None:
    (special / "more.txt").write_text("rich ; python_version < '3'\n-c limits.txt\n")
    (special / "limits.txt").write_text("pip<99\n-r more.txt\n")
    main = special / "requirements.txt"
    main.write_text(
        "\ufeff# all\n--index-url https://example.org/simple\n-i https://example.org\n--pre\n"
        "numpy>=2 \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb  # why\n"
        "-r more.txt\ngit+https://example.org/x.git@main#egg=x\n",
        encoding="utf-8",
    )
    found = read(main)

    assert [(w.requirement.name, w.where, w.constraint) for w in found] == [
        ("numpy", "requirements.txt:5", False),
        ("rich", "more.txt:1", False),
        ("pip", "limits.txt:1", True),
        ("x", "requirements.txt:9", False),
    ]
    assert satisfied({"n1": host()}, [found[0], found[2]]).rows[0].values == {"n1": "2.4.6"}


def test_a_project(special: Path) -> None:
    path = special / "pyproject.toml"
    path.write_text('[project]\ndependencies = ["numpy>=2", "rich"]\n')

    assert [(str(w.requirement), w.where) for w in read(path)][1] == ("rich", "pyproject.toml: project.dependencies[1]")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("environment.yml", "dependencies: []", "not supported yet"),
        ("uv.lock", "", "cannot be checked"),
        ("pyproject.toml", "[project]", "no dependencies"),
        ("pyproject.toml", "[project", "not TOML"),
        ("a.txt", "-e .", "a.txt:1"),
        ("a.txt", "\n./here", "a.txt:2"),
        ("a.txt", "-r nosuch.txt", "nosuch.txt cannot be read"),
        ("a.txt", "-r https://example.org/r.txt", "not one local file"),
        ("a.txt", "--surprise", "a.txt:1"),
        ("a.txt", "conda:torch", "a.txt:1"),
    ],
)
def test_files_that_cannot_be_checked_say_so(name: str, text: str, told: str, special: Path) -> None:
    (special / name).write_text(text)

    with pytest.raises(UsageProblem) as problem:
        read(special / name)
    assert told in str(problem.value)
    assert problem.value.hint


def test_continuation_lines() -> None:
    text = "a \\\nb\n# no \\\nc #x\nd#y\n  # e\nf\\\n# g\nh"

    assert list(logical_lines(text)) == [(1, "a b"), (4, "c"), (5, "d#y"), (7, "f"), (9, "h")]


# ---- answers and fixtures ------------------------------------------------------------------------------------------


def answer_of(snapshot: Mapping[str, Any]) -> Completed:
    return Completed("n1", 0, json.dumps(snapshot, sort_keys=True), "")


WHOLE = {
    **{key: {} for key in ("asked", "declared", "platform", "markers", "variables", "modules")},
    "multihost_snapshot": 1,
    "loaded": [],
    "problems": [],
}


@pytest.mark.parametrize(
    "completed",
    [
        Completed("n1", None, "", "", error="gone"),
        Completed("n1", 1, "", "Traceback\nboom"),
        Completed("n1", 0, "", ""),
        Completed("n1", 0, '{"asked": {}', ""),
        Completed("n1", 0, '{"asked": {}}', ""),
        Completed("n1", -9, '{"asked": {}}', ""),
        answer_of({**WHOLE, "multihost_snapshot": 99}),
        dataclasses.replace(answer_of(WHOLE), code=1),
        dataclasses.replace(answer_of(WHOLE), error="the connection was lost"),
    ],
)
def test_only_a_whole_answer_is_one(completed: Completed) -> None:
    assert isinstance(understood(completed), Unanswered)


def test_an_import_is_good_only_in_as_many_words() -> None:
    entry = {"ok": "yes", "origin": "environment", "distributions": []}
    answer = understood(answer_of({**WHOLE, "modules": {"x": entry}}))

    assert isinstance(answer, Snapshot)
    assert answer.modules["x"].error == "no reason given"


def test_no_host_is_an_error_in_every_check() -> None:
    for check in (
        lambda: DriftCheck(lambda _: {}).assert_same(),
        lambda: DriftCheck(lambda _: {}).assert_same("numpy"),
        lambda: DriftCheck(lambda _: {}).assert_satisfies("numpy"),
        lambda: DriftCheck(lambda _: {}).assert_satisfies(),
        lambda: DriftCheck(lambda _: {}).assert_matches(),
        lambda: failure("smoke", lambda _: {}),
    ):
        with pytest.raises(UsageProblem):
            check()


def test_names_that_are_none_are_refused() -> None:
    for name in ("numpy>=2", "", "a b", "../x"):
        with pytest.raises(UsageProblem):
            DriftCheck(lambda _: {}).assert_same(name)


def test_files_are_relative_to_the_root_and_a_branch_warns(special: Path) -> None:
    (special / "r.txt").write_text("numpy @ git+https://example.org/n.git@main\n")

    with pytest.warns(UserWarning, match="not pinned"), pytest.raises(pytest.fail.Exception, match="n1 gave no answer"):
        DriftCheck(lambda _: {"n1": Completed("n1", None, "", "", error="gone")}, root=special).assert_matches("r.txt")


def test_the_gate() -> None:
    assert failure("off", lambda _: {}) == ""
    assert "gone" in failure("strict", lambda _: {"n1": Completed("n1", None, "", "", error="gone")})
    with pytest.raises(UsageProblem):
        failure("loose", lambda _: {})


def test_equal_requests_are_equal_unless_they_hide_a_secret() -> None:
    assert request(["a"]) == request(["a"])
    assert request(["a"], variables=["T"]) != request(["a"], variables=["T"])
