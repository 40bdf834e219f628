"""Entries of a host source become hosts: valid names, each machine once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import same_host, short_host, valid_host


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One mention of a host: its slots, and where it stands (`hosts.txt:3`)."""

    name: str
    slots: int
    where: str


def merge(entries: Sequence[Entry], source: str) -> Allocation:
    """Return the machines in the order of their first mention, the slots of each added up.

    `n1` and `n1.example.org` are one machine, under the name that came first; two domains are two machines.

    Raises:
        UsageProblem: A name is not a host name, or a short name fits machines of several domains.
    """
    domains: dict[str, set[str]] = {}
    for entry in entries:
        if not valid_host(entry.name):
            raise UsageProblem(
                f"{entry.name!r} is not a host name",
                where=entry.where,
                expected="letters, digits, '.', '_' and '-', not beginning with '-' or '.'",
                hint="correct the name",
            )
        domains.setdefault(short_host(entry.name), set()).add(entry.name.lower().rstrip("."))
    for short, names in domains.items():
        if short in names and len(names) > 2:
            full = sorted(names - {short})
            raise UsageProblem(
                f"{short} may mean {' or '.join(full)}",
                where=source,
                hint="write the full name of each host",
            )
    slots: dict[str, int] = {}
    first: dict[str, str] = {}
    for entry in entries:
        names = domains[short_host(entry.name)]
        key = short_host(entry.name) if short_host(entry.name) in names else entry.name.lower().rstrip(".")
        first.setdefault(key, entry.name)
        slots[key] = slots.get(key, 0) + entry.slots
    return Allocation(tuple(Host(first[key], count) for key, count in slots.items()), source)


def repeated(entries: Sequence[Entry]) -> tuple[Entry, Entry] | None:
    """Return the first two entries that name the same machine, or None."""
    by_short: dict[str, list[Entry]] = {}
    for entry in entries:
        for other in by_short.setdefault(short_host(entry.name), []):
            if same_host(other.name, entry.name):
                return other, entry
        by_short[short_host(entry.name)].append(entry)
    return None
