r"""Lists a tree by one lstat(2) for each name, as the lines of a manifest without their digests.  Standard library only.

Run as a program (`python -I -S walk.py ROOT NAME`) it writes what `whole` finds, so that a second processor looks through
a second tree.
"""

from __future__ import annotations

import contextlib
import hashlib
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
_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN = _TOP | os.O_NOFOLLOW

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
        text: A line for each name, in order.
        uids: Who owns what was looked at by stat(2).
        below: Its directories: relative paths.
        mtime_ns: When a name last came or went; 0 where the look is at each of the names.
    """

    path: str
    text: str
    uids: frozenset[int]
    below: tuple[str, ...]
    mtime_ns: int = 0

    @property
    def entries(self) -> int:
        """How many names there are."""
        return self.text.count("\n") + 1 if self.text else 0


Look = Callable[[int, str], Block]
"""`look(top, path)` looks at one directory of the tree whose top is open as `top`."""

Map = Callable[[Callable[[str], Block], Iterable[str]], Iterable[Block]]


def walk(root: str, look: Look) -> Iterator[Block]:
    """Yield a block for each directory of a tree: level by level, in the order of names.

    On a disk, threads would only take the interpreter from each other; on a network file system each call waits, and
    they wait together.  How long the calls took so far decides.

    Raises:
        OSError: A directory cannot be listed.
    """
    level, seconds, names = [""], 0.0, 0
    with contextlib.ExitStack() as stack:
        top = os.open(root, _TOP)  # the kernel then looks up what is below, not the whole path
        stack.callback(os.close, top)
        mapped: Map = map
        while level:
            following: list[str] = []
            for start in range(0, len(level), _BATCH):
                if mapped is map and names > _BATCH and seconds / names > SLOW:
                    mapped = _pool(stack)
                began = time.perf_counter()
                blocks = list(mapped(lambda path: look(top, path), level[start : start + _BATCH]))
                seconds += time.perf_counter() - began
                names += sum(block.entries + 1 for block in blocks)
                for block in blocks:
                    following += block.below
                    yield block
            level = following


def _pool(stack: contextlib.ExitStack) -> Map:
    from concurrent.futures import ThreadPoolExecutor  # 20 ms, which a tree on a disk need not spend

    return stack.enter_context(ThreadPoolExecutor(_THREADS)).map


def one(root: str, path: str, look: Look) -> Block:
    """Look at one directory of a tree."""
    top = os.open(root, _TOP)
    try:
        return look(top, path)
    finally:
        os.close(top)


def with_stat(top: int, path: str) -> Block:
    """List a directory with type, mode, size and time of each name."""
    return _listed(top, path, bytecode=True)


def without_bytecode(top: int, path: str) -> Block:
    """List a directory as `with_stat` does, but for bytecode, which merely importing a module writes."""
    return _listed(top, path, bytecode=False)


def is_bytecode(name: str) -> bool:
    """Return whether a name is one that Python gives to bytecode or its directory."""
    return name == "__pycache__" or name.endswith(".pyc")


def _listed(top: int, path: str, *, bytecode: bool) -> Block:
    descriptor = os.open(path or ".", _OPEN, dir_fd=top)
    try:
        names = sorted(os.listdir(descriptor))  # noqa: PTH208
        if not bytecode:
            names = [name for name in names if not is_bytecode(name)]
        plain = _is_plain("".join(names))
        lines: list[str] = []
        below: list[str] = []
        uids: set[int] = set()
        for name in names:
            try:
                status = os.lstat(name, dir_fd=descriptor)
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
        return Block(path, "\n".join(lines), frozenset(uids), tuple(below))
    finally:
        os.close(descriptor)


def with_names(top: int, path: str) -> Block:
    """List only the names in a directory, those of directories with a slash: one stat(2) for all of them."""
    return _named(top, path, bytecode=True)


def names_without_bytecode(top: int, path: str) -> Block:
    """List only the names in a directory as `with_names` does, but for bytecode."""
    return _named(top, path, bytecode=False)


def _named(top: int, path: str, *, bytecode: bool) -> Block:
    descriptor = os.open(path or ".", _OPEN, dir_fd=top)
    try:
        status = os.stat(descriptor)  # noqa: PTH116
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
        return Block(path, text, frozenset({status.st_uid}), tuple(sorted(below)), status.st_mtime_ns)
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


# -- whole trees -------------------------------------------------------------------------------------------------


class Whole(NamedTuple):
    """What a walk by `with_stat` through a tree found.

    Attributes:
        digest: sha256 of the text.
        entries: How many names there are.
        uids: Who owns them.
        text: Of all directories (`joined`).
    """

    digest: str
    entries: int
    uids: frozenset[int]
    text: str


def whole(root: str, without: str) -> Whole:
    """Walk through a tree; the name `without` in its top is left out.

    Raises:
        OSError: A directory cannot be listed.
    """
    blocks = list(walk(root, with_stat))
    top = "\n".join([line for line in blocks[0].text.split("\n") if not line.endswith(f"\t{without}")])
    blocks[0] = blocks[0]._replace(text=top)
    text = joined((block.path, block.text) for block in blocks)
    uids = frozenset({os.stat(root).st_uid}).union(*[block.uids for block in blocks])  # noqa: PTH116
    return Whole(digest_of(text), sum(block.entries for block in blocks), uids, text)


def joined(directories: Iterable[tuple[str, str]]) -> str:
    """Return the text of directories, each with its path, in the order of `walk`."""
    return "\n\n".join([f"/{escaped(path)}\n{text}" for path, text in directories])


def parted(text: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of each directory that `joined` put together."""
    for part in text[1:].split("\n\n/"):
        path, _, lines = part.partition("\n")
        yield plain(path), lines


def digest_of(text: str) -> str:
    """Return the digest of what `joined` returned."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def dump(found: Whole) -> bytes:
    """Return what a walk found as bytes, the short part first."""
    uids = ",".join(map(str, sorted(found.uids)))
    return f"{found.digest} {found.entries} {uids}\n{found.text}".encode() + _END


def load(data: bytes) -> Whole:
    """Return what `dump` made `data` of.

    Raises:
        ValueError: The end is missing: whoever wrote it did not finish.
    """
    if not data.endswith(_END):
        raise ValueError("the listing has no end")
    first, _, text = data[: -len(_END)].decode("utf-8").partition("\n")
    digest, entries, uids = first.split(" ")
    return Whole(digest, int(entries), frozenset(map(int, uids.split(","))), text)


if __name__ == "__main__":
    sys.stdout.buffer.write(dump(whole(sys.argv[1], sys.argv[2])))
