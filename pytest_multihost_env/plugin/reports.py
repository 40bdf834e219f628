"""One test, many ranks, one report for each phase: the verdict in the form that pytest, JUnit and IDEs know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_multihost_env.gang.gang import Run
from pytest_multihost_env.gang.reconcile import Blame, Phase, Verdict, own_reports, ranks_text
from pytest_multihost_env.gang.stacks import shorten_crash
from pytest_multihost_env.model import RankRecord

SAID = "the launcher said"


def merge(item: pytest.Item, run: Run, verdict: Verdict, launcher: Mapping[str, str]) -> dict[str, pytest.TestReport]:
    """Return a report for each phase of the verdict, by its name.

    Args:
        item: The test.
        run: What its ranks said.
        verdict: What it comes to.
        launcher: Its last words and its command, by title; shown with a failure, and the words only when a rank was
            lost, since then only the launcher may know why.
    """
    merged: dict[str, pytest.TestReport] = {phase.when: _merge(item, run, phase) for phase in verdict.phases}
    died = any(record.lost or record.exit is not None for record in run.records)
    failed = next((report for report in merged.values() if report.outcome == "failed"), None)
    if failed is not None:
        shown = {title: text.strip() for title, text in launcher.items() if died or title != SAID}
        failed.sections += [(title, text) for title, text in shown.items() if text]
    return merged


def broken(item: pytest.Item, text: str) -> dict[str, pytest.TestReport]:
    """Return the reports of a test whose ranks could not be started."""
    setup = _bare(item, "setup")
    setup.outcome = "failed"
    setup.longrepr = text
    return {"setup": setup, "teardown": _bare(item, "teardown")}


def _bare(item: pytest.Item, when: str) -> pytest.TestReport:
    keywords = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(item.nodeid, item.location, keywords, "passed", None, when, [], 0.0, 0.0, 0.0)  # type: ignore[arg-type]


def _merge(item: pytest.Item, run: Run, phase: Phase) -> pytest.TestReport:
    found = {record.rank: report for record in run.records if (report := _of(record, phase.when))}
    merged = _bare(item, phase.when)
    if found:
        merged.start = min(float(report.get("start") or 0.0) for report in found.values())
        merged.stop = max(float(report.get("stop") or 0.0) for report in found.values())
        merged.duration = max(float(report.get("duration") or 0.0) for report in found.values())
        merged.user_properties = _properties(found.values())
    if phase.status == "failed":
        _fail(item, merged, run, phase)
    else:
        _agree(item, merged, phase, found)
    blamed = {rank for blame in phase.blames for rank in blame.ranks} if phase.blames else set(found)
    merged.sections += _sections(run.records, {rank: found[rank] for rank in sorted(blamed & set(found))})
    return merged


def _of(record: RankRecord, when: str) -> Mapping[str, Any] | None:
    return next((report for report in own_reports(record) if report.get("when") == when), None)


def _agree(item: pytest.Item, merged: pytest.TestReport, phase: Phase, found: Mapping[int, Mapping[str, Any]]) -> None:
    """All ranks are of one mind, or their differences make one: take over what the first of that mind said."""
    outcome = {"xfailed": "skipped", "xpassed": "passed"}.get(phase.status, phase.status)
    merged.outcome = outcome  # type: ignore[assignment]
    expected = phase.status in {"xfailed", "xpassed"}
    for data in found.values():
        if data.get("outcome") == outcome and ("wasxfail" in data) == expected:
            report = _restore(item, data)
            merged.longrepr = report.longrepr
            if expected:
                merged.wasxfail = str(data["wasxfail"])
            return


def _fail(item: pytest.Item, merged: pytest.TestReport, run: Run, phase: Phase) -> None:
    """Show the first failing rank's own traceback, say whose it is, and add the others and the waiting ranks."""
    merged.outcome = "failed"
    size = len(run.records)
    hosts = {record.rank: record.host for record in run.records}
    told = [blame for blame in phase.blames if blame.report is not None]
    dead = [blame for blame in phase.blames if blame.report is None and not _waited(blame, run)]
    waiting = [blame for blame in phase.blames if blame.report is None and _waited(blame, run)]
    notes = [f"{who(blame.ranks, size, hosts)}: {blame.text}" for blame in (*dead, *(() if told or dead else waiting))]
    if told:
        first = told[0]
        report = _restore(item, first.report or {})
        merged.longrepr = _titled(report, who(first.ranks, size, hosts))
    else:
        merged.longrepr = "\n".join(notes) or "not every rank reported"
    for blame in told[1:]:
        text = _restore(item, blame.report or {}).longreprtext
        merged.sections.append((who(blame.ranks, size, hosts), text))
    if told and notes:
        merged.sections.append(("ranks that died", "\n".join(notes)))
    if run.stacks and phase.blames:
        title = "where the ranks were" if not (told or dead) else "where the other ranks were"
        merged.sections.append((title, run.stacks))
    for blame in dead:
        for record in run.records:
            if record.rank in blame.ranks and record.output.strip():
                merged.sections.append(
                    (f"last output of {who((record.rank,), size, hosts)}", shorten_crash(record.output.strip()))
                )


