"""Reads what ELF files say of themselves: machine, needed libraries, search path, versions of the C library.

A few reads for each file; nothing of it is run.  The layout is that of elf(5); versions are those of the GNU loader.
"""

from __future__ import annotations

import dataclasses
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"\x7fELF"

# e_machine (elf(5), <elf.h>) to what `platform.machine()` says.
_MACHINES = {
    3: "i686",
    20: "ppc",
    21: "ppc64le",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
}
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_GLIBC = re.compile(r"GLIBC_(\d+)\.(\d+)")
_RELATIVE = "GLIBC_ABI_DT_RELR"  # no version in its name: the loader understands it since 2.36
_LIMIT = 16 << 20  # a table larger than this is no table


@dataclasses.dataclass(frozen=True, slots=True)
class Elf:
    """What one file says.

    Attributes:
        machine: What it runs on, as `platform.machine()` names it; a number in text for a rare one.
        needed: Names of the libraries that it asks for.
        rpath: Its search path that its own libraries inherit (`DT_RPATH`); `""` when it has none.
        runpath: Its search path for itself alone (`DT_RUNPATH`); a file with this one is not served by its loader's.
        glibc: The newest version of the C library that a symbol asks for; `(0, 0)` for none.
    """

    machine: str
    needed: tuple[str, ...] = ()
    rpath: str = ""
    runpath: str = ""
    glibc: tuple[int, int] = (0, 0)


def read(path: str | Path) -> Elf | None:
    """Return what the file `path` says, or None when it is no ELF file, or a broken one.

    Raises:
        OSError: It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(descriptor, 64, 0)
        if head[:4] != MAGIC or len(head) < 52:
            return None
        return _Reader(descriptor, head).elf()
    except (struct.error, IndexError, KeyError, ValueError, OverflowError):
        return None
    finally:
        os.close(descriptor)


class _Reader:
    """The tables of one file."""

    def __init__(self, descriptor: int, head: bytes) -> None:
        self._descriptor = descriptor
        self._order = "<" if head[5] == 1 else ">"
        self._wide = head[4] == 2
        self._head = head
        self._loads: list[tuple[int, int, int]] = []

    def elf(self) -> Elf:
        """Return what the file says."""
        machine = self._unpack("H", self._head, 18)[0]
        name = _MACHINES.get(machine, str(machine))
        if machine == 21 and self._order == ">":
            name = "ppc64"
        dynamic = self._segments()
        if dynamic is None:  # linked statically, or an object file
            return Elf(name)
        single: dict[int, int] = {}
        needed: list[int] = []
        for tag, value in self._pairs(self._at(*dynamic)):
            if tag == _DT_NEEDED:
                needed.append(value)
            single.setdefault(tag, value)
        strings = self._at(self._offset(single[_DT_STRTAB]), single[_DT_STRSZ])
        paths = {tag: _string(strings, single[tag]) if tag in single else "" for tag in (_DT_RPATH, _DT_RUNPATH)}
        return Elf(
            machine=name,
            needed=tuple(_string(strings, value) for value in needed),
            rpath=paths[_DT_RPATH],
            runpath=paths[_DT_RUNPATH],
            glibc=max(self._versions(single, strings), default=(0, 0)),
        )

    def _unpack(self, form: str, data: bytes, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, data, offset)

    def _at(self, offset: int, size: int) -> bytes:
        if size > _LIMIT:
            raise ValueError(size)
        return os.pread(self._descriptor, size, offset)

    def _segments(self) -> tuple[int, int] | None:
        """Note the loaded segments and return offset and size of the dynamic one."""
        start = self._unpack("Q" if self._wide else "I", self._head, 32 if self._wide else 28)[0]
        size, count = self._unpack("HH", self._head, 54 if self._wide else 42)
        table = self._at(start, size * count)
        found = None
        for number in range(count):
            at = number * size
            kind = self._unpack("I", table, at)[0]
            if self._wide:
                offset, address, _, length = self._unpack("QQQQ", table, at + 8)
            else:
                offset, address, _, length = self._unpack("IIII", table, at + 4)
            if kind == _PT_LOAD:
                self._loads.append((address, offset, length))
            elif kind == _PT_DYNAMIC:
                found = (offset, length)
        return found

    def _offset(self, address: int) -> int:
        """Return where in the file the address lies."""
        for begin, offset, length in self._loads:
            if begin <= address < begin + length:
                return address - begin + offset
        raise ValueError(address)

    def _pairs(self, data: bytes) -> Iterator[tuple[int, int]]:
        form = self._order + ("QQ" if self._wide else "II")
        for tag, value in struct.iter_unpack(form, data[: len(data) - len(data) % struct.calcsize(form)]):
            if tag == 0:
                return
            yield tag, value

    def _versions(self, single: dict[int, int], strings: bytes) -> Iterator[tuple[int, int]]:
        """Yield the versions of the C library in the table of needed versions (`.gnu.version_r`)."""
        if _DT_VERNEED not in single:
            return
        at = self._offset(single[_DT_VERNEED])
        for _ in range(single.get(_DT_VERNEEDNUM, 0)):
            _, count, _, aux, following = self._unpack("HHIII", self._at(at, 16), 0)
            here = at + aux
            for _ in range(count):
                _, _, _, name, step = self._unpack("IHHII", self._at(here, 16), 0)
                version = _string(strings, name)
                if match := _GLIBC.match(version):
                    yield int(match[1]), int(match[2])
                elif version == _RELATIVE:
                    yield 2, 36
                here += step
            at += following


def _string(table: bytes, offset: int) -> str:
    return os.fsdecode(table[offset : table.index(0, offset)])
