"""What counts as a difference between hosts, and the outcome of looking for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pytest_multihost_env.check.grid import Line, fold, grid
from pytest_multihost_env.check.versions import STRICT
from pytest_multihost_env.table import Table

MISMATCH = "mismatch"
MISSING = "missing"
EXTRA = "extra"
SHADOWED = "shadowed"
UNREACHABLE = "unreachable"
NOT_RUN = "not-run"


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """What counts as a difference.

    Attributes:
        local: `strict`, or `ignore-local`: `2.9.1` and `2.9.1+cu128` are the same, and files are not compared.
        facts: Facts about the platform that must be equal.
        noted: Facts that are only mentioned when they differ.
        outside: Directories besides the environment that modules may come from.
    """

    local: str = STRICT
    facts: tuple[str, ...] = ("python", "implementation", "machine", "glibc")
    noted: tuple[str, ...] = ("kernel",)
    outside: tuple[str, ...] = ()


DEFAULT = Policy()

_REMEDIES = {
    UNREACHABLE: "bring {hosts} back, or take it out of the job's hosts (--multihost-hosts)",
    NOT_RUN: "see why the environment's python does not run the check on {hosts}",
    SHADOWED: "take what hides the environment's module on {hosts} out of PYTHONPATH or the user's site directory",
    MISSING: "provision {hosts} from the same source as the others (--multihost-venv)",
    EXTRA: "provision {hosts} from the same source as the others (--multihost-venv)",
    MISMATCH: "provision {hosts} from the same source as the others (--multihost-venv)",
}
_UNMET = "add what is required to the source that {hosts} is provisioned from (--multihost-venv)"


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Hosts that differ in one thing in the same way.

    Attributes:
        kind: `mismatch`, `missing`, `extra`, `shadowed`, `unreachable` or `not-run`.
        subject: What it is about (`numpy`), "" when it is the host itself.
        layer: `declared`, `files`, `commit`, `imported`, `loaded`, `platform`,
            `variable`, `required` or `host`.
        hosts: The odd ones.
        sentence: The whole of it for a person.
    """

    kind: str
    subject: str
    layer: str
    hosts: tuple[str, ...]
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What each host that answered has; None: it has none."""

    subject: str
    layer: str
    values: Mapping[str, str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Findings:
    """The outcome of a check over hosts.  It passes only when every host answered and nothing is wrong.

    Attributes:
        hosts: Every host of the job, whether it answered or not.
        rows: What was looked at.
        differences: What is wrong.
        notes: What a reader should know besides.
        brief: There is too much to show what is equal.
    """

    hosts: tuple[str, ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    brief: bool = False

    @property
    def passed(self) -> bool:
        """Something was compared, and no difference was found."""
        return bool(self.hosts and self.rows) and not self.differences

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each difference."""
        return tuple(difference.sentence for difference in self.differences)

    @property
    def remedy(self) -> str:
        """What to do, one line for each kind of thing to do; "" when there is nothing."""
        hosts: dict[str, list[str]] = {}
        for difference in self.differences:
            unmet = difference.layer == "required" and difference.kind in (MISSING, MISMATCH)
            hosts.setdefault(_UNMET if unmet else _REMEDIES[difference.kind], []).extend(difference.hosts)
        return "\n".join(text.format(hosts=fold(names)) for text, names in hosts.items())

    @property
    def table(self) -> Table:
        """Package by host, equal hosts folded, odd values marked; only what differs when `brief`.

        What is equal about the platform is never shown: nobody asked for it by name.
        """
        silent = {h: d.kind for d in self.differences if not d.subject for h in d.hosts}
        lines = []
        for row in self.rows:
            odd = {h for d in self.differences if (d.subject, d.layer) == (row.subject, row.layer) for h in d.hosts}
            if not odd and (self.brief or row.layer == "platform"):
                continue
            texts = {host: "missing" if value is None else value for host, value in row.values.items()}
            lines.append(Line((row.subject, row.layer), {**texts, **silent}, frozenset(odd | silent.keys())))
        if not lines:
            lines = [Line(("host", "answer"), {h: silent.get(h, "ok") for h in self.hosts}, frozenset(silent))]
        left = len(self.rows) - len(lines) if self.brief else 0
        return grid(("", "layer"), lines, self.hosts, f"{left} more rows are equal on all hosts" if left > 0 else "")
