"""What a source mentions becomes hosts: valid names, each machine once."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import plain_host, same_host, short_host, valid_host

NAME_THEM = "name the hosts with --multihost-hosts, as in n1:8,n2:8"
"""The remedy where what a scheduler says cannot be read: nobody can correct that."""


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
    machines = _machines(found, suffixes)
    mentions: dict[str, list[Host]] = {}
    for host in found.hosts:
        mentions.setdefault(machines[host.name], []).append(host)
    return Allocation(
        tuple(
            Host(hosts[0].name, sum(host.slots for host in hosts), _where([host.where for host in hosts]))
            for hosts in mentions.values()
        ),
        found.source,
    )


def _refuse(found: Allocation) -> None:
    if not found.hosts:
        raise UsageProblem(f"{found.source} names no host", hint=NAME_THEM)
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


def _machines(found: Allocation, suffixes: Sequence[str]) -> dict[str, str]:
    """Return for each name that is mentioned the name of its machine.

    Raises:
        UsageProblem: It is not clear which machine a short name means.
    """
    # A node file mentions a host once for each slot: what is said of a name is found out once.
    first = {host.name: host for host in reversed(found.hosts)}
    plain = {name: plain_host(name, suffixes) for name in first}
    by_short: dict[str, set[str]] = {}
    for name in plain.values():
        by_short.setdefault(short_host(name), set()).add(name)
    for name, host in first.items():
        full = by_short.get(plain[name], set()) - {plain[name]}
        if len(full) > 1:
            raise UsageProblem(
                f"{name} may mean {' or '.join(sorted(full))}",
                where=host.where or found.source,
                hint="write the full name of each host",
            )
    shorts = {name: short_host(name) for name in plain.values()}
    return {name: short if (short := shorts[full]) in by_short[short] else full for name, full in plain.items()}


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
