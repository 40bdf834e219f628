"""Sees to it that every module of an environment has bytecode that its Python accepts: none stale, none missing.

An environment is read-only once it is published, so what is missing here would be compiled at every start of every
process on every host (three times the import time of a large package).  Valid bytecode is left as it is.

What is compiled notes the source's time and size, as Python's own does, and not a hash that nobody checks: the copy and
the archive keep times to the nanosecond, and a person who edits a file in a copy of the environment sees the edit run.
"""

from __future__ import annotations

import concurrent.futures
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import ask, mishaps

_CHUNK = 200
_LIMIT = 600.0
_LOOKERS = 8
_HEADER = struct.Struct("<4sIII")


def complete(env: Path, work: Work) -> int:
    """Compile the modules below `env` that lack valid bytecode and return how many files were handed to the compiler.

    Files that are no Python for this version (templates, another version's syntax) are passed over: importing them
    fails with or without bytecode.

    Raises:
        NotReady: The interpreter does not run, or a directory cannot be read or written.
    """
    python = env / "bin" / "python"
    tag, magic = ask.interpreter(python, ["bytecode"])
    with mishaps.named("looking at the bytecode"):
        todo = sorted(lacking(env, tag, bytes.fromhex(magic)))
    if not todo:
        return 0
    work.progress.begin("compiling", files=len(todo))
    try:
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done in pool.map(lambda chunk: _compile(python, chunk), _chunks(todo)):
                work.progress.advance(done, 0)
    finally:
        work.progress.end()
    return len(todo)


def lacking(env: Path, tag: str, magic: bytes) -> Iterator[Path]:
    """Yield the sources below `env` whose bytecode is missing or would not be accepted.

    Args:
        env: The environment.
        tag: The interpreter's `sys.implementation.cache_tag`.
        magic: The beginning of its bytecode files.
    """
    with concurrent.futures.ThreadPoolExecutor(_LOOKERS) as pool:  # on shared storage each look is a wait
        for found in pool.map(lambda item: _look(item[0], item[1], tag, magic), _folders(env)):
            yield from found


def _folders(env: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, below, names in os.walk(env):
        below[:] = [name for name in below if name not in {"__pycache__", "bin"}]  # scripts are run, not imported
        # The compiler is given names by line, and nobody can import one that has two.
        sources = [name for name in names if name.endswith(".py") and "\n" not in f"{folder}{name}"]
        if sources:
            yield folder, sources


def _look(folder: str, sources: Sequence[str], tag: str, magic: bytes) -> list[Path]:
    """Return those of `sources` in `folder` whose bytecode is no good."""
    cache = f"{folder}/__pycache__"
    there = set(os.listdir(cache)) if os.path.isdir(cache) else set()  # noqa: PTH208, PTH112 - thousands of them
    bad = []
    for name in sources:
        compiled = f"{name[:-3]}.{tag}.pyc"
        if compiled not in there or not is_valid(f"{cache}/{compiled}", f"{folder}/{name}", magic):
            bad.append(Path(folder, name))
    return bad


def is_valid(compiled: str, source: str, magic: bytes) -> bool:
    """Whether Python takes the bytecode file `compiled` for `source` (PEP 552), by its header of 16 bytes."""
    descriptor = os.open(compiled, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = os.read(descriptor, _HEADER.size)
    finally:
        os.close(descriptor)
    if len(header) < _HEADER.size:
        return False
    found, flags, mtime, size = _HEADER.unpack(header)
    if found != magic or flags > 3:
        return False
    if flags:  # by a hash of the source, which Python compares itself, or is told not to
        return True
    status = os.stat(source)  # noqa: PTH116
    return (mtime, size) == (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)


def _chunks(files: Sequence[Path]) -> list[Sequence[Path]]:
    """Return `files` in parts: small enough for all processors to have one, large enough for Python's start."""
    size = max(1, min(_CHUNK, -(-len(files) // len(os.sched_getaffinity(0)))))
    return [files[at : at + size] for at in range(0, len(files), size)]


def _compile(python: Path, files: Sequence[Path]) -> int:
    listed = "".join(f"{file}\n" for file in files)
    ask.run([str(python), "-I", "-m", "compileall", "-q", "-q", "-f", "-i", "-"], stdin=listed, timeout=_LIMIT)
    return len(files)
