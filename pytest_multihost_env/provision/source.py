"""Fingerprints of a virtual environment that is copied, one for each tier of looking at it (`model.TIERS`).

Each tier's fingerprint says all that its look shows, and which interpreter the environment runs.  Bytecode is left out
of all of them, since merely importing a module writes it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_multihost_env.model import CONTENT, DIRECTORIES, METADATA, STAT, ReadFile
from pytest_multihost_env.provision import digests, walk
from pytest_multihost_env.provision.hashing import of_files


def fingerprint(source: Path, tier: str, read: Mapping[str, ReadFile] | None = None, algorithm: str = "") -> str:
    """Return the sha256 over what a look of this tier at `source` shows.

    Args:
        source: The environment.
        tier: One of `model.TIERS`.
        read: For the tier `content`: digests of files that were read already; the others are read now.
        algorithm: For that tier: what their digests are taken by; "": the best one.

    Raises:
        OSError: Something cannot be read.
    """
    digest = hashlib.sha256()
    root = str(source)
    lines = _content(root, read or {}, algorithm or digests.best()) if tier == CONTENT else _LOOKS[tier](root)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape"))
    python = os.path.realpath(f"{root}/bin/python")
    digest.update(f"{python}\0{_stat(python)}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _stat(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return f"{status.st_size}\0{status.st_mtime_ns}"


def _metadata(root: str) -> Iterator[str]:
    yield _stat(f"{root}/pyvenv.cfg")
    for site in sites(root):
        yield f"\0{site}\0"
        for name in sorted(os.listdir(f"{root}/{site}")):  # noqa: PTH208
            if not walk.is_bytecode(name):
                yield f"{name}\0"
            if name.endswith(".dist-info"):
                yield _stat(f"{root}/{site}/{name}/RECORD")


def sites(root: str) -> Iterator[str]:
    """Yield the site-packages directories of an environment, relative to it, each once."""
    for library in ("lib", "lib64"):
        path = f"{root}/{library}"
        if os.path.islink(path) or not os.path.isdir(path):  # noqa: PTH112, PTH114 - lib64 is a link to lib
            continue
        for name in sorted(os.listdir(path)):  # noqa: PTH208
            if name.startswith("python3") and os.path.isdir(f"{path}/{name}/site-packages"):  # noqa: PTH112
                yield f"{library}/{name}/site-packages"


def _directories(root: str) -> Iterator[str]:
    yield from _metadata(root)
    for block in walk.walk(root, walk.names_without_bytecode):
        yield f"\n\n{block.path}\0{block.mtime_ns}\n{block.text}"


def _everything(root: str) -> Iterator[str]:
    for block in walk.walk(root, walk.without_bytecode):
        yield f"\n\n{block.path}\n{block.text}"


def _content(root: str, read: Mapping[str, ReadFile], algorithm: str) -> Iterator[str]:
    files: dict[str, int] = {}
    for block in walk.walk(root, walk.without_bytecode):
        yield f"\n\n{block.path}\n{block.text}"
        for line in block.text.split("\n"):
            fields = line.split("\t")
            if len(fields) == 4:
                files[os.path.join(block.path, walk.plain(fields[3]))] = int(fields[1])  # noqa: PTH118
    unread = [(path, size) for path, size in files.items() if path not in read]
    found = of_files(Path(root), unread, algorithm)
    yield from (f"\n{read[path].digest if path in read else found[path]}" for path in files)


_LOOKS = {METADATA: _metadata, DIRECTORIES: _directories, STAT: _everything}