def _waited(blame: Blame, run: Run) -> bool:
    """The ranks were alive and did not finish: they are where the trouble shows, seldom where it is."""
    alive = {record.rank for record in run.records if record.exit is None and not record.lost}
    return bool(run.trouble) and set(blame.ranks) <= alive


def _titled(report: pytest.TestReport, title: str) -> Any:
    """Put the ranks in front of the crash message, so that the short summary names them too."""
    longrepr = report.longrepr
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = f"[{title}] {crash.message}"
        chain = getattr(longrepr, "chain", None)
        if chain:
            # The chain holds the same crash a second time; that copy is what a serialised report restores from.
            chain[-1] = (chain[-1][0], crash, chain[-1][2])
        longrepr.addsection(f"this is {title}", "", "-")  # type: ignore[union-attr]
        return longrepr
    return f"[{title}]\n{longrepr}"


def _restore(item: pytest.Item, data: Mapping[str, Any]) -> pytest.TestReport:
    """Return the pytest report that `data` describes; tuples that JSON made lists of are tuples again."""
    fields = dict(data)
    for name in ("location", "longrepr"):
        if isinstance(fields.get(name), list):
            fields[name] = tuple(fields[name])
    fields["sections"] = [tuple(section) for section in fields.get("sections", ())]
    fields["user_properties"] = [tuple(prop) for prop in fields.get("user_properties", ())]
    report = item.config.hook.pytest_report_from_serializable(config=item.config, data=fields)
    assert isinstance(report, pytest.TestReport)  # noqa: S101 - a rank's report of another type is filtered before
    return report


def _properties(reports: Any) -> list[tuple[str, object]]:
    seen: dict[str, tuple[str, object]] = {}
    for report in reports:
        for name, value in report.get("user_properties", ()):
            seen.setdefault(f"{name}={value!r}", (str(name), value))
    return list(seen.values())


def _sections(records: Sequence[RankRecord], found: Mapping[int, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return captured output with the ranks that wrote it; equal output once."""
    hosts = {record.rank: record.host for record in records}
    folded: dict[tuple[str, str], list[int]] = {}
    for rank, report in found.items():
        for name, text in report.get("sections", ()):
            folded.setdefault((str(name), str(text)), []).append(rank)
    return [(f"{name} [{_short(ranks, hosts)}]", text) for (name, text), ranks in folded.items()]


def _short(ranks: Sequence[int], hosts: Mapping[int, str]) -> str:
    return f"rank {ranks[0]}@{hosts[ranks[0]]}" if len(ranks) == 1 else ranks_text(ranks)


def who(ranks: Sequence[int], size: int, hosts: Mapping[int, str]) -> str:
    """Return `rank 2 of 4 on n3` or `ranks 1-3 of 4 on n1,n2`."""
    places = ",".join(dict.fromkeys(hosts.get(rank, "?") for rank in ranks))
    return f"{ranks_text(ranks)} of {size} on {places}" if ranks else "the ranks"
