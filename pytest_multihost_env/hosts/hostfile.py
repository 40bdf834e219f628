"""Hostfiles of Open MPI (`n1 slots=2 max_slots=4`) and MPICH (`n1:2`), and plain lists, in one grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import valid_host

MOST_BYTES = 64 * 1024 * 1024
CORRECT = "correct the line"

_COUNT = re.compile(r"0*[1-9][0-9]{0,5}")
_COUNTED = ("slots", "cpu", "count")
_KEY_MOST = {
    f"{one}{dash}{other}" for dash in "-_" for word in _COUNTED for one, other in (("max", word), (word, "max"))
}
_ELSEWHERE = {
    "user": "name the user in ~/.ssh/config",
    "username": "name the user in ~/.ssh/config",
    "user-name": "name the user in ~/.ssh/config",
    "user_name": "name the user in ~/.ssh/config",
    "port": "name the port in ~/.ssh/config",
    "rank": "this is a rankfile; name hosts and slots, and the launcher's rankfile with --multihost-launcher-args",
}


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
        text = read(self._path, f"{self._origin}: {self._path}")
        return Allocation(parse(text, str(self._path)), f"hostfile {self._path}")


def read(path: Path, where: str, hint: str = "correct the path, or the file's permissions") -> str:
    """Return the text of a file of hosts.

    Raises:
        UsageProblem: It cannot be read, or is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageProblem(f"the file of hosts cannot be read: {reason}", where=where, hint=hint) from None
    if len(data) > MOST_BYTES:
        raise UsageProblem("the file of hosts has more than 64 MiB", where=where, hint="name a file of hosts")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageProblem(
            f"line {line} of the file of hosts is not UTF-8 text", where=where, hint="save it as UTF-8"
        ) from None


def parse(text: str, file: str, hint: str = CORRECT) -> tuple[Host, ...]:
    """Return the hosts of a hostfile, one for each line that names one.

    A line is `HOST`, `HOST:N`, or `HOST` followed by `slots=N` and `max_slots=N`, blanks around `=` allowed; `#`
    begins a comment.  A line without slots counts as one, so that a plain list with repetitions works.

    Args:
        text: What the file holds.
        file: Its name.
        hint: The remedy for a line that is wrong.

    Raises:
        UsageProblem: A line is not in the grammar (`FILE:LINE` and its text), or no line names a host.
    """
    hosts = []
    # Only these end a line for an editor too; `str.splitlines` knows eight more, and the numbers would be off.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        content = line.partition("#")[0].strip()
        if content:
            hosts.append(_host(content, _Line(content, f"{file}:{number}", hint)))
    if not hosts:
        hint = "write one host a line, as in: n1 slots=8" if hint is CORRECT else hint
        raise UsageProblem("the file of hosts names no host", where=file, hint=hint)
    return tuple(hosts)


class _Line:
    """One line, for the errors about it."""

    def __init__(self, content: str, where: str, hint: str) -> None:
        self._content = content if len(content) <= 80 else content[:77] + "..."
        self.where = where
        self._hint = hint

    def wrong(self, problem: str, hint: str = "") -> UsageProblem:
        return UsageProblem(
            f"{problem} in {self._content!r}",
            where=self.where,
            expected="HOST, HOST:N or HOST slots=N",
            hint=hint or self._hint,
        )

    def count(self, text: str) -> int:
        if not _COUNT.fullmatch(text):
            hint = "leave out the line: a host without slots runs nothing" if text.strip("0") == "" != text else ""
            raise self.wrong(f"{text[:40]!r} is not a positive number of slots", hint)
        return int(text)


def _host(content: str, line: _Line) -> Host:
    first, *fields = re.sub(r"\s*=\s*", "=", content).split()
    name, colon, count = first.partition(":")
    if not valid_host(name) or ":" in count:
        raise line.wrong(f"{first[:80]!r} is not a host name", _remedy(first))
    slots = line.count(count) if colon else None
    most = None
    for field in fields:
        key, equals, value = field.partition("=")
        if equals and key in _COUNTED and slots is None:
            slots = line.count(value)
        elif equals and key in _KEY_MOST and most is None:
            most = line.count(value)
        else:
            raise line.wrong(
                f"{field[:80]!r} is not understood here", _ELSEWHERE.get("rank" if name == "rank" else key, "")
            )
    if most is not None and most < (slots or 1):
        raise line.wrong(f"max_slots={most} is less than slots={slots}")
    return Host(name, slots or 1, line.where)


def _remedy(name: str) -> str:
    """Return what to do about something that other programs take for a host."""
    if name.count(":") > 1:
        return "name the host: an IPv6 address cannot be told from a host with slots"
    if "@" in name:
        return _ELSEWHERE["user"]
    if "[" in name or "," in name:
        return "write one host a line; a set of hosts is what --multihost-hosts takes"
    if name.startswith("^"):
        return "leave out the line: what is not named is not used"
    key = name.partition("=")[0]
    return _ELSEWHERE.get(key, "")
