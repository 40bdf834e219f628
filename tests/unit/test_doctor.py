"""What the doctor makes of what hosts say: verdicts, who is to blame, the table, the record for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_multihost_env.check.doctor import examine
from pytest_multihost_env.check.doctor.case import Case
from pytest_multihost_env.check.doctor.finding import Report
from pytest_multihost_env.check.storage import far, figures, locks, rounds, sight, trials
from pytest_multihost_env.check.storage.judge import judge
from pytest_multihost_env.check.storage.rounds import Measured, measure
from pytest_multihost_env.check.storage.rules import EXTRAS, LOCKS, RULES, SIGHTS
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.model import Completed
from pytest_multihost_env.report import text
from pytest_multihost_env.report.json import plain

HOSTS = ("n1", "n2", "n3")
GOOD: dict[str, Any] = {
    "uid": 1000,
    "owner": 1000,
    "group": 100,
    "directory": "/scratch/team",
    "mount": {"point": "/scratch", "kind": "lustre", "source": "mgs:/fs", "options": ["rw", "flock"]},
    "space": {"bytes": 10 << 40, "all_bytes": 20 << 40, "files": 10**8, "all_files": 10**9},
    "trials": {
        "exclusive": "refuses",
        "link": "refuses",
        "symlink": "refuses",
        "replace": "yes",
        "rename_over": "refuses",
        "execute": "yes",
        "modes": "yes",
        "exchange": "no: EINVAL",
        "reflink": "no: EOPNOTSUPP",
        "copy_range": "yes",
    },
    "latency": {"create": 210.0, "stat": 3.0, "unlink": 150.0},
}


def others(host: str) -> list[str]:
    return [name for name in HOSTS if name != host]


def measured(**more: Any) -> Measured:
    """Return what good storage gives, but for what is said."""
    found = Measured(
        directory=Path("/scratch/team"),
        patience=5.0,
        hosts=HOSTS,
        alone=changed(""),
        met={host: dict.fromkeys(others(host), 1000) for host in HOSTS},
        locks={
            host: {host: dict.fromkeys(LOCKS, locks.HELD)}
            | {maker: dict.fromkeys(LOCKS, locks.REFUSED) for maker in others(host)}
            for host in HOSTS
        },
        seen={host: {maker: dict.fromkeys(SIGHTS, 0.0) for maker in others(host)} for host in HOSTS},
        name=".multihost-fs-x",
    )
    return dataclasses.replace(found, **more)


def changed(host: str, **more: Any) -> dict[str, Any]:
    return {name: GOOD | {"machine": name} | (more if name == host else {}) for name in HOSTS}


def trial(host: str, **outcomes: str) -> dict[str, Any]:
    return changed(host, trials=GOOD["trials"] | outcomes)


def bad(report: Report) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {one.subject: (one.verdict, one.odd) for one in report.findings if one.verdict != "ok"}


def test_good_storage_is_good() -> None:
    report = judge(measured())
    assert bad(report) == {}
    assert (report.verdict, report.code, report.complaints) == ("ok", 0, ())
    assert report.summary == "publish-once works at /scratch/team: n[1-3] can share an environment there"
    assert report.table.columns == ("", "", "n[1-3]")


def test_hosts_that_differ_have_rows_of_their_own() -> None:
    report = judge(measured(alone=trial("n2", execute="cannot: EACCES")))
    assert report.table.columns == ("", "", "n[1-3]", "")
    texts = [tuple(cell if isinstance(cell, str) else cell.text for cell in row) for row in report.table.rows]
    at = texts.index(("ERROR", "programs run from here", "cannot: EACCES", "n2"))
    assert texts[at + 1] == ("ok", "", "yes", "n[1,3]")
    assert [row[3] for row in texts].count("") == len(texts) - 2


def test_every_trial_and_every_look_is_judged_once() -> None:
    subjects = [one.subject for one in judge(measured()).findings]
    assert len(set(subjects)) == len(subjects)
    asked = {rule.trial for rule in (*RULES, *EXTRAS)} | {"link", "symlink"}
    assert asked == set(trials.TRIALS) == set(GOOD["trials"])
    assert set(sight.LOOKS) == set(SIGHTS)
    assert set(locks.KINDS) == set(LOCKS)
    assert asked | set(SIGHTS) | set(LOCKS) <= set(subjects)


@pytest.mark.parametrize(
    ("outcomes", "found"),
    [
        ({"link": "cannot: EPERM"}, {"link": "warning"}),
        ({"link": "cannot: EPERM", "symlink": "cannot: EPERM"}, {"link": "error", "symlink": "error"}),
        ({"symlink": "cannot: EPERM"}, {"symlink": "error"}),
        ({"symlink": "accepts"}, {"symlink": "warning"}),
        ({"link": "accepts"}, {"link": "error"}),
        ({"link": "cannot: EPERM", "symlink": "accepts"}, {"link": "error", "symlink": "error"}),
        ({"exclusive": "accepts"}, {"exclusive": "error"}),
        ({"execute": "cannot: EACCES"}, {"execute": "error"}),
        ({"replace": "no"}, {"replace": "error"}),
        ({"rename_over": "replaces"}, {"rename_over": "warning"}),
        ({"modes": "no: 640 became 777"}, {"modes": "warning"}),
        ({"exchange": "yes", "reflink": "yes", "copy_range": "no: EINVAL"}, {}),
    ],
)
def test_an_outcome_on_one_host_is_its_own(outcomes: dict[str, str], found: dict[str, str]) -> None:
    report = judge(measured(alone=trial("n2", **outcomes)))
    assert bad(report) == {subject: (verdict, ("n2",)) for subject, verdict in found.items()}
    assert report.code == (1 if "error" in found.values() else 0)
    for one in report.complaints:
        assert "n2" in one.sentence
        assert one.remedy


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"owner": 65534, "uid": 0}, {"owner": "error"}),
        ({"space": GOOD["space"] | {"bytes": 1 << 20}}, {"space": "warning"}),
        ({"space": GOOD["space"] | {"files": 10}}, {"space": "warning"}),
        ({"space": GOOD["space"] | {"files": 0, "all_files": 0}}, {}),
        ({"latency": {"create": 9000.0, "stat": 3.0, "unlink": 150.0}}, {"latency": "warning"}),
        ({"problem": {"errno": "EROFS", "says": "Read-only file system", "path": "/x"}}, {"usable": "error"}),
    ],
)
def test_a_figure_of_one_host_is_its_own(more: dict[str, Any], found: dict[str, str]) -> None:
    report = judge(measured(alone=changed("n2", **more)))
    mine = {subject: pair for subject, pair in bad(report).items() if subject != "owners"}
    assert mine == {subject: (verdict, ("n2",)) for subject, verdict in found.items()}


def test_root_squash_is_called_by_its_name() -> None:
    report = judge(measured(alone={host: GOOD | {"machine": host, "uid": 0, "owner": 65534} for host in HOSTS}))
    owner = next(one for one in report.complaints if one.subject == "owner")
    assert "root squash" in owner.sentence
    assert owner.remedy == "run as an ordinary user"


@pytest.mark.parametrize(
    ("blind", "odd"),
    [
        ([("n3", "n1"), ("n3", "n2"), ("n1", "n3"), ("n2", "n3")], {"n3": "another than on n[1-2]"}),
        ([("n2", "n1")], {"n2": "does not list n1"}),
        (
            [(one, other) for one in HOSTS for other in others(one)],
            {"n2": "another than on n1", "n3": "another than on n1"},
        ),
    ],
    ids=["one apart", "one slow", "all apart"],
)
def test_whose_directory_is_another_one(blind: list[tuple[str, str]], odd: dict[str, str]) -> None:
    met = {host: {m: None if (host, m) in blind else 1000 for m in others(host)} for host in HOSTS}
    report = judge(measured(met=met))
    same = next(one for one in report.findings if one.subject == "same")
    assert same.odd == tuple(odd)
    assert {host: same.answers[host] for host in odd} == odd
    assert report.code == 1


@pytest.mark.parametrize(
    ("kind", "seconds", "verdict", "answer"),
    [
        ("listing", 0.01, "ok", "at once"),
        ("listing", 0.4, "ok", "after 0.4 s"),
        ("listing", 3.2, "warning", "after 3 s"),
        ("listing", None, "error", "not within 5 s"),
        ("asked", None, "warning", "not within 5 s"),
        ("content", 2.0, "warning", "after 2 s"),
    ],
)
def test_how_late_is_too_late(kind: str, seconds: float | None, verdict: str, answer: str) -> None:
    found = measured()
    sights = {name: value for name, value in dict.fromkeys(SIGHTS, 0.0).items() if name != kind}
    if seconds is not None:
        sights[kind] = seconds
    report = judge(dataclasses.replace(found, seen={**found.seen, "n2": {"n1": sights, "n3": found.seen["n2"]["n3"]}}))
    assert bad(report) == ({} if verdict == "ok" else {kind: (verdict, ("n2",))})
    assert next(one for one in report.findings if one.subject == kind).answers["n2"] == answer


@pytest.mark.parametrize(
    ("own", "tried", "answer"),
    [
        ("ENOLCK", {}, "fails: ENOLCK"),
        ("ENOSYS", {"n1": "ENOSYS", "n3": "ENOSYS"}, "fails: ENOSYS"),
        (locks.HELD, {"n1": locks.GRANTED, "n3": locks.GRANTED}, "local to each host"),
        (locks.HELD, {"n1": locks.GRANTED, "n3": locks.REFUSED}, "not shared with n1"),
        (locks.HELD, {"n1": locks.REFUSED, "n3": "EIO"}, "fails: EIO"),
    ],
)
def test_whose_lock_keeps_nobody_out(own: str, tried: dict[str, str], answer: str) -> None:
    found = measured()
    mine = {"n2": {"flock": own}} | {maker: {"flock": outcome} for maker, outcome in tried.items()}
    shared = {host: {name: {"flock": v["flock"]} for name, v in found.locks[host].items()} for host in HOSTS}
    report = judge(dataclasses.replace(found, locks=shared | {"n2": mine}))
    flock = next(one for one in report.findings if one.subject == "flock")
    assert (flock.verdict, flock.odd, flock.answers["n2"]) == ("warning", ("n2",), answer)
    assert "nothing of ours relies on it, but uv, pip" in flock.sentence
    assert flock.remedy.startswith("mount Lustre with `flock`")


def test_files_of_another_user_are_an_error() -> None:
    found = measured()
    report = judge(dataclasses.replace(found, met={**found.met, "n3": {"n1": 65534, "n2": 65534}}))
    assert bad(report) == {"owners": ("error", ("n3",))}
    assert next(one for one in report.findings if one.subject == "owners").answers["n3"] == "uid 65534, not 1000"


def test_silent_hosts_are_an_error_of_their_own() -> None:
    report = judge(measured(silent={"n3": "gave no answer within 35 s"}))
    assert (report.code, bad(report)["reachable"]) == (4, ("error", ("n3",)))
    assert "n3 gave no answer within 35 s" in report.complaints[0].sentence
    nobody = judge(Measured(Path("/x"), 5.0, HOSTS, silent=dict.fromkeys(HOSTS, "no route")))
    assert (nobody.code, nobody.verdict) == (4, "error")
    assert nobody.summary == "nothing is known of /x: no host answered"


def test_a_host_that_fell_silent_is_told_from_one_that_is_gone() -> None:
    report = judge(measured(silent={"n2": "gave no answer within 25 s", "n3": "no route to host"}))
    answering = next(one for one in report.findings if one.subject == "reachable")
    assert answering.sentence == (
        "n2 gave no answer within 25 s: the file system may hang there; n3 cannot be asked: no route to host"
    )
    assert "`ls /scratch/team` hangs on n2" in answering.remedy
    assert report.summary.endswith("on n1; of n[2-3] nothing is known")


def test_two_names_of_one_machine_are_told() -> None:
    report = judge(measured(alone=changed("n3", machine="n1")))
    assert bad(report) == {"machine": ("warning", ("n3",))}
    assert report.complaints[0].sentence.startswith("n3 is another name")
    assert next(one for one in report.findings if one.subject == "machine").answers["n3"] == "the same as n1"


def test_one_problem_of_several_hosts_is_told_once() -> None:
    denied = {"problem": {"errno": "EACCES", "says": "Permission denied", "path": "/scratch/team/x"}}
    lost = {"problem": {"errno": "ENOENT", "says": "No such file or directory", "path": "/scratch/team/x"}}
    report = judge(
        measured(
            alone={
                host: GOOD | {"machine": host} | problem
                for host, problem in zip(HOSTS, (denied, denied, lost), strict=True)
            }
        )
    )
    usable = next(one for one in report.complaints if one.subject == "usable")
    assert usable.sentence == (
        "/scratch/team cannot be used: Permission denied on n[1-2]; No such file or directory on n3"
    )
    assert "on n[1-2], give this user the right" in usable.remedy
    assert "on n3, choose a directory on another file system" in usable.remedy


def test_one_host_alone_is_told_what_was_not_measured() -> None:
    report = judge(Measured(Path("/x"), 5.0, ("n1",), alone={"n1": GOOD}))
    assert report.code == 0
    assert report.summary.endswith("name the hosts of the job with --multihost-hosts")
    assert not {"flock", "listing", "same"} & {one.subject for one in report.findings}


def test_what_could_not_be_taken_away_is_named() -> None:
    report = judge(measured(left=("n1",)))
    assert bad(report) == {"left": ("warning", ("n1",))}
    assert report.complaints[0].remedy == "remove it: rm -r /scratch/team/.multihost-fs-x"


def test_text_has_each_complaint_once_with_its_remedy() -> None:
    report = judge(measured(alone=trial("n2", link="cannot: EPERM", symlink="cannot: EPERM", modes="no")))
    shown = text.examined(report)
    assert shown.count("nothing can be published once from n2: no symlink can be made there (EPERM)") == 1
    assert shown.index("error: ") < shown.index("warning: ")
    assert shown.count("remedy: ") == 2
    assert shown.splitlines()[-1] == ("/scratch/team is NOT good enough for an environment that n[1-3] share: 2 errors")
    assert all(len(line) <= 100 for line in shown.splitlines())


def shape(value: object) -> object:
    """Return the kinds of what is in a record, so that two records of one schema are equal."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_the_record_for_machines_keeps_its_schema() -> None:
    """Others read it: a change here wants a line in the changelog."""
    report = judge(measured(alone=trial("n2", link="cannot: EPERM")))
    snapshot = Path(__file__).with_name("doctor-schema.json")
    found = shape(plain({"finding": report.complaints[0], "measured": measured()}))
    assert found == json.loads(snapshot.read_text())
    assert [one.subject for one in report.findings] == [
        "reachable", "machine", "usable", "same", "mount", "space", "owner", "latency", "link", "symlink", "exclusive", "replace",
        "rename_over", "execute", "modes", "listing", "fresh", "asked", "content", "mtime", "flock", "posix", "ofd",
        "owners", "exchange", "reflink", "copy_range",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0.04, "0.0"),
        (2.54, "2.5"),
        (9.96, "10"),
        (99.6, "100"),
        (1234, "1,200"),
        (34_567_890, "35 M"),
        (2.51e9, "2.5 G"),
    ],
)
def test_two_digits_are_shown(number: float, said: str) -> None:
    assert figures._number(number) == said


