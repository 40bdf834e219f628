"""Copies what is in a file by the cheapest way that the file systems have, and takes its digest on the way."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = 1 << 20
_FICLONE = 0x40049409  # ioctl_ficlonerange(2)
_NO_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EIO}


class Shrunk(Exception):
    """The file has less in it than its size said."""


class Content:
    """Copies between open files; one for each thread.

    Args:
        algorithm: "blake3", "sha256", or "" for no digest.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hasher = _hasher(algorithm)
        self._clones = True
        self._ranges = hasattr(os, "copy_file_range")
        self._buffer = memoryview(bytearray(SMALL))

    def copy(self, reader: int, writer: int, size: int) -> str:
        """Copy `size` bytes, all that is in the file, and return their digest ("" without an algorithm).

        Raises:
            Shrunk: There was less.
            OSError: The content could not be read or written.
        """
        if size and self._clones and self._clone(reader, writer):
            if os.fstat(writer).st_size < size:
                raise Shrunk
            return self._pass(reader, size, None) if self._algorithm else ""
        if self._algorithm or size <= SMALL:
            return self._pass(reader, size, writer)
        done = self._in_kernel(reader, writer, size)
        return self._pass(reader, size - done, writer)

    def _clone(self, reader: int, writer: int) -> bool:
        """Share the blocks with the source until either is written to: nothing is read or written at all."""
        try:
            fcntl.ioctl(writer, _FICLONE, reader)
        except OSError:  # each file system says it in its own way; what is really wrong shows when it is read
            self._clones = False
            return False
        return True

    def _in_kernel(self, reader: int, writer: int, size: int) -> int:
        """Copy without taking the bytes out of the kernel, or the server; return how many were done."""
        done = 0
        while done < size and self._ranges:
            try:
                step = os.copy_file_range(reader, writer, size - done)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                self._ranges = False  # another file system, mostly
                break
            if not step:
                break
            done += step
        return done

    def _pass(self, reader: int, size: int, writer: int | None) -> str:
        """Read `size` bytes, write them, and return their digest; what is large goes through one buffer that stays cached."""
        if size <= SMALL:
            data = _read(reader, size)
            if writer is not None:
                _write(writer, data)
            return str(self._hasher(data).hexdigest()) if self._algorithm else ""
        hasher = self._hasher()
        left = size
        while left:
            got = os.readv(reader, [self._buffer[: min(left, SMALL)]])
            if not got:
                raise Shrunk
            part = self._buffer[:got]
            if self._algorithm:
                hasher.update(part)
            if writer is not None:
                _write(writer, part)
            left -= got
        return str(hasher.hexdigest()) if self._algorithm else ""


def _read(reader: int, size: int) -> bytes:
    data = os.read(reader, size) if size else b""
    while len(data) < size:
        more = os.read(reader, size - len(data))
        if not more:
            raise Shrunk
        data += more
    return data


def _write(writer: int, data: bytes | memoryview) -> None:
    done = os.write(writer, data) if data else 0
    while done < len(data):
        done += os.write(writer, memoryview(data)[done:])


def _hasher(algorithm: str) -> Callable[..., Any]:
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3
    import hashlib

    return hashlib.sha256
