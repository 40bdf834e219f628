"""What the doctor found about one question, on every host; and all of it as one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.table import Cell, Table

OK, WARNING, ERROR = "ok", "warning", "error"
VERDICTS = (OK, WARNING, ERROR)
"""From good to bad."""


def worst(verdicts: Iterable[str]) -> str:
    """Return the worst of them; `ok` when there is none."""
    return max(verdicts, key=VERDICTS.index, default=OK)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One question, and what each host answers.

    Attributes:
        subject: Its name, for machines; it stays the same.
        question: What was asked, for people.
        verdict: `ok`, `warning` or `error`: the worst of all hosts.
        answers: What each host says.
        odd: The hosts that the verdict is about; none when it is `ok`.
        sentence: What it means, when it is not `ok`.
        remedy: What to do about it.
        unreachable: The error is that these hosts gave no answer at all.
    """

    subject: str
    question: str
    verdict: str
    answers: Mapping[str, str]
    odd: tuple[str, ...] = ()
    sentence: str = ""
    remedy: str = ""
    unreachable: bool = False


def finding(
    subject: str, question: str, answers: Mapping[str, tuple[str, str]], sentence: str = "", remedy: str = ""
) -> Finding:
    """Return a finding from each host's verdict and text.

    Args:
        subject: Its name.
        question: What was asked.
        answers: Verdict and text of each host.
        sentence: What it means; `{hosts}` are the odd ones.
        remedy: What to do; `{hosts}` likewise.
    """
    verdict = worst(given for given, _ in answers.values())
    odd = tuple(host for host, (given, _) in answers.items() if given != OK)
    texts = {host: text for host, (_, text) in answers.items()}
    if verdict == OK:
        return Finding(subject, question, OK, texts)
    named = fold(odd)
    return Finding(
        subject, question, verdict, texts, odd, sentence.replace("{hosts}", named), remedy.replace("{hosts}", named)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found.

    Attributes:
        hosts: Every host of the job.
        findings: In the order in which a person should read them.
        summary: The whole of it in one sentence.
    """

    hosts: tuple[str, ...]
    findings: tuple[Finding, ...]
    summary: str

    @property
    def verdict(self) -> str:
        """The worst of all findings."""
        return worst(finding.verdict for finding in self.findings)

    @property
    def code(self) -> int:
        """The exit code: 4 when a host could not be asked, 1 when there is an error, else 0."""
        if any(finding.unreachable for finding in self.findings):
            return 4
        return 1 if self.verdict == ERROR else 0

    @property
    def complaints(self) -> tuple[Finding, ...]:
        """The findings that are not `ok`, errors first."""
        bad = [finding for finding in self.findings if finding.verdict != OK]
        return tuple(sorted(bad, key=lambda finding: -VERDICTS.index(finding.verdict)))

    @property
    def table(self) -> Table:
        """A row for each question; where hosts differ, a row for each answer, and who gives it."""
        rows = [row for one in self.findings for row in self._rows(one)]
        columns = ("", "", fold(self.hosts), "")
        if not any(row[-1] for row in rows):
            return Table(columns[:-1], tuple(row[:-1] for row in rows))
        return Table(columns, tuple(rows))

    def _rows(self, one: Finding) -> list[tuple[Cell | str, ...]]:
        groups: dict[tuple[bool, str], list[str]] = {}
        for host, answer in one.answers.items():
            groups.setdefault((host not in one.odd, answer), []).append(host)
        rows: list[tuple[Cell | str, ...]] = []
        for (good, answer), hosts in sorted(groups.items(), key=lambda item: item[0][0]):  # what is odd comes first
            verdict = OK if good else one.verdict
            cell = Cell(answer, odd=not good, mark="", mild=verdict == WARNING)
            who = "" if len(hosts) == len(self.hosts) else fold(hosts)
            rows.append((_mark(verdict), "" if rows else one.question, cell, who))
        return rows


def _mark(verdict: str) -> Cell:
    if verdict == OK:
        return Cell(OK)
    return Cell(verdict.upper() if verdict == ERROR else verdict, odd=True, mark="", mild=verdict == WARNING)
