"""Hostfiles of Open MPI (`n1 slots=2 max_slots=4`) and MPICH (`n1:2`), and plain lists, in one grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.merge import Entry, merge
from pytest_multihost_env.model import Allocation
from pytest_multihost_env.names import valid_host

_COUNT = re.compile(r"0*[1-9][0-9]{0,5}")
_KEY_SLOTS = ("slots", "count", "cpu")
_KEY_MOST = ("max_slots", "max-slots")


class HostfileSource:
    """The file that the setting `hostfile` names.

    Args:
        path: The file, absolute.
        origin: Where the setting stands.
    """

    name = "hostfile"

    def __init__(self, path: Path, origin: str = "option --multihost-hostfile") -> None:
        self._path = path
        self._origin = origin

    def find(self, environ: Mapping[str, str]) -> Allocation:  # noqa: ARG002 - part of the protocol
        """Return the hosts of the file.

        Raises:
            UsageProblem: The file cannot be read, names no host, or has a line that is not in the grammar.
        """
        return parse(read(self._path, f"{self._origin}: {self._path}"), str(self._path))


def read(path: Path, where: str) -> str:
    """Return the text of a file of hosts.

    Raises:
        UsageProblem: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(
            f"the hostfile cannot be read: {error}", where=where, hint="correct the path, or the file's permissions"
        ) from None


def parse(text: str, source: str) -> Allocation:
    """Return the hosts of a hostfile; a machine on several lines has the slots of all of them.

    A line is `HOST`, `HOST:N`, or `HOST` followed by `slots=N` and `max_slots=N`, blanks around `=` allowed; `#`
    begins a comment.  A line without slots counts as one, so that a plain list with repetitions works.

    Raises:
        UsageProblem: A line is not in the grammar (`FILE:LINE` and its text), or no line names a host.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if content:
            entries.append(_entry(content, f"{source}:{number}"))
    if not entries:
        raise UsageProblem("the hostfile names no host", where=source, hint="write one host a line, as in: n1 slots=8")
    return merge(entries, source)


def _entry(content: str, where: str) -> Entry:
    first, *fields = re.sub(r"\s*=\s*", "=", content).split()
    name, colon, count = first.partition(":")
    if not valid_host(name):
        raise _bad(f"{name!r} is not a host name", content, where)
    slots = _count(count, content, where) if colon else None
    most = None
    for field in fields:
        key, equals, value = field.partition("=")
        if equals and key in _KEY_SLOTS and slots is None:
            slots = _count(value, content, where)
        elif equals and key in _KEY_MOST and most is None:
            most = _count(value, content, where)
        else:
            raise _bad(f"{field!r} is not understood here", content, where)
    if most is not None and most < (slots or 1):
        raise _bad(f"max_slots={most} is less than slots={slots}", content, where)
    return Entry(name, slots or 1, where)


def _count(text: str, content: str, where: str) -> int:
    if not _COUNT.fullmatch(text):
        raise _bad(f"{text!r} is not a positive number of slots", content, where)
    return int(text)


def _bad(problem: str, content: str, where: str) -> UsageProblem:
    return UsageProblem(
        f"{problem} in {content!r}", where=where, expected="HOST, HOST:N or HOST slots=N", hint="correct the line"
    )
