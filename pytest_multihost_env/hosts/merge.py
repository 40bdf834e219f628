"""What a source mentions becomes hosts: valid names, each machine once."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import plain_host, same_host, short_host, valid_host


def merged(found: Allocation, suffixes: Sequence[str] = ()) -> Allocation:
    """Return the machines of `found` in the order of their first mention, the slots of each added up.

    `n1` and `n1.example.org` are one machine, under the name that came first; two domains are two machines.

    Args:
        found: The hosts as their source mentions them.
        suffixes: Endings that name an interface of a host, not a host (`names.plain_host`).

    Raises:
        UsageProblem: There is no host, a host has no slot, a name is none, or a short name fits several domains.
    """
    _refuse(found)
    names = _names(found, suffixes)
    mentions: dict[str, list[Host]] = {}
    for host in found.hosts:
        short = short_host(host.name, suffixes)
        key = short if short in names[short] else plain_host(host.name, suffixes)
        mentions.setdefault(key, []).append(host)
    return Allocation(
        tuple(
            Host(hosts[0].name, sum(host.slots for host in hosts), _where([host.where for host in hosts]))
            for hosts in mentions.values()
        ),
        found.source,
    )


def _refuse(found: Allocation) -> None:
    if not found.hosts:
        raise UsageProblem(f"{found.source} names no host", hint="name the hosts with --multihost-hosts")
    for host in found.hosts:
        where = host.where or found.source
        if not valid_host(host.name):
            raise UsageProblem(
                f"{host.name[:80]!r} is not a host name",
                where=where,
                expected="letters, digits, '.', '_' and '-', not beginning with '-' or '.'; an IPv6 host by its name",
                hint="correct the name",
            )
        if host.slots < 1:
            raise UsageProblem(f"{host.name} has {host.slots} slots", where=where, hint="give it one, or leave it out")


def _names(found: Allocation, suffixes: Sequence[str]) -> dict[str, set[str]]:
    """Return the names of the machines by their first labels, when it is clear which of them each short name means."""
    names: dict[str, set[str]] = {}
    for host in found.hosts:
        names.setdefault(short_host(host.name, suffixes), set()).add(plain_host(host.name, suffixes))
    for host in found.hosts:
        short = plain_host(host.name, suffixes)
        full = names.get(short, set()) - {short}
        if len(full) > 1:
            raise UsageProblem(
                f"{host.name} may mean {' or '.join(sorted(full))}",
                where=host.where or found.source,
                hint="write the full name of each host",
            )
    return names


def _where(places: Sequence[str]) -> str:
    """Return several places as one text: `hosts.txt:1-3,7`."""
    first, *others = dict.fromkeys(places)
    file, colon, _ = first.rpartition(":")
    lines = [place.removeprefix(f"{file}:") for place in (first, *others)]
    if not others or not colon or not all(line.isdecimal() for line in lines):
        return first + (f" and {len(others)} more" if others else "")
    from ClusterShell.RangeSet import RangeSet

    return f"{file}:{RangeSet.fromlist(lines)}"


def repeated(hosts: Sequence[Host], suffixes: Sequence[str] = ()) -> tuple[Host, Host] | None:
    """Return the first two hosts that are the same machine, or None."""
    by_short: dict[str, list[Host]] = {}
    for host in hosts:
        others = by_short.setdefault(short_host(host.name, suffixes), [])
        for other in others:
            if same_host(other.name, host.name, suffixes):
                return other, host
        others.append(host)
    return None
