"""Node sets: `node[01-04,07]` becomes names, in the order in which they are written."""

from __future__ import annotations

import itertools
import re

from pytest_multihost_env.errors import UsageProblem

MOST_HOSTS = 65536
_ALLOWED = re.compile(r"[A-Za-z0-9._\[\],-]+")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


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
        raise _bad(f"the brackets of {text!r} do not match", where)
    items.append(text[start:])
    for number, item in enumerate(items, 1):
        if not item:
            raise _bad(f"item {number} of {text!r} is empty", where)
    return items


def expand(item: str, where: str) -> list[str]:
    """Return the host names of one item; padding with zeros is kept.

    Raises:
        UsageProblem: It is not a host name or a node set, or names more than 65,536 hosts.
    """
    if not _ALLOWED.fullmatch(item) or item.startswith(("-", ".")):
        raise _bad(f"{item!r} is not a host name or a node set", where)
    pieces = _pieces(item, where)
    if len(pieces) == 1:
        return [item]
    return [name for parts in itertools.product(*pieces) for name in _fold("".join(parts), where)]


def _pieces(item: str, where: str) -> list[list[str]]:
    """Cut `item` into text and the single ranges of each bracket, and count before anything is expanded."""
    total = 1
    pieces: list[list[str]] = []
    for number, part in enumerate(_GROUP.split(item)):
        if number % 2 == 0:
            if "[" in part or "]" in part or "," in part:
                raise _bad(f"the brackets of {item!r} do not match", where)
            pieces.append([part])
            continue
        ranges = part.split(",")
        size = 0
        for one in ranges:
            match = _RANGE.fullmatch(one)
            if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
                raise _bad(f"[{one}] in {item!r} is not a number or a rising range", where)
            size += int(match[2] or match[1]) - int(match[1]) + 1
        total *= size
        if total > MOST_HOSTS:
            raise _bad(f"{item!r} names more than {MOST_HOSTS} hosts", where)
        pieces.append([f"[{one}]" for one in ranges])
    return pieces


def _fold(text: str, where: str) -> list[str]:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

    try:
        return list(NodeSet(text, resolver=RESOLVER_NOGROUP))
    except NodeSetException as error:
        raise _bad(f"{text!r} is not a node set: {error}", where) from None


def _bad(what: str, where: str) -> UsageProblem:
    return UsageProblem(what, where=where, expected="names as in node[01-04],gpu1", hint="correct the list of hosts")
