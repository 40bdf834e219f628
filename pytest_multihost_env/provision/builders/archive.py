"""Builds from a packed virtual environment: a tar archive, plain or compressed, recognised by what is in it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import secrets
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import ask, mishaps, prefix, shells
from pytest_multihost_env.provision.archive import stream, tar, unpack
from pytest_multihost_env.provision.archive.stream import Stream, Unreadable
from pytest_multihost_env.provision.archive.unpack import Parts
from pytest_multihost_env.provision.builders.venv import VenvBuilder
from pytest_multihost_env.provision.trust import trusted_path

_ENDS = 64 << 10
_INTERPRETER = re.compile(r"bin/python[\d.]*")
_ABROAD = re.compile(r"/(?:[^/]+/)*(?:python|pypy)[\w.]*")
_REMEDY = "pack the environment again: `tar czf env.tar.gz -C PARENT ENV`, or conda-pack for one of conda's"
_LIMIT = 600.0  # seconds for conda-unpack


class ArchiveBuilder:
    """Makes a tree out of a packed virtual environment, with or without one directory around it."""

    name = "archive"

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why `source` is no tar archive; None if it is one."""
        if not source.is_file():
            return f"{source} is not a file"
        try:
            with source.open("rb") as file:
                head = file.read(tar.BLOCK)
        except OSError as error:
            return f"{source} cannot be read: {error.strerror}"
        if head.startswith(b"PK\x03\x04"):
            return f"{source} is a zip archive, which keeps neither links nor modes: pack the environment with tar"
        packed = stream.kind(head)
        if packed is None and not tar.is_header(head):
            return f"{source} does not begin like a tar archive, nor like one that gzip, zstd, xz or bzip2 packed"
        try:
            with Stream(source) as content:
                first = content.read(tar.BLOCK)
        except Unreadable:
            return None  # ours, and broken: the build says how
        if not tar.is_header(first):
            return f"{source} is packed with {packed}, and what is in it is no tar archive"
        return None

    def fingerprint(self, source: Path) -> str:
        """Return the sha256 over size, time and both ends of the file: a compressed one ends with its checksum."""
        with mishaps.named("looking at the archive"), source.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(f"{status.st_size}\0{status.st_mtime_ns}\0".encode())
            digest.update(file.read(_ENDS))
            file.seek(max(0, status.st_size - _ENDS))
            digest.update(file.read(_ENDS))
        return digest.hexdigest()

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Unpack `source` to `destination`; the interpreter may still lie outside (`bundle`) and paths be old.

        Raises:
            NotReady: The archive is damaged, holds no environment, or would write elsewhere.
        """
        work.progress.begin("unpacking", size=None)
        try:
            with mishaps.named("unpacking"):
                _build(source, destination, work)
        except BaseException as error:
            files.remove_tree(destination)
            if isinstance(error, Unreadable):
                raise NotReady(f"the archive {error}", where=str(source), hint=_REMEDY) from None
            raise
        finally:
            work.progress.end()


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """What an archive holds: where in it, and whether conda-pack packed it (else it is a virtual environment)."""

    top: Parts
    conda: bool


def _build(source: Path, destination: Path, work: Work) -> None:
    destination.mkdir(mode=0o755)
    inner = destination / f".unpacked-{secrets.token_hex(8)}"
    inner.mkdir(mode=0o755)
    unpacker = unpack.Unpacker(inner)
    try:
        with Stream(source) as content:
            links = unpacker.files(tar.Archive(content), work.progress.advance).links
        found = _kind(inner)
        unpacker.make_links(_settled(links, found, inner))
    finally:
        unpacker.close()
    top = inner.joinpath(*found.top)
    if found.conda:
        top.rename(destination / "py")
    else:
        for path in top.iterdir():
            path.rename(destination / path.name)
    files.remove_tree(inner)
    if found.conda:
        _join(destination, source)
    refusal = VenvBuilder().refuses(destination)
    if refusal is not None:
        raise NotReady(f"what was unpacked cannot be used: {refusal}", where=str(source), hint=_REMEDY)


def _join(env: Path, source: Path) -> None:
    """Have conda-pack's own program write the new paths into `env/py`, and make `env` an environment of its Python."""
    programs = [env / "py" / "bin" / name for name in ("conda-unpack", "conda_unpack_progress.py")]
    done = ask.run([str(env / "py" / "bin" / "python"), "-s", "-B", str(programs[0])], timeout=_LIMIT)
    if not done:
        raise NotReady(
            "conda-unpack failed",
            where=str(source),
            hint=_REMEDY,
            details={"it wrote": "\n".join(done.stderr.strip().splitlines()[-10:])},
        )
    for program in programs:
        files.delete_file(program)
    prefix.make(env)


def _kind(inner: Path) -> _Kind:
    """Return what lies at the top of what was unpacked, or in the one directory there."""
    names = os.listdir(inner)  # noqa: PTH208
    for top in ((), (names[0],)) if len(names) == 1 else ((),):
        place = inner.joinpath(*top)
        if (place / "pyvenv.cfg").is_file():
            return _Kind(top, conda=False)
        if (place / "conda-meta").is_dir():
            if not (place / "bin" / "conda-unpack").is_file():
                raise Unreadable("holds a conda environment that conda-pack did not pack, with paths of another place")
            return _Kind(top, conda=True)
    raise Unreadable("holds no virtual environment: no pyvenv.cfg lies at its top, nor in the one directory there")


def _settled(links: dict[Parts, str], found: _Kind, inner: Path) -> dict[Parts, str]:
    """Return `links` with those that led into the environment under its old name leading there now.

    The links of a virtual environment's interpreter may lead to one outside: that is where an environment has it, until it is bundled.

    Raises:
        Unreadable: Another one leads out.
        NotReady: It leads to a program that others can change.
    """
    top = found.top
    old = _made_as(inner.joinpath(*top))
    settled = dict(links)
    for parts, goal in links.items():
        if old is not None and goal.startswith(f"{old}/"):
            up = [".."] * (len(parts) - len(top) - 1)
            settled[parts] = "/".join([*up, goal[len(old) + 1 :]])
    abroad = unpack.outside(settled, top)
    for parts, goal in list(abroad.items()):
        name = "/".join(parts[len(top) :])
        first = settled[parts]
        if (
            not found.conda
            and _INTERPRETER.fullmatch(name)
            and (first in _names(abroad, parts) or _ABROAD.fullmatch(first))
        ):
            if first.startswith("/") and Path(first).exists():
                trusted_path(Path(first))
            continue
        raise Unreadable(f"has a link that leads out of the environment: {'/'.join(parts)!r} -> {goal!r}")
    return settled


def _names(abroad: dict[Parts, str], link: Parts) -> set[str]:
    """Return the names of the interpreter's other links beside `link`."""
    return {parts[-1] for parts in abroad if parts[:-1] == link[:-1] and _INTERPRETER.fullmatch("/".join(parts[-2:]))}


def _made_as(env: Path) -> str | None:
    """Return the path that the environment was made under, if its activate script tells."""
    script = env / "bin" / "activate"
    if not script.is_file():
        return None
    name = shells.named(script.read_text(encoding="utf-8", errors="surrogateescape"))
    return name if name and len(Path(name).parts) > 2 else None
