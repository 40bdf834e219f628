"""Tar archives as no honest program writes them: raw headers, and a list of named tricks with what must be said of each."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

BLOCK = 512
END = bytes(2 * BLOCK)


def header(
    name: bytes | str,
    kind: bytes = b"0",
    *,
    size: int = 0,
    target: bytes | str = b"",
    mode: int = 0o644,
    **fields: bytes,
) -> bytes:
    """Return one header with a right checksum; `fields` replace what stands there (`size_field`, `magic`, ...)."""
    name, target = (text.encode() if isinstance(text, str) else text for text in (name, target))
    block = bytearray(BLOCK)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:108] = b"%07o\0" % mode
    block[108:124] = b"0000000\0" * 2
    block[124:136] = fields.get("size_field", b"%011o\0" % size)
    block[136:148] = fields.get("time_field", b"%011o\0" % 1_700_000_000)
    block[156:157] = kind
    block[157:257] = target[:100].ljust(100, b"\0")
    block[257:265] = fields.get("magic", b"ustar\x0000")
    block[345:500] = fields.get("prefix", b"").ljust(155, b"\0")
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


def member(name: bytes | str, content: bytes = b"", kind: bytes = b"0", **more: object) -> bytes:
    """Return a header and its content, padded."""
    padding = bytes(-len(content) % BLOCK)
    return header(name, kind, size=len(content), **more) + content + padding  # type: ignore[arg-type]


def link(name: str, target: str, kind: bytes = b"2") -> bytes:
    """Return a symlink, or a hard link (kind 1)."""
    return header(name, kind, target=target)


def pax(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    """Return an extended header."""
    data = b""
    for key, value in records:
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        data += str(length).encode() + body
    return member("pax", data, kind)


def environment(top: str = "") -> bytes:
    """Return members that make a small environment, which is good; its interpreter is the one that runs the tests."""
    made = b"".join(header(f"{top}{name}", b"5", mode=0o755) for name in ("bin", "lib"))
    made += link(f"{top}bin/python", os.path.realpath(sys.executable)) + link(f"{top}bin/python3", "python")
    return made + member(f"{top}pyvenv.cfg", b"home = /usr/bin\n")


@dataclasses.dataclass(frozen=True)
class Trick:
    """An archive that must be refused.

    Attributes:
        made: Returns what is added to a good environment; it is given a directory that must stay as it is.
        said: Part of the refusal: that it is refused for the right reason.
        end: What the archive ends with.
    """

    made: Callable[[Path], bytes]
    said: str
    end: bytes = END


def _deep(outside: Path) -> bytes:
    """CVE-2025-4517: directories so deep that realpath gives up, a link past them, and a file through it."""
    part, made, path = "d" * 247, b"", ""
    for step in "abcdefghijklmnop":
        path += f"{part}/"
        made += pax(("path", path)) + header("d", b"5")
        made += pax(("path", f"{path}../{step}"), ("linkpath", part)) + header("l", b"2")
    return made + link("escape", f"{'/'.join('abcdefghijklmnop')}/{'../' * 30}{outside}")


TRICKS: dict[str, Trick] = {
    "absolute name": Trick(lambda out: pax(("path", f"{out}/new")) + member("x", b"evil"), "absolute path"),
    "upwards": Trick(lambda _: member("../../new", b"evil"), "leads upwards"),
    "upwards in the middle": Trick(lambda _: member("bin/../../new", b"evil"), "leads upwards"),
    "upwards by the prefix field": Trick(lambda _: member("new", b"evil", prefix=b".."), "leads upwards"),
    "upwards by GNU's long name": Trick(lambda _: member("l", b"../new\0", b"L") + member("x", b"e"), "leads upwards"),
    "upwards by a directory": Trick(lambda _: header("../new", b"5"), "leads upwards"),
    "upwards by a symlink's name": Trick(lambda _: link("../new", "x"), "leads upwards"),
    "symlink to an absolute path": Trick(lambda out: pax(("linkpath", str(out))) + link("a", "x"), "out of the env"),
    "symlink upwards": Trick(lambda _: link("lib/a", "../../.."), "out of the environment"),
    "symlink, then a file through it": Trick(
        lambda out: pax(("linkpath", str(out))) + link("a", "x") + member("a/new", b"evil"), "out of the environment"
    ),
    "inner symlink, then a file through it": Trick(
        lambda _: link("a", "lib") + member("a/new", b"evil"), "two members of one name"
    ),
    "symlink over a file": Trick(lambda _: member("a", b"x") + link("a", "lib"), "two members of one name"),
    "two symlinks of one name": Trick(lambda _: link("a", "lib") + link("a", "bin"), "two members of one name"),
    "symlink by way of another": Trick(
        lambda _: header("lib/d", b"5") + link("a", "lib/d") + link("b", "a/../../.."), "out of the environment"
    ),
    "symlinks in a circle": Trick(lambda _: link("a", "b") + link("b", "a"), "in a circle"),
    "symlink to nothing": Trick(lambda _: link("a", ""), "usable target"),
    "an interpreter that is none": Trick(
        lambda out: pax(("linkpath", f"{out}/sh")) + link("bin/python3.99", "x"), "out of the environment"
    ),
    "CVE-2025-4517, deeper than PATH_MAX": Trick(_deep, "leads upwards"),
    "CVE-2025-4330, link with a name that resolves elsewhere": Trick(
        lambda _: header("a/b/c", b"5") + link("x", "a/b/c") + link("y", "x/../../../../new"), "out of the environment"
    ),
    "CVE-2025-4138, link through a link": Trick(
        lambda _: header("p/q", b"5") + link("p/q/up", "../..") + link("z", "p/q/up/../../new"), "out of the env"
    ),
    "CVE-2024-12718, times and modes outside": Trick(lambda _: header("..", b"5", mode=0o777), "leads upwards"),
    "CVE-2026-11940, hard link to a deeper symlink": Trick(
        lambda _: header("a/b", b"5") + link("a/b/s", "../../../new") + link("h", "a/b/s", b"1"), "no file before it"
    ),
    "CVE-2025-8194, a size below nothing": Trick(
        lambda _: header("a", size_field=b"\xff" * 12), "size that is no number"
    ),
    "CVE-2025-13462, two headers for one name": Trick(
        lambda _: member("l", b"good\0", b"L") + pax(("path", "bad")) + member("x", b"e"), "two headers"
    ),
    "CVE-2025-62518, a size that two headers disagree on": Trick(
        lambda _: pax(("size", "0")) + member("a", member("hidden", b"evil")), "two sizes"
    ),
    "hard link to an absolute path": Trick(lambda out: link("a", f"{out}/kept", b"1"), "absolute path"),
    "hard link upwards": Trick(lambda _: link("a", "../kept", b"1"), "leads upwards"),
    "hard link to a directory": Trick(lambda _: link("a", "bin", b"1"), "no file before it"),
    "hard link to what comes later": Trick(lambda _: link("a", "b", b"1") + member("b", b"x"), "no file before it"),
    "hard link with content": Trick(lambda _: member("a", b"x", b"1", target="pyvenv.cfg"), "has content"),
    "character device": Trick(lambda _: header("null", b"3"), "character device"),
    "block device": Trick(lambda _: header("disk", b"4"), "block device"),
    "FIFO": Trick(lambda _: header("pipe", b"6"), "FIFO"),
    "sparse file": Trick(lambda _: header("a", b"S"), "sparse"),
    "sparse file by an extended header": Trick(
        lambda _: pax(("GNU.sparse.major", "1"), ("GNU.sparse.name", "b")) + member("a", b"x"), "sparse"
    ),
    "unknown type": Trick(lambda _: header("a", b"Z"), "type"),
    "file twice": Trick(lambda _: member("a", b"x") + member("./a", b"y"), "two members of one name"),
    "directory twice": Trick(lambda _: header("d", b"5") + header("d/", b"5"), "two members of one name"),
    "file that is a directory": Trick(lambda _: member("lib", b"x"), "two members of one name"),
    "file below a file": Trick(lambda _: member("a", b"x") + member("a/b", b"y"), "no directory"),
    "file with a directory's name": Trick(lambda _: member("a/", b"x"), "ends like a directory's"),
    "its own top as a file": Trick(lambda _: member("./", b""), "ends like a directory's"),
    "its own top as a link": Trick(lambda _: link(".", "bin"), "its own top"),
    "a component too long": Trick(lambda _: pax(("path", "n" * 256)) + member("x"), "too long"),
    "a path too long": Trick(lambda _: pax(("path", "n/" * 2100 + "n")) + member("x"), "too long"),
    "NUL in a name": Trick(lambda _: pax(("path", "a\0b")) + member("x"), "NUL"),
    "one key twice": Trick(lambda _: pax(("path", "a"), ("path", "../b")) + member("x"), "twice"),
    "an empty key": Trick(lambda _: pax(("path", "")) + member("../x"), "says nothing"),
    "a global header that names": Trick(lambda _: pax(("path", "../x"), kind=b"g") + member("y"), "global"),
    "a huge extended header": Trick(lambda _: header("pax", b"x", size=1 << 30), "header of"),
    "an extended header cut short": Trick(lambda _: member("pax", b"99 path=a\n", b"x") + member("y"), "damaged"),
    "an extended header without a member": Trick(lambda _: pax(("path", "a")), "belongs to no member"),
    "a size that is no number": Trick(lambda _: header("a", size_field=b"0x1f\0" + bytes(7)), "no number"),
    "a size beyond everything": Trick(lambda _: header("a", size_field=b"\x80" + b"\xff" * 11), "size of"),
    "a wrong checksum": Trick(lambda _: header("a")[:100] + b"9" + header("a")[101:], "checksum"),
    "something after the end": Trick(lambda _: b"", "after its end", END + member("hidden", b"evil")),
    "no end": Trick(lambda _: b"", "cut", b""),
    "half an end": Trick(lambda _: b"", "cut", bytes(BLOCK)),
}
