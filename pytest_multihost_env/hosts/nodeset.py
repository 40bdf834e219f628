"""Node sets: `node[01-04,07]` becomes names, in the order in which they are written, and names become a node set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.merge import NAME_THEM
from pytest_multihost_env.model import Host

MOST_HOSTS = 65536
_ALLOWED = re.compile(r"[A-Za-z0-9._\[\],-]+")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def unfold(text: str, where: str) -> list[str]:
    """Return the host names of a list of node sets that a scheduler wrote; padding with zeros is kept.

    Args:
        text: Node sets between commas.
        where: Where it stands, for errors.

    Raises:
        UsageProblem: An item is not a host name or a node set, or there are more than 65,536 hosts.
    """
    names: list[str] = []
    try:
        for item in split_items(text, where):
            names += expand(item, where)
            if len(names) > MOST_HOSTS:
                raise _bad(f"{_short(text)} names more than {MOST_HOSTS} hosts", where)
    except UsageProblem as problem:
        raise UsageProblem(problem.what, where=where, expected=problem.expected, hint=NAME_THEM) from None
    return names


def fold(hosts: Iterable[Host]) -> list[str]:
    """Return hosts and slots as items of the setting `hosts`, in this order: `node[01-04]:8`, `gpu1:4`."""
    runs = itertools.groupby(hosts, key=lambda host: host.slots)
    return [f"{item}:{slots}" for slots, run in runs for item in _folded([host.name for host in run])]


def _folded(names: Sequence[str]) -> list[str]:
    """Return the items of a node set that unfolds to `names`, or the names where none keeps their order."""
    if len(names) < 2:
        return list(names)
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

    try:
        items = split_items(str(NodeSet(",".join(names), resolver=RESOLVER_NOGROUP)), "")
        return items if unfold(",".join(items), "") == list(names) else list(names)
    except (NodeSetException, UsageProblem):
        return list(names)


def split_items(text: str, where: str) -> list[str]:
    """Return the parts of `text` between commas, but for commas inside brackets.

    Raises:
        UsageProblem: A bracket is not closed, or an item is empty.
    """
    items: list[str] = []
    start = depth = 0
    for position, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if depth not in (0, 1):
            break
        if character == "," and depth == 0:
            items.append(text[start:position])
            start = position + 1
    if depth:
        raise _bad(f"the brackets of {_short(text)} do not match", where)
    items.append(text[start:])
    for number, item in enumerate(items, 1):
        if not item:
            raise _bad(f"item {number} of {_short(text)} is empty", where)
    return items


def expand(item: str, where: str) -> list[str]:
    """Return the host names of one item; padding with zeros is kept.

    Raises:
        UsageProblem: It is not a host name or a node set, or names more than 65,536 hosts.
    """
    if not _ALLOWED.fullmatch(item) or item.startswith(("-", ".")):
        raise _bad(f"{_short(item)} is not a host name or a node set", where)
    return ["".join(parts) for parts in itertools.product(*_pieces(item, where))]


def _pieces(item: str, where: str) -> list[list[str]]:
    """Cut `item` into text and what its brackets stand for; what they would come to is counted before."""
    total = 1
    pieces: list[list[str]] = []
    for number, part in enumerate(_GROUP.split(item)):
        if number % 2 == 0:
            if "[" in part or "]" in part or "," in part:
                raise _bad(f"the brackets of {_short(item)} do not match", where)
            pieces.append([part])
            continue
        bounds = [_bounds(one, item, where) for one in part.split(",")]
        total *= sum(int(last) - int(first) + 1 for first, last in bounds)
        if total > MOST_HOSTS:
            raise _bad(f"{_short(item)} names more than {MOST_HOSTS} hosts", where)
        pieces.append([number for first, last in bounds for number in _numbers(first, last)])
    return pieces


def _bounds(text: str, item: str, where: str) -> tuple[str, str]:
    match = _RANGE.fullmatch(text)
    if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
        raise _bad(f"[{text[:40]}] in {_short(item)} is not a number or a rising range", where)
    return match[1], match[2] or match[1]


def _numbers(first: str, last: str) -> list[str]:
    """Return the numbers of a range as Slurm pads them: to the width of the first one, so that `09-100` ends in 100.

    ClusterShell refuses that, and it is what Slurm writes for n09 to n100.
    """
    return [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]


def _short(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")


def _bad(what: str, where: str) -> UsageProblem:
    return UsageProblem(what, where=where, expected="names as in node[01-04],gpu1", hint="correct the list of hosts")
