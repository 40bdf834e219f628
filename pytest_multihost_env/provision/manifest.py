"""What a published environment consists of: one header line, then one line of JSON for each entry, sorted by path.

The digest of these bytes names the environment: two hosts with the same digest have the same files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_multihost_env.errors import NotReady

NAME = ".multihost-manifest"
FORMAT = 1

FILE, DIRECTORY, LINK = "file", "directory", "link"


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
        format: Version of this file's format.
    """

    key: str
    path: str
    source: str
    python: str
    tool: str
    builder: Mapping[str, object]
    added: tuple[str, ...] = ()
    format: int = FORMAT


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symlink.

    Attributes:
        path: Relative to the environment.
        type: `FILE`, `DIRECTORY` or `LINK`.
        mode: Permission bits; 0 for a symlink.
        size: Bytes of a file; 0 else.
        content: sha256 of a file, text of a symlink, "" for a directory.
    """

    path: str
    type: str
    mode: int = 0
    size: int = 0
    content: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest."""

    header: Header
    entries: tuple[Entry, ...]


def digest(data: bytes) -> str:
    """Return the name of the environment that the manifest `data` describes."""
    return hashlib.sha256(data).hexdigest()


def render(header: Header, entries: Iterator[Entry]) -> bytes:
    """Return the manifest's bytes."""
    lines = [_line(dataclasses.asdict(header))]
    lines += [_line(dataclasses.asdict(entry)) for entry in entries]
    return b"".join(lines)


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def parse_header(data: bytes) -> Header:
    """Return the first line of a manifest.

    Raises:
        ValueError: It is not one, or of another format.
    """
    record = json.loads(data.partition(b"\n")[0])
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("not a manifest of this format")
    try:
        header = Header(**{**record, "added": tuple(record["added"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a manifest: {error}") from None
    return header


def parse(data: bytes) -> Manifest:
    """Return a whole manifest.

    Raises:
        ValueError: It is not one.
    """
    header = parse_header(data)
    try:
        entries = tuple(Entry(**json.loads(line)) for line in data.splitlines()[1:])
    except TypeError as error:
        raise ValueError(f"not a manifest: {error}") from None
    return Manifest(header, entries)


def scan(root: Path, *, contents: bool = True) -> Iterator[Entry]:
    """Yield what is below `root`, sorted by path; the manifest itself is left out.

    Args:
        root: The environment.
        contents: Read every file and tell its sha256; else that is "".

    Raises:
        NotReady: There is something that is neither file, directory nor symlink.
        OSError: Something cannot be read.
    """
    yield from _scan(root, "", contents)


def _scan(root: Path, below: str, contents: bool) -> Iterator[Entry]:
    with os.scandir(root / below) as listing:
        found = sorted(listing, key=lambda entry: entry.name)
    for entry in found:
        path = f"{below}/{entry.name}" if below else entry.name
        if path == NAME:
            continue
        status = entry.stat(follow_symlinks=False)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            yield Entry(path, LINK, content=os.readlink(entry.path))  # noqa: PTH115 - a Path would tidy it
        elif stat.S_ISDIR(status.st_mode):
            yield Entry(path, DIRECTORY, mode)
            yield from _scan(root, path, contents)
        elif stat.S_ISREG(status.st_mode):
            yield Entry(path, FILE, mode, status.st_size, _sha256(entry.path) if contents else "")
        else:
            raise NotReady(f"{entry.path} is neither a file, a directory nor a symlink", hint="remove it from SOURCE")


def _sha256(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - thousands of small files: no Path for each
        return hashlib.file_digest(file, "sha256").hexdigest()
