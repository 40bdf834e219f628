r"""Lists a tree by one stat(2) for each name, as the lines of a manifest without their digests.  Standard library only.

Run as a program (`python -I -S walk.py ROOT`) it writes them, so that a second processor looks through a second tree.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_ODD = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))|\\")
_KIND = 0o170000
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

SLOW = 40e-6
"""Seconds for one name from which on each call waits for a server: then several are made at a time."""

_THREADS = 16
_BATCH = 64
"""Directories that are looked at before the decision is made again."""

_END = b"\n.\n"


class Block(NamedTuple):
    """What is in one directory.

    Attributes:
        path: Relative to the tree; "" is its top.
        mtime_ns: When a name last came or went.
        mode: As stat(2) has it.
        uids: Who owns it and what is in it.
        text: A line for each name, in order.
        below: Its directories: relative paths.
    """

    path: str
    mtime_ns: int
    mode: int
    uids: frozenset[int]
    text: str
    below: tuple[str, ...]


Look = Callable[[str, str], Block]
"""`look(root, path)` looks at one directory."""

Map = Callable[[Callable[[str], Block], Iterable[str]], Iterable[Block]]


def walk(root: str, look: Look) -> Iterator[Block]:
    """Yield a block for each directory below `root`, level by level.

    On a disk, threads would only take the interpreter from each other; on a network file system each call waits, and
    they wait together.  How long the calls took so far decides.

    Raises:
        OSError: A directory cannot be listed.
    """
    level, seconds, names = [""], 0.0, 0
    with contextlib.ExitStack() as stack:
        mapped: Map = map
        while level:
            following: list[str] = []
            for start in range(0, len(level), _BATCH):
                if mapped is map and names > _BATCH and seconds / names > SLOW:
                    mapped = _pool(stack)
                began = time.perf_counter()
                blocks = list(mapped(lambda path: look(root, path), level[start : start + _BATCH]))
                seconds += time.perf_counter() - began
                names += sum(block.text.count("\n") + 2 for block in blocks)
                for block in blocks:
                    following += block.below
                    yield block
            level = following


def _pool(stack: contextlib.ExitStack) -> Map:
    from concurrent.futures import ThreadPoolExecutor  # 20 ms, which a tree on a disk need not spend

    return stack.enter_context(ThreadPoolExecutor(_THREADS)).map


def with_stat(root: str, path: str) -> Block:
    """List a directory with type, mode, size and time of each name."""
    return _listed(root, path, bytecode=True)


def without_bytecode(root: str, path: str) -> Block:
    """List a directory as `with_stat` does, but for bytecode, which merely importing a module writes."""
    return _listed(root, path, bytecode=False)


def is_bytecode(name: str) -> bool:
    """Return whether a name is one that Python gives to bytecode or its directory."""
    return name == "__pycache__" or name.endswith(".pyc")


def _listed(root: str, path: str, *, bytecode: bool) -> Block:
    descriptor = _open(root, path)
    try:
        top = os.stat(descriptor)  # noqa: PTH116 - by descriptor: one name is looked up, not the whole path
        names = sorted(os.listdir(descriptor))  # noqa: PTH208
        if not bytecode:
            names = [name for name in names if not is_bytecode(name)]
        plain = _is_plain("".join(names))
        lines: list[str] = []
        below: list[str] = []
        uids = {top.st_uid}
        for name in names:
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                text = name if plain else escaped(name)
                mode = status.st_mode
                kind = mode & _KIND
                if kind == stat.S_IFREG:
                    lines.append(f"{mode:o}\t{status.st_size}\t{status.st_mtime_ns}\t{text}")
                elif kind == stat.S_IFLNK:
                    lines.append(f"{mode:o}\t{text}\t{escaped(os.readlink(name, dir_fd=descriptor))}")
                else:
                    lines.append(f"{mode:o}\t{text}")
                    if kind == stat.S_IFDIR:
                        below.append(f"{path}/{name}" if path else name)
                uids.add(status.st_uid)
            except FileNotFoundError:  # it went after it was listed
                continue
        return Block(path, top.st_mtime_ns, top.st_mode, frozenset(uids), "\n".join(lines), tuple(below))
    finally:
        os.close(descriptor)


def _open(root: str, path: str) -> int:
    return os.open(f"{root}/{path}", _OPEN) if path else os.open(root, _OPEN & ~os.O_NOFOLLOW)


def with_names(root: str, path: str) -> Block:
    """List only the names in a directory, those of directories with a slash: one stat(2) for all of them."""
    return _named(root, path, bytecode=True)


def names_without_bytecode(root: str, path: str) -> Block:
    """List only the names in a directory as `with_names` does, but for bytecode."""
    return _named(root, path, bytecode=False)


def _named(root: str, path: str, *, bytecode: bool) -> Block:
    descriptor = _open(root, path)
    try:
        top = os.stat(descriptor)  # noqa: PTH116
        names: list[str] = []
        below: list[str] = []
        with os.scandir(descriptor) as found:
            for entry in found:
                if not bytecode and is_bytecode(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(f"{path}/{entry.name}" if path else entry.name)
                    names.append(f"{escaped(entry.name)}/")
                else:
                    names.append(escaped(entry.name))
        text = "\n".join(sorted(names))
        return Block(path, top.st_mtime_ns, top.st_mode, frozenset({top.st_uid}), text, tuple(sorted(below)))
    finally:
        os.close(descriptor)


# -- names -------------------------------------------------------------------------------------------------------


def escaped(name: str) -> str:
    r"""Return `name` as it stands in a manifest.

    `\\` is a backslash, `\x0a` a control character or a byte that is no UTF-8, `\u2028` what would look like a line's end.
    """
    return name if _is_plain(name) else _ODD.sub(_escape, name)


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and "\\" not in name


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if found[0] == "\\":
        return "\\\\"
    if 0xDC80 <= number <= 0xDCFF:  # os.fsdecode's way to say a byte
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}"


def plain(name: str) -> str:
    """Return the name that stands as `name` in a manifest.

    Raises:
        ValueError: It cannot stand there.
    """
    return _ESCAPE.sub(_unescape, name) if "\\" in name else name


def _unescape(found: re.Match[str]) -> str:
    if found[1]:
        number = int(found[1], 16)
        return chr(number if number < 0x80 else number + 0xDC00)
    if found[2]:
        return chr(int(found[2], 16))
    if found[0] == "\\\\":
        return "\\"
    raise ValueError("not a manifest: a name has a backslash that says nothing")


# -- from one process to another ---------------------------------------------------------------------------------


def dump(blocks: Iterable[Block]) -> bytes:
    """Return blocks as bytes; which directories are below is told by the lines."""
    parts = []
    for block in blocks:
        uids = ",".join(map(str, block.uids))
        head = f"/{escaped(block.path)}\t{block.mtime_ns}\t{block.mode}\t{uids}"
        parts.append(f"{head}\n{block.text}" if block.text else head)
    return "\n\n".join(parts).encode("utf-8") + _END


def load(data: bytes) -> Iterator[Block]:
    """Yield the blocks that `dump` made `data` of, but for `below`.

    Raises:
        ValueError: The end is missing: whoever wrote it did not finish.
    """
    if not data.endswith(_END):
        raise ValueError("the listing has no end")
    for text in data[: -len(_END)].decode("utf-8").split("\n\n"):
        first, _, rest = text.partition("\n")
        path, mtime_ns, mode, uids = first.split("\t")
        yield Block(plain(path[1:]), int(mtime_ns), int(mode), frozenset(map(int, uids.split(","))), rest, ())


if __name__ == "__main__":
    sys.stdout.buffer.write(dump(walk(sys.argv[1], with_stat)))
