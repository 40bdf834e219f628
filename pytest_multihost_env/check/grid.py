"""Folds equal hosts and lays their values out: one column for the hosts that agree."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from pytest_multihost_env.table import Cell, Table

_MOST_COLUMNS = 6
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One row before folding: its labels, each host's text, and the hosts whose text is odd."""

    labels: tuple[str, ...]
    cells: Mapping[str, str]
    odd: frozenset[str] = frozenset()


def fold(names: Iterable[str]) -> str:
    """Write host names in short: `n1 n2 n3 x` becomes `n[1-3],x`; each name appears once."""
    groups: dict[tuple[str, str, int], set[int]] = {}
    for name in dict.fromkeys(names):
        found = _NUMBERED.fullmatch(name)
        if found is None:
            groups.setdefault((name, "", -1), set())
            continue
        head, digits, tail = found.groups()
        padded = len(digits) if digits.startswith("0") or (head, tail, len(digits)) in groups else 0
        groups.setdefault((head, tail, padded), set()).add(int(digits))
    return ",".join(_written(head, tail, width, numbers) for (head, tail, width), numbers in groups.items())


def _written(head: str, tail: str, width: int, numbers: set[int]) -> str:
    if width < 0:
        return head
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{a:0{width}d}" if a == b else f"{a:0{width}d}-{b:0{width}d}" for a, b in runs]
    inside = ",".join(texts)
    return f"{head}[{inside}]{tail}" if len(numbers) > 1 else f"{head}{inside}{tail}"


def grid(labels: Sequence[str], lines: Sequence[Line], hosts: Sequence[str], caption: str = "") -> Table:
    """Return the lines as a table with a column for each group of hosts that agree in every line.

    Past six groups the last ones are left out of the table, and the caption says so.
    """
    groups: dict[tuple[tuple[str, bool], ...], list[str]] = {}
    for host in hosts:
        key = tuple((line.cells.get(host, "-"), host in line.odd) for line in lines)
        groups.setdefault(key, []).append(host)
    # Hosts without anything odd come first, so that the eye has what is right to compare with.
    ordered = sorted(groups.items(), key=lambda item: sum(odd for _, odd in item[0]))
    shown, hidden = ordered[:_MOST_COLUMNS], ordered[_MOST_COLUMNS:]
    if hidden:
        left = fold(host for _, members in hidden for host in members)
        caption = "\n".join(filter(None, [caption, f"not shown here, for width: {left}"]))
    rows: list[tuple[Cell | str, ...]] = []
    for index, line in enumerate(lines):
        rows.append((*line.labels, *(Cell(*key[index]) for key, _ in shown)))
    return Table((*labels, *(fold(members) for _, members in shown)), tuple(rows), caption)
