r"""What a published environment consists of, as text that a person can read with `less`.

    multihost-env manifest 2
    {"key":"3f…","path":"/shared/.python_env.d/v1/3f…/att/n1-4711-…","source":"/opt/venv",…}

    /<TAB>0
    40755<TAB>bin<TAB>-
    100444<TAB>312<TAB>1732500000123456789<TAB>pyvenv.cfg<TAB>blake3:9b…

    /bin<TAB>1732500000123456789
    120777<TAB>python3<TAB>python<TAB>-
    100555<TAB>7921768<TAB>1732500000123456789<TAB>python<TAB>blake3:c1…

One block for each directory: its path and time, then what is in it, by name.  A file has type and mode (octal, as stat(2)
has them), size, time, name, and digest; a symlink its mode, name and text; a directory its mode and name.  In names
a line's end, a tab, a backslash and what is no UTF-8 are escapes.  All of a line but its last field is what a look
without reading shows (`walk`), so that such a look is compared as text (`standing`).

The digest of these bytes names the environment: two hosts with the same digest have the same files.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pytest_multihost_env import files
from pytest_multihost_env.provision.walk import digest_of, escaped, joined, plain

NAME = ".multihost-manifest"
FORMAT = 2
_HEADER = 1 << 20
LIMIT = 1 << 28
"""Bytes of a manifest that are read: some two million files."""

FILE, DIRECTORY, LINK = "file", "directory", "link"

_MAGIC = f"multihost-env manifest {FORMAT}"
_ANY_FORMAT = re.compile(rb'multihost-env manifest (\d{1,9})\n|\{.{0,4096}?"format":1[,}]', re.DOTALL)
_TYPES = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: LINK}
_MODES = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, LINK: stat.S_IFLNK | 0o777}
_FIELDS = {FILE: 5, DIRECTORY: 3, LINK: 4}


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """Where an environment came from and where it stands.

    Attributes:
        key: Fingerprint that it was built for.
        path: The directory that it was built in and for.
        source: What it was built from.
        python: The interpreter's version, as `pyvenv.cfg` has it.
        tool: Version of this package.
        builder: The process that built it (`actor.Actor` as a record).
        added: Distributions that the source lacked.
        origin: Fingerprints of the source as it was copied, by tier (`tiers`).
        conditions: Digest of all that the key holds besides the source.
        look: Digest of what a walk through it shows (`walk.whole`); `render` puts it there.
        facts: What a host must know before it runs the environment, by name (`glibc`).
        notes: What a person should know about it, in sentences.
        format: Version of this file's format.
    """

    key: str
    path: str
    source: str
    python: str
    tool: str
    builder: Mapping[str, object]
    added: tuple[str, ...] = ()
    origin: Mapping[str, str] = dataclasses.field(default_factory=dict)
    conditions: str = ""
    look: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: int = FORMAT


class Entry(NamedTuple):
    """One file, directory or symlink.  A tuple, since there are tens of thousands.

    Attributes:
        path: Relative to the environment.
        type: `FILE`, `DIRECTORY` or `LINK`.
        mode: Permission bits; 0 for a symlink.
        size: Bytes of a file; 0 else.
        mtime_ns: Time of the last change of a file or directory; 0 for a symlink.
        content: Digest of a file (`blake3:…`), text of a symlink, "" for a directory.
    """

    path: str
    type: str
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    content: str = ""


class Listing(NamedTuple):
    """One directory's block: its time, and a line for each thing in it, by name."""

    mtime_ns: int
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines."""
        return self.text.split("\n") if self.text else []

    @property
    def visible(self) -> str:
        """What of the lines a look shows that reads no file (`walk.Block.text`)."""
        return "\n".join([line.rpartition("\t")[0] for line in self.lines])


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest."""

    header: Header
    entries: tuple[Entry, ...]


def digest(data: bytes) -> str:
    """Return the name of the environment that the manifest `data` describes."""
    return hashlib.sha256(data).hexdigest()


def read(environment: Path) -> bytes:
    """Return the bytes of the environment's manifest, a name that was listed.

    Raises:
        OSError: It cannot be read, is no plain file, or is too large to be one.
    """
    return files.read_record(environment / NAME, limit=LIMIT).data


def read_header(environment: Path) -> Header:
    """Return where the environment came from, by its manifest, a name that was listed; the rest of that is not read.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not one, or of another format.
    """
    with (environment / NAME).open("rb") as file:
        return parse_header(file.readline(len(_MAGIC) + 2) + file.readline(_HEADER))


# -- writing -----------------------------------------------------------------------------------------------------


def render(header: Header, entries: Iterable[Entry]) -> bytes:
    """Return the manifest's bytes; the names in a directory are in order in `entries` (`scan`)."""
    within: dict[str, list[Entry]] = {}
    for entry in entries:
        within.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    blocks: dict[str, Listing] = {}
    directories = collections.deque([Entry("", DIRECTORY)])
    while directories:
        directory = directories.popleft()
        found = within.get(directory.path, [])
        blocks[directory.path] = Listing(directory.mtime_ns, "\n".join(map(_line, found)))
        directories += [entry for entry in found if entry.type == DIRECTORY]
    look = digest_of(joined((path, listing.visible) for path, listing in blocks.items()))
    record = dataclasses.asdict(header) | {"look": look}
    parts = [f"{_MAGIC}\n{json.dumps(record, ensure_ascii=True, separators=(',', ':'), sort_keys=True)}"]
    for path, listing in blocks.items():
        first = f"/{escaped(path)}\t{listing.mtime_ns}"
        parts.append(f"{first}\n{listing.text}" if listing.text else first)
    return ("\n\n".join(parts) + "\n").encode("utf-8")