# -- the far end, without a job ------------------------------------------------------------------------------------


class Local:
    """Hosts that are visitors in this process, on one directory; `deaf` ones answer so many questions and no more."""

    def __init__(self, hosts: Sequence[str], deaf: Mapping[str, int]) -> None:
        self.silent: dict[str, str] = {}
        self._visitors = {host: far.Visitor() for host in hosts}
        self._deaf = dict(deaf)

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(host for host in self._visitors if host not in self.silent)

    def ask(self, questions: Mapping[str, Mapping[str, object]], timeout: float) -> dict[str, dict[str, Any]]:
        answers = {}
        for host, question in questions.items():
            if self._deaf.get(host) == 0:
                self.silent[host] = f"gave no answer within {timeout:g} s"
                continue
            self._deaf[host] = self._deaf.get(host, 99) - 1
            answers[host] = far.answer(self._visitors[host], question)
        return answers


@pytest.fixture
def unattended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the second process, which would outlive the test by a moment."""
    monkeypatch.setattr(far, "attend", lambda work, mine: -1)


# The visitors of one process take turns in one thread, so nobody can wait for another: all begin before any meets.
def test_all_rounds_on_one_real_directory(special: Path, unattended: None) -> None:
    found = measure(Local(HOSTS, {}), HOSTS, special, patience=0.5)
    assert list(special.iterdir()) == []
    assert found.left == ()
    assert found.met.keys() == found.seen.keys() == found.locks.keys() == set(HOSTS)
    assert judge(found).findings
    # In one process a POSIX lock keeps nobody out; the two others belong to an open file.
    assert {locks_["n1"]["flock"] for host, locks_ in found.locks.items() if host != "n1"} == {"refused"}
    assert {locks_["n1"]["ofd"] for host, locks_ in found.locks.items() if host != "n1"} == {"refused"}


@pytest.mark.parametrize("answers", range(9))
def test_a_host_that_falls_silent_at_any_step_is_named_and_its_part_is_taken_away(
    answers: int, special: Path, unattended: None
) -> None:
    found = measure(Local(HOSTS, {"n2": answers}), HOSTS, special, patience=0.3)
    assert list(special.iterdir()) == []
    report = judge(found)
    if answers < 8:
        assert bad(report)["reachable"] == ("error", ("n2",))
        assert report.code == 4


def test_each_host_looks_at_its_next_neighbours() -> None:
    hosts = tuple(f"n{number}" for number in range(64))
    assert rounds._next(hosts, "n62") == ["n63", "n0", "n1", "n2", "n3", "n4", "n5", "n6"]
    assert rounds._next(("n1", "n2"), "n2") == ["n1"]


# -- without --fs --------------------------------------------------------------------------------------------------


def case(tmp_path: Path, **more: Any) -> Case:
    good = Completed("n1", 0, "3.11.7\n", "")
    fields = {
        "hosts": HOSTS,
        "target": tmp_path / "deep" / "python_env",
        "python": Path("/x/bin/python"),
        "launcher": lambda: "ssh 9.2",
        "run": lambda argv: dict.fromkeys(HOSTS, good),
        "distrusted": lambda path: None,
    }
    return Case(**{**fields, **more})


def test_a_good_job_is_called_good(tmp_path: Path) -> None:
    report = examine(case(tmp_path))
    assert (bad(report), report.code) == ({}, 0)
    assert [one.subject for one in report.findings] == ["target", "trusted", "launcher", "reachable", "python"]
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_would_not_be_run_is_told_before_anything_is_made(tmp_path: Path) -> None:
    problem = NotReady("/x will not be run: / belongs to uid 7", hint="move")
    report = examine(case(tmp_path, distrusted=lambda path: problem if path == tmp_path else None))
    assert (bad(report), report.code) == ({"trusted": ("error", HOSTS)}, 1)
    assert (report.complaints[0].sentence, report.complaints[0].remedy) == (problem.what, "move")


def test_without_a_launcher_nobody_is_asked(tmp_path: Path) -> None:
    def none() -> str:
        raise UsageProblem("no launcher is available for these hosts", hint="install one")

    report = examine(case(tmp_path, launcher=none, run=lambda argv: pytest.fail("asked")))
    assert bad(report) == {"launcher": ("error", HOSTS)}
    assert report.complaints[0].remedy == "install one"


@pytest.mark.parametrize(
    ("answer", "code", "found"),
    [
        (Completed("n2", None, "", "", error="no route\nto host"), 4, {"reachable": ("error", ("n2",))}),
        (Completed("n2", 1, "", "x\nno such module"), 4, {"reachable": ("error", ("n2",))}),
        (Completed("n2", 0, "3.12.1\n", ""), 1, {"python": ("error", ("n2",))}),
    ],
)
def test_the_odd_host_is_named(
    answer: Completed, code: int, found: dict[str, tuple[str, tuple[str, ...]]], tmp_path: Path
) -> None:
    good = Completed("n1", 0, "3.11.7\n", "")
    report = examine(case(tmp_path, run=lambda argv: {"n1": good, "n2": answer, "n3": good}))
    assert (bad(report), report.code) == (found, code)
    assert "n2" in report.complaints[0].sentence
