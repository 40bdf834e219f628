"""Reads tar archives as strictly as can be: what two programs might read in two ways is refused.

The parser of the standard library is the one of the Python that runs us, with its known faults (CVE-2025-8194: a
negative size; CVE-2025-13462: two headers for one name), and it reads an extended header of any size into memory.
"""

from __future__ import annotations

import dataclasses
import decimal
import re
from collections.abc import Iterator
from typing import Literal

from pytest_multihost_env.provision.archive.stream import CHUNK, Stream, Unreadable

Kind = Literal["file", "hardlink", "symlink", "directory"]

BLOCK = 512
MOST = 1_000_000
"""More members than any environment has."""

_LONG = 1 << 16
_EXTENDED = 1 << 20
_FITS = 8**11  # bytes: a larger size does not fit into the plain header
_KINDS: dict[bytes, Kind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "directory",
}
_STRANGE = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO", b"S": "a sparse file"}
_SINGLE = ("path", "linkpath", "size", "mtime")


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """What a header says: `name` and `target` as they are written, `size` of the content that follows."""

    name: str
    kind: Kind
    size: int
    executable: bool
    mtime_ns: int
    target: str


@dataclasses.dataclass(slots=True)
class _Ahead:
    """What the headers before a member's own say about it."""

    name: bytes | None = None
    target: bytes | None = None
    extended: dict[str, str] | None = None

    def check(self, kind: str, *, extended: bool) -> None:
        twice = self.extended is not None if extended else (self.name if kind == "name" else self.target) is not None
        mixed = (self.name or self.target) is not None if extended else self.extended is not None
        if twice or mixed:
            raise Unreadable("has two headers that name one member")

    def __bool__(self) -> bool:
        return (self.name, self.target, self.extended) != (None, None, None)


def is_header(block: bytes) -> bool:
    """Whether `block` begins a tar archive: its checksum says so."""
    return len(block) == BLOCK and any(block) and _checksum(block) == _stated(block)


class Archive:
    """The members of a tar archive, one after the other, and the content of the one that was yielded last."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0  # bytes of content that nobody has read
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Yield the members.

        Raises:
            Unreadable: The archive is damaged, cut, or could be read in more than one way.
        """
        ahead, count = _Ahead(), 0
        while True:
            for _ in self.content():
                pass
            self._exactly(self._padding)
            self._padding = 0
            block = self._exactly(BLOCK)
            if not any(block):
                if ahead:
                    raise Unreadable("ends with a header that belongs to no member")
                self._end()
                return
            member = self._member(block, ahead)
            if member is not None:
                count += 1
                if count > MOST:
                    raise Unreadable(f"has more than {MOST:,} members")
                ahead = _Ahead()
                yield member

    def content(self) -> Iterator[bytes]:
        """Yield the content of the last member, in pieces."""
        while self._left:
            data = self._stream.read(min(self._left, CHUNK))
            if not data:
                raise Unreadable("ends in the middle of a file")
            self._left -= len(data)
            yield data

    def account(self, size: int) -> None:
        """Count `size` bytes that are written without being in the archive once more.

        Raises:
            Unreadable: That makes it a bomb.
        """
        self._stream.account(size)

    def _member(self, block: bytes, ahead: _Ahead) -> Member | None:
        """Return the member of this header, or None after noting in `ahead` what it says about the next one."""
        if _checksum(block) != _stated(block):
            raise Unreadable("is damaged: the checksum of a header is wrong")
        kind, size = block[156:157], _number(block[124:136], "size")
        if kind in (b"L", b"K"):
            ahead.check("name" if kind == b"L" else "target", extended=False)
            text = self._body(size, _LONG).rstrip(b"\0")
            if kind == b"L":
                ahead.name = text
            else:
                ahead.target = text
            return None
        if kind in (b"x", b"g"):
            values = _extended(self._body(size, _EXTENDED))
            if kind == b"x":
                ahead.check("", extended=True)
                ahead.extended = values
            elif any(key in values for key in _SINGLE):
                raise Unreadable("has a global header that names a file")
            return None
        if kind not in _KINDS:
            what = _STRANGE.get(kind, f"a member of type {kind!r}")
            raise Unreadable(f"holds {what}: {_text(_name(block))!r}")
        return self._described(block, _KINDS[kind], size, ahead)

    def _described(self, block: bytes, kind: Kind, size: int, ahead: _Ahead) -> Member:
        more = ahead.extended or {}
        name = more.get("path") or _text(ahead.name if ahead.name is not None else _name(block))
        target = more.get("linkpath") or _text(ahead.target if ahead.target is not None else _cut(block[157:257]))
        if "size" in more:
            stated, size = size, _decimal(more["size"])
            if size != stated and (stated or size < _FITS):
                raise Unreadable(f"says two sizes of one member: {name!r}")
        if kind != "file" and size:
            raise Unreadable(f"has content for {name!r}, which is a {kind}")
        if kind == "file" and name.endswith("/"):
            raise Unreadable(f"has a file whose name ends like a directory's: {name!r}")
        self._left, self._padding = size, -size % BLOCK
        mtime = _nanoseconds(more["mtime"]) if "mtime" in more else _number(block[136:148], "time") * 10**9
        executable = bool(_number(block[100:108], "mode") & 0o111)
        return Member(name, kind, size, executable, mtime, target)

    def _body(self, size: int, most: int) -> bytes:
        if size > most:
            raise Unreadable(f"has a header of {size} bytes")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size:
            raise Unreadable("ends without an end mark: it is cut")
        return data

    def _end(self) -> None:
        """Read on to the very end, where checksums stand; nothing but zeros may follow."""
        if any(self._exactly(BLOCK)):
            raise Unreadable("goes on after its end mark")
        while data := self._stream.read(CHUNK):
            if data.strip(b"\0"):
                raise Unreadable("goes on after its end mark")


