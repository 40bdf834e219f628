"""What a test's outcome is, from what each rank said about it.  Pure: nothing here knows pytest or a process.

The rule: a pass needs, from every rank, a complete and ordered setup, call and teardown, all passed, then "done".
Everything else is something to report: missing is never good.  Where ranks disagree:

* one failed or missing: failed, blamed on those ranks;
* some skipped, some ran: failed, because half a test on some ranks is a test that nobody wrote;
* some failed as expected (`xfail`), the others passed: xfailed, because the test is one unit;
* some reports of a phase that other ranks never reached because the phase before failed: ignored.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping, Sequence
from typing import Literal

from pytest_multihost_env.model import RankRecord

When = Literal["setup", "call", "teardown"]
Status = Literal["passed", "failed", "skipped", "xfailed", "xpassed", "missing"]
ABANDONED = "its launcher ended the job"
"""Why a rank was lost that the launcher killed, which it does to all ranks when one of them aborts."""
PHASES: tuple[When, ...] = ("setup", "call", "teardown")
STRICT_PREFIX = "[XPASS(strict)]"


@dataclasses.dataclass(frozen=True, slots=True)
class Blame:
    """One reason why a phase is not good, and the ranks that gave it.

    Attributes:
        ranks: Ranks in ascending order.
        report: The rank's own failing report, or None when there is only `text`.
        text: What a person is told.
    """

    ranks: tuple[int, ...]
    report: Mapping[str, object] | None
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """The merged outcome of one phase and, when it is not good, who is to blame."""

    when: When
    status: Status
    blames: tuple[Blame, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The merged outcome of one test on all of its ranks."""

    phases: tuple[Phase, ...]

    @property
    def good(self) -> bool:
        """Every phase passed, or was skipped or expected to fail by all."""
        return all(phase.status in {"passed", "skipped", "xfailed", "xpassed"} for phase in self.phases)

    @property
    def clean(self) -> bool:
        """Every rank passed or skipped every phase: the gang may go on.

        An expected failure is a failure all the same: it may have left a rank in the middle of a collective.
        """
        return all(phase.status in {"passed", "skipped", "xpassed"} for phase in self.phases)


def reconcile(size: int, records: Sequence[RankRecord], *, trouble: str = "", late: Sequence[int] = ()) -> Verdict:
    """Return the outcome of one test that `size` ranks were asked to run.

    Args:
        size: Number of ranks of the test.
        records: What arrived; ranks may be missing, none may be out of range or doubled.
        trouble: Why the test was cut short (a time limit, a lost launcher), or "".
        late: The ranks that were not done then.  The look at their stacks may have set them going again, which makes
            a test late and not good.
    """
    by_rank = {record.rank: record for record in records}
    if len(by_rank) != len(records) or not set(by_rank) <= set(range(size)):
        return _refused("ranks reported that are not of this test, or one reported twice")
    ranks = [by_rank.get(rank, RankRecord(rank, "?", lost="nothing was heard of it")) for rank in range(size)]
    grids = [_statuses(record) for record in ranks]
    phases: list[Phase] = []
    for when in PHASES:
        statuses = [grid[when] for grid in grids]
        if when == "call" and phases[0].status != "passed":
            continue
        if when == "teardown" and phases[-1].status == "failed" and "missing" in statuses:
            # The phase before already says who is missing; saying it twice would make two errors of one.
            statuses = [status for status in statuses if status != "missing"] or ["passed"]
        phases.append(_phase(when, statuses, ranks, trouble))
        if phases[-1].status == "failed" and when == "setup":
            phases[-1] = _with_later(phases[-1], grids, ranks, trouble)
    verdict = Verdict(tuple(phases))
    return _too_late(verdict, trouble, late) if trouble and verdict.good else verdict


def _too_late(verdict: Verdict, trouble: str, late: Sequence[int]) -> Verdict:
    last = max(index for index, phase in enumerate(verdict.phases) if phase.when != "teardown")
    blame = Blame(tuple(late), None, f"did not finish in time: {trouble}")
    failed = Phase(verdict.phases[last].when, "failed", (blame,))
    return Verdict((*verdict.phases[:last], failed, *verdict.phases[last + 1 :]))


def _with_later(
    phase: Phase, grids: Sequence[Mapping[When, Status]], ranks: Sequence[RankRecord], trouble: str
) -> Phase:
    """Add the ranks that got through set-up and were lost in a call that is not reported, as set-up failed elsewhere."""
    lost = [record for record, grid in zip(ranks, grids, strict=True) if "missing" in (grid["call"], grid["teardown"])]
    lost = [record for record in lost if grids[record.rank]["setup"] == "passed"]
    return dataclasses.replace(phase, blames=(*phase.blames, *_fates("call", lost, trouble)))


def _statuses(record: RankRecord) -> dict[When, Status]:
    """Return the status of each phase of one rank; what breaks the order of reports counts as missing."""
    grid: dict[When, Status] = dict.fromkeys(PHASES, "missing")
    seen: list[str] = []
    for report in own_reports(record):
        when = report.get("when")
        if when not in PHASES or when in seen:
            return dict.fromkeys(PHASES, "missing")
        seen.append(str(when))
        grid[when] = _status(report)
    if not _ordered(seen, grid) or not record.done or record.exit not in {None, 0} or record.lost:
        # The last phase that was begun is the one that did not end.
        last: When = "setup" if not seen else "call" if seen == ["setup"] and grid["setup"] == "passed" else "teardown"
        if grid[last] == "passed":
            grid[last] = "missing"
    return grid


