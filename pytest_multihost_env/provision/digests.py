"""Digests of files' contents as a manifest writes them: `blake3:<hex>`, or `sha256:<hex>` where blake3 is missing.

Run as a program (`python -I -S digests.py ALGORITHM [DIRECTORY]`) it takes those of the paths on standard input.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from typing import Protocol

BLAKE3, SHA256 = "blake3", "sha256"

LARGE = 1 << 20
"""Bytes from which on a file is read in pieces and hashed by all processors; below that, threads cost more than they give."""

_PIECE = 8 << 20


class _Hash(Protocol):
    def update(self, data: memoryview | bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


@functools.cache
def best() -> str:
    """Return the algorithm for new digests: blake3 where it can be imported."""
    try:
        import blake3  # noqa: F401 - asked for only
    except ImportError:
        return SHA256
    return BLAKE3


def algorithm(digest: str) -> str:
    """Return the algorithm of a digest that a manifest holds."""
    return digest.partition(":")[0]


def of_file(path: str, name: str = "") -> str:
    """Return the digest of the file at `path` (a symlink is refused), by the algorithm `name`; "": the best one.

    Raises:
        LookupError: There is no such algorithm here (`require`).
        OSError: It cannot be read.
    """
    name = name or best()
    start = _start(name)
    # Thousands of small files: no Path, no file object.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, LARGE)
        state = start(data, len(data) == LARGE)
        view = memoryview(bytearray(_PIECE if len(data) == LARGE else 4096))
        while count := os.readv(descriptor, [view]):  # a file system may give less than was asked for before the end
            state.update(view[:count])
    finally:
        os.close(descriptor)
    return f"{name}:{state.hexdigest()}"


@functools.cache
def _start(name: str) -> Callable[[bytes, bool], _Hash]:
    """Return what begins a hash with its first data; True: there is much more to come."""
    if name == SHA256:
        return lambda data, _large: hashlib.sha256(data)
    if name == BLAKE3 and best() == BLAKE3:
        from blake3 import blake3

        return lambda data, large: blake3(data, max_threads=blake3.AUTO if large else 1)
    raise LookupError(name)


def require(name: str) -> None:
    """Check that digests by the algorithm `name` can be taken here.

    Raises:
        NotReady: They cannot.
    """
    try:
        _start(name)
    except LookupError:
        from pytest_multihost_env.errors import NotReady

        raise NotReady(
            f"contents cannot be compared: their digests are of the kind {name!r}, which cannot be taken here",
            hint=f"pip install {name}, or use a version of multihost-env that knows it",
        ) from None


def _main() -> None:
    sys.path += sys.argv[2:]
    paths = sys.stdin.buffer.read().split(b"\0")
    print("\n".join([of_file(os.fsdecode(path), sys.argv[1]) for path in paths if path]))


if __name__ == "__main__":
    _main()