def _line(entry: Entry) -> str:
    mode, name = entry.mode | _MODES[entry.type], escaped(entry.path.rpartition("/")[2])
    if entry.type == FILE:
        return f"{mode:o}\t{entry.size}\t{entry.mtime_ns}\t{name}\t{entry.content}"
    return f"{mode:o}\t{name}\t{escaped(entry.content)}\t-" if entry.type == LINK else f"{mode:o}\t{name}\t-"


# -- reading -----------------------------------------------------------------------------------------------------


def parse_header(data: bytes) -> Header:
    """Return where the environment of a manifest came from; the rest of it is not looked at.

    Raises:
        ValueError: It is not one, or of another format.
    """
    first = f"{_MAGIC}\n".encode()
    if not data.startswith(first):
        other = _ANY_FORMAT.match(data)
        if other is None:
            raise ValueError("not a manifest")
        raise ValueError(f"a manifest of format {(other[1] or b'1').decode()}, and this version reads {FORMAT}")
    try:
        end = data.find(b"\n", len(first))  # slices of the beginning only: the rest is megabytes
        return _header(json.loads(data[len(first) : end if end >= 0 else None]))
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"not a manifest: its header cannot be read: {error}") from None


def _header(record: Any) -> Header:
    texts = {name: _text(record[name]) for name in ("key", "path", "source", "python", "tool", "conditions", "look")}
    maps = {name: {_text(k): _text(v) for k, v in record[name].items()} for name in ("origin", "facts")}
    lists = {name: tuple(map(_text, record[name])) for name in ("added", "notes")}
    if record["format"] != FORMAT or not isinstance(record["builder"], dict) or not isinstance(record["added"], list):
        raise ValueError("a field is of another kind")
    return Header(builder=record["builder"], **texts, **maps, **lists)  # type: ignore[arg-type]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} where text should be")  # noqa: TRY004 - the file is wrong, not a type
    return value


class Listings(Mapping[str, Listing]):
    """The block of each directory of a manifest by its path ("" is the environment), read as far as is asked for.

    Blocks go level by level, so that whoever asks for what is near the top reads little.

    Raises:
        ValueError: It is not a manifest, or the end is missing; also later, while it is read on.
    """

    def __init__(self, data: bytes) -> None:
        parse_header(data)
        if not data.endswith(b"\n"):
            raise ValueError("not a manifest: its end is missing")
        self._data = data
        self._next = data.find(b"\n\n")
        self._found: dict[str, Listing] = {}

    def __getitem__(self, path: str) -> Listing:
        while path not in self._found:
            if self._next < 0:
                raise KeyError(path)
            self._read()
        return self._found[path]

    def __iter__(self) -> Iterator[str]:
        while self._next >= 0:
            self._read()
        return iter(self._found)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _read(self) -> None:
        start, self._next = self._next + 2, self._data.find(b"\n\n", self._next + 2)
        block = self._data[start : self._next if self._next >= 0 else -1].decode("utf-8")
        first, _, text = block.partition("\n")
        path, _, time = first.partition("\t")
        name = plain(path[1:])
        if path[:1] != "/" or name in self._found or not _is_time(time):
            raise ValueError(f"not a manifest: {first[:200]!r} begins no directory")
        self._found[name] = Listing(int(time), text)


def _is_time(text: str) -> bool:
    return len(text) < 24 and text.removeprefix("-").isdecimal() and text.isascii()


def parse(data: bytes) -> Manifest:
    """Return a whole manifest.

    Raises:
        ValueError: It is not one.
    """
    blocks = Listings(data)
    entries = tuple(entry for path, listing in blocks.items() for entry in entries_of(path, listing, blocks))
    known = {"", *(entry.path for entry in entries if entry.type == DIRECTORY)}
    if blocks.keys() != known:
        raise ValueError("not a manifest: it lists a directory without what is in it, or the reverse")
    if len({entry.path for entry in entries}) != len(entries):
        raise ValueError("not a manifest: it lists a name twice")
    return Manifest(parse_header(data), entries)


def entries_of(path: str, listing: Listing, blocks: Mapping[str, Listing]) -> Iterator[Entry]:
    """Yield what is in the directory `path`.

    Raises:
        ValueError: A line is not one of a manifest.
    """
    prefix = f"{path}/" if path else ""
    for line in listing.lines:
        fields = line.split("\t")
        try:
            mode = int(fields[0], 8)
            kind = _TYPES[stat.S_IFMT(mode)]
            if len(fields) != _FIELDS[kind]:
                raise ValueError("it has too many fields or too few")
            name = prefix + _one_name(fields[3 if kind == FILE else 1])
            match kind:
                case "file":
                    size, time = int(fields[1]), int(fields[2])
                    yield Entry(name, FILE, stat.S_IMODE(mode), size, time, fields[4])
                case "directory":
                    yield Entry(name, DIRECTORY, stat.S_IMODE(mode), mtime_ns=blocks[name].mtime_ns)
                case _:
                    yield Entry(name, LINK, content=plain(fields[2]))
        except (ValueError, KeyError, OverflowError) as error:
            raise ValueError(f"not a manifest: the line {line[:200]!r} cannot be read: {error}") from None


def _one_name(text: str) -> str:
    name = plain(text)
    if not name or "/" in name or name in {".", ".."}:
        raise ValueError("it names something outside of its directory")
    return name