def _stated(block: bytes) -> int:
    try:
        return _number(block[148:156], "checksum")
    except Unreadable:
        return -1


def _checksum(block: bytes) -> int:
    return sum(block[:148]) + 8 * ord(" ") + sum(block[156:])


def _number(field: bytes, what: str) -> int:
    """Return an octal number, or one in GNU's binary form when it does not fit."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
        if value >= 1 << 62:
            raise Unreadable(f"has a {what} of {value}")
        return value
    text = field.replace(b"\0", b" ").strip()
    if not re.fullmatch(rb"[0-7]*", text):
        raise Unreadable(f"has a {what} that is no number")
    return int(text or b"0", 8)


def _extended(data: bytes) -> dict[str, str]:
    """Return the records of an extended header (pax): `LENGTH KEY=VALUE newline`."""
    values: dict[str, str] = {}
    while data:
        match = re.match(rb"([1-9][0-9]{0,6}) ([^=\n]+)=", data)
        length = int(match[1]) if match else 0
        if match is None or match.end() >= length or data[length - 1 : length] != b"\n":
            raise Unreadable("has an extended header that is damaged")
        key = match[2].decode("utf-8", "replace")
        if key.startswith("GNU.sparse."):
            raise Unreadable("holds a sparse file")
        if key in values and key in _SINGLE:
            raise Unreadable(f"says {key} twice for one member")
        values[key] = _text(data[match.end() : length - 1])
        if key in _SINGLE and not values[key]:
            raise Unreadable(f"says nothing of the {key} of a member, in a header for it")
        data = data[length:]
    return values


def _decimal(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Unreadable(f"has a size that is no number: {text!r}")
    return int(text)


def _nanoseconds(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{0,30})?", text):
        raise Unreadable(f"has a time that is no number: {text!r}")
    return int(decimal.Decimal(text) * 10**9)


def _name(block: bytes) -> bytes:
    name = _cut(block[:100])
    prefix = _cut(block[345:500]) if block[257:263] == b"ustar\0" else b""  # GNU has other things there
    return prefix + b"/" + name if prefix else name


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
