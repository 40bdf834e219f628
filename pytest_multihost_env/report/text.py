"""Tables and texts for people.  Pure: values in, a string without a trailing newline out.

Every function takes a `Look`: plain text of 100 columns unless a terminal is told otherwise.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from pytest_multihost_env.model import Allocation, Generation
from pytest_multihost_env.table import PLAIN, Cell, Look, Table, fitted, render


class Found(Protocol):
    """What a check over hosts found (`check.outcome.Findings`)."""

    @property
    def table(self) -> Table:
        """What was looked at, by host."""
        ...

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each thing that is wrong; none when the check passed."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know besides."""
        ...

    @property
    def remedy(self) -> str:
        """What to do about it, a line for each thing."""
        ...


class Complaint(Protocol):
    """Something that the doctor found and that is not as it should be (`check.doctor.finding.Finding`)."""

    @property
    def verdict(self) -> str:
        """`warning` or `error`."""
        ...

    @property
    def sentence(self) -> str:
        """What it means."""
        ...

    @property
    def remedy(self) -> str:
        """What to do about it; "" when nobody knows."""
        ...


class Examined(Protocol):
    """What the doctor found (`check.doctor.finding.Report`)."""

    @property
    def table(self) -> Table:
        """Question by host."""
        ...

    @property
    def complaints(self) -> Sequence[Complaint]:
        """What is not as it should be, errors first."""
        ...

    @property
    def summary(self) -> str:
        """All of it in one sentence."""
        ...


def look_of(stream: TextIO, *, width: int = 100, colour: bool | None = None) -> Look:
    """Return the look that suits `stream`: colour on a terminal only, unless `colour` decides."""
    return Look(
        colour=stream.isatty() if colour is None else colour,
        width=width,
        encoding=stream.encoding or "ascii",
    )


def drift(found: Found, look: Look = PLAIN) -> str:
    """Tell in which packages the hosts differ."""
    return _check(found, "every host has the same", look)


def smoke(found: Found, look: Look = PLAIN) -> str:
    """Tell which host cannot import which module."""
    return _check(found, "every host imports every module", look)


def requirements(found: Found, look: Look = PLAIN) -> str:
    """Tell which host lacks what is required."""
    return _check(found, "every host has what is required", look)


def _check(found: Found, good: str, look: Look) -> str:
    parts = [
        render(found.table, look),
        "\n".join(found.sentences) or good,
        "\n".join(f"note: {note}" for note in found.notes),
        "\n".join(f"remedy: {line}" for line in found.remedy.splitlines()),
    ]
    # What `render` returns is fitted already, and its colours are not to be escaped.
    return "\n\n".join([parts[0], *(fitted(part, look.encoding) for part in parts[1:] if part)])


def examined(report: Examined, look: Look = PLAIN) -> str:
    """Tell what the doctor found: the table, then each complaint with its remedy, then the whole in one sentence."""
    said = dict.fromkeys((one.verdict, one.sentence, one.remedy) for one in report.complaints)
    blocks = []
    for verdict, sentence, remedy in said:
        text = f"{verdict}: {sentence}" + (f"\nremedy: {remedy}" if remedy else "")
        blocks.append("\n".join(_wrapped(line, look.width) for line in text.splitlines()))
    return "\n\n".join(
        [render(report.table, look), *(fitted(part, look.encoding) for part in [*blocks, report.summary])]
    )


def _wrapped(line: str, width: int) -> str:
    return textwrap.fill(line, max(width, 40), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def hosts(allocation: Allocation, look: Look = PLAIN, cwd: Path | None = None) -> str:
    """Tell which hosts the job has, with how many slots, and who named them where; files in `cwd` by a short name."""
    rows = tuple((host.name, str(host.slots), host.where.removeprefix(f"{cwd}/")) for host in allocation.hosts)
    count = _count(len(rows), "host")
    caption = f"{count}, {_count(allocation.slots, 'slot')}, named by: {allocation.source}"
    return render(Table(("host", "slots", "named in"), rows, caption), look)


def explain(rows: Iterable[Sequence[str]], look: Look = PLAIN) -> str:
    """Tell why each variable is as it is.

    Args:
        rows: `name, status, value, rule, origin` of each, as `environ.explain` gives them: secrets are hidden there.
        look: How the text is to look.
    """
    lines = tuple(tuple(_cell(text, status=index == 1) for index, text in enumerate(row)) for row in rows)
    counts: dict[str, int] = {}
    for line in lines:
        counts[line[1].text] = counts.get(line[1].text, 0) + 1
    caption = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no variables"
    return render(Table(("name", "status", "value", "rule", "origin"), lines, caption), look)


def _cell(text: str, *, status: bool) -> Cell:
    return Cell(text, odd=status and text == "BLOCKED", mark="")


def plan(rows: Iterable[tuple[str, str, str]], look: Look = PLAIN) -> str:
    """Tell what would be done: `stage, value, origin` of each decision.  A stage is named once."""
    lines: list[tuple[str, ...]] = []
    last = None
    for stage, value, origin in rows:
        lines.append(("" if stage == last else stage, value, origin))
        last = stage
    return render(Table(("stage", "value", "decided by"), tuple(lines)), look)


def generation(made: Generation, look: Look = PLAIN) -> str:
    """Tell which environment is used, in a few lines."""
    how = f"reused in {made.seconds:.1f} s" if made.reused else f"made in {made.seconds:.1f} s by {made.built_by}"
    if made.checked is not None:
        how += f" (checked by {made.checked})"
    lines = [f"environment {made.path}", f"  {how}, manifest {made.digest[:12]}"]
    if made.added:
        lines.append("  added, since the source lacks it: " + ", ".join(made.added))
    if made.outside:
        lines.append("  imports from outside, as allowed: " + ", ".join(made.outside))
    return fitted("\n".join(lines), look.encoding)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