def _ordered(seen: Sequence[str], grid: Mapping[When, Status]) -> bool:
    return list(seen) == (["setup", "call", "teardown"] if grid["setup"] == "passed" else ["setup", "teardown"])


def _status(report: Mapping[str, object]) -> Status:
    outcome = report.get("outcome")
    expected = "wasxfail" in report
    if outcome == "passed":
        return "xpassed" if expected else "passed"
    if outcome == "skipped":
        return "xfailed" if expected else "skipped"
    return "failed"


def _phase(when: When, statuses: Sequence[Status], ranks: Sequence[RankRecord], trouble: str) -> Phase:
    kinds = set(statuses)
    if kinds <= {"passed"} or (len(kinds) == 1 and kinds <= {"skipped", "xfailed", "xpassed"}):
        return Phase(when, statuses[0])
    if "xfailed" in kinds and all(_expected(record, when) for record in ranks):
        return Phase(when, "xfailed")
    if kinds <= {"passed", "xpassed"}:
        return Phase(when, "xpassed")
    blames = [*_failures(when, ranks), *_missing(when, statuses, ranks, trouble)]
    if not blames:
        blames = [_disagreement(when, ranks)]
    return Phase(when, "failed", tuple(blames))


def own_reports(record: RankRecord) -> list[Mapping[str, object]]:
    """Return the reports of the test itself, without those of its subtests."""
    kinds = ("$report_type", "_report_type")  # pytest's own reports carry the one, its subtests' the other
    return [report for report in record.reports if {report.get(kind, "TestReport") for kind in kinds} == {"TestReport"}]


def _report(record: RankRecord, when: When) -> Mapping[str, object] | None:
    return next((report for report in own_reports(record) if report.get("when") == when), None)


def _expected(record: RankRecord, when: When) -> bool:
    """The rank failed as expected, or passed where a failure was expected of some rank."""
    report = _report(record, when)
    if report is None:
        return False
    if _status(report) == "failed":
        return str(report.get("longrepr", "")).startswith(STRICT_PREFIX)
    return _status(report) in {"passed", "xfailed", "xpassed"}


def _failures(when: When, ranks: Sequence[RankRecord]) -> list[Blame]:
    """Fold the ranks whose failure reads alike into one blame each, lowest rank first."""
    folded: dict[str, list[int]] = {}
    first: dict[str, Mapping[str, object]] = {}
    for record in ranks:
        report = _report(record, when)
        if report is None or _status(report) != "failed":
            continue
        key = crash_line(report)
        folded.setdefault(key, []).append(record.rank)
        first.setdefault(key, report)
    return [Blame(tuple(numbers), first[key], key) for key, numbers in folded.items()]


def crash_line(report: Mapping[str, object]) -> str:
    """Return `path:line: message` of a failing report, or its text."""
    longrepr = report.get("longrepr")
    if isinstance(longrepr, Mapping):
        crash = longrepr.get("reprcrash")
        if isinstance(crash, Mapping):
            return f"{crash.get('path')}:{crash.get('lineno')}: {crash.get('message')}"
    return str(longrepr)


def _missing(when: When, statuses: Sequence[Status], ranks: Sequence[RankRecord], trouble: str) -> list[Blame]:
    if len(statuses) != len(ranks):
        return []
    missing = [record for record, status in zip(ranks, statuses, strict=True) if status == "missing"]
    return _fates(when, missing, trouble)


def _fates(when: When, ranks: Sequence[RankRecord], trouble: str) -> list[Blame]:
    """Fold the ranks that ended in the same way into one blame each."""
    folded: dict[str, list[int]] = {}
    for record in ranks:
        folded.setdefault(fate(record, when, trouble), []).append(record.rank)
    # When one rank aborts, launchers end the others: they are not who a person looks for first.
    texts = sorted(folded, key=lambda text: ABANDONED in text)
    return [Blame(tuple(folded[text]), None, text) for text in texts]


def fate(record: RankRecord, when: When, trouble: str = "") -> str:
    """Return what became of a rank that did not finish `when`."""
    if record.lost == ABANDONED:
        return f"ended during {when}: {ABANDONED}"
    if record.exit is not None and record.exit < 0:
        try:
            name = signal.Signals(-record.exit).name
        except ValueError:
            name = f"signal {-record.exit}"
        return f"killed by {name} during {when}"
    if record.exit is not None:
        return f"exited with code {record.exit} during {when}, before it had finished the test"
    if record.lost:
        return f"lost during {when}: {record.lost}"
    if trouble:
        return f"did not finish {when}: {trouble}"
    if record.done:
        return f"said that it was done, but its report of {when} never came"
    return f"did not finish {when}"


def _disagreement(when: When, ranks: Sequence[RankRecord]) -> Blame:
    groups: dict[str, list[int]] = {}
    for record in ranks:
        report = _report(record, when)
        groups.setdefault(_status(report) if report else "missing", []).append(record.rank)
    said = ", ".join(f"{ranks_text(numbers)} {status}" for status, numbers in groups.items())
    fewest = min(groups.values(), key=len)
    return Blame(tuple(fewest), None, f"the ranks disagree in {when}: {said}")


def _refused(why: str) -> Verdict:
    return Verdict((Phase("setup", "failed", (Blame((), None, why),)), Phase("teardown", "passed")))


def ranks_text(ranks: Sequence[int]) -> str:
    """Return `rank 2` or `ranks 0-3,7`."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    return f"rank {text}" if len(ranks) == 1 else f"ranks {text}"
