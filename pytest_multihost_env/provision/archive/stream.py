"""Decompresses a file of unknown kind with little memory, to its very end, so that every checksum in it is looked at.

The readers of the standard library stop where the tar archive ends and never see gzip's checksum, which lies behind it.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

CHUNK = 1 << 20
"""Bytes that are decompressed at a time."""

FREE, RATIO = 256 << 20, 100
"""Beyond `FREE` bytes, an archive that becomes `RATIO` times as large as it is packed is a bomb; environments reach 10."""

_WINDOW = 128 << 20  # what `zstd` itself uses without --long=31, and more than `xz -9` needs


class Unreadable(Exception):
    """The file is damaged, cut, or not made for us; the text says how, as the end of "FILE ..."."""


class Decompressor(Protocol):
    """What `bz2`, `lzma` and `zstd` have in common."""

    @property
    def eof(self) -> bool:
        """The end of the stream was reached, and its checksum was right."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What follows the end."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most `max_length` bytes."""
        ...


class _Gzip:
    """`zlib` in the manner of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _bzip2() -> Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Decompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_WINDOW)


def _zstd() -> Decompressor:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    made: Decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})
    return made


_KINDS: dict[str, Callable[[], Decompressor]] = {"gzip": _Gzip, "bzip2": _bzip2, "xz": _xz, "zstd": _zstd}
_MAGIC = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def kind(head: bytes) -> str | None:
    """Return how a file that begins with `head` is compressed, or None when it is in no way that we know."""
    if head[1:4] == b"\x2a\x4d\x18" and head[:1] >= b"\x50" and head[:1] <= b"\x5f":  # a frame that says to skip it
        return "zstd"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


class Stream:
    """The decompressed content of a file; of one that is not compressed, its content.

    Attributes:
        packed: Bytes that were read of the file.
        unpacked: Bytes that came out.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb", buffering=0)
        self.packed = self.unpacked = 0
        self._buffer, self._at = b"", 0
        self._input = self._raw()
        found = kind(self._input)
        self._make = _KINDS[found] if found is not None else None
        self._inner: Decompressor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Return `size` bytes; fewer only at the end.

        Raises:
            Unreadable: The file is damaged or cut.
        """
        parts = []
        while size:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._more(), 0
                if not self._buffer:
                    break
            part = self._buffer[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _raw(self) -> bytes:
        data = self._file.read(CHUNK) or b""
        self.packed += len(data)
        return data

    def _more(self) -> bytes:
        """Return what comes next, or nothing at the end."""
        if self._make is None:
            data, self._input = self._input or self._raw(), b""
            self.account(len(data))
            return data
        while True:
            if self._inner is None and not self._another():
                return b""
            data = self._next(self._inner or self._make())
            if data:
                self.account(len(data))
                return data

    def _another(self) -> bool:
        """Begin the next compressed stream of the file; return whether there is one, after padding."""
        while not self._input.strip(b"\0"):
            self._input = self._raw()
            if not self._input:
                return False
        assert self._make is not None  # noqa: S101 - `_more` saw to it
        self._inner = self._make()
        return True

    def _next(self, inner: Decompressor) -> bytes:
        if inner.needs_input and not self._input:
            self._input = self._raw()
            if not self._input:
                raise Unreadable("ends in the middle")
        given, self._input = self._input, b""
        try:
            data = inner.decompress(given, CHUNK)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - each library has its own error, and only damage raises here
            raise Unreadable(f"is damaged: {error}") from None
        if inner.eof:
            self._input, self._inner = inner.unused_data, None
        return data

    def account(self, size: int) -> None:
        """Count `size` bytes as unpacked.

        Raises:
            Unreadable: There are far too many for what was read.
        """
        self.unpacked += size
        if self.unpacked > FREE and self.unpacked > RATIO * self.packed:
            raise Unreadable(f"becomes more than {RATIO} times as large as it is: no environment does")
