"""Looks at a source and at what was made from it, as closely as was asked, before that is used again.

Two things have to be shown: that the source is what the environment was made from, and that the environment is what was
published.  The key shows the first by a stat walk of the source; a weaker look compares with what the manifest says of
the source as it was copied.  The second is `standing`'s.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_multihost_env import files
from pytest_multihost_env.model import CONTENT, DIRECTORIES, METADATA, Checked, ReadFile
from pytest_multihost_env.protocols import Builder, Glancing
from pytest_multihost_env.provision import digests, manifest, standing
from pytest_multihost_env.provision.adopt import Damaged, Look
from pytest_multihost_env.provision.ahead import Ahead
from pytest_multihost_env.provision.job import ProvisionRequest, conditions, key_of
from pytest_multihost_env.provision.recipe import Recipe
from pytest_multihost_env.provision.target import Place

_WEAK = (METADATA, DIRECTORIES)
_FEW = 3


def fingerprints(builder: Builder, source: Path, read: Mapping[str, ReadFile] | None = None) -> dict[str, str]:
    """Return what the manifest says of the source: before the copy what weak looks show, after it the content.

    Args:
        builder: Only a `Glancing` one has more to say than its fingerprint, which is in the key.
        source: What it copies.
        read: What the copy has read; None: it has not begun.
    """
    if not isinstance(builder, Glancing):
        return {}
    if read is None:
        return {tier: builder.glance(source, tier, {}) for tier in _WEAK}
    return {CONTENT: f"{digests.best()}:{builder.glance(source, CONTENT, read)}"}


class Reuse:
    """One call's looks at its source and at what stands.

    From the beginning, while it is found out what is wanted and the source is looked at, a second process looks at the
    environment that the target leads to: it is nearly always the one.
    """

    def __init__(self, place: Place, request: ProvisionRequest) -> None:
        self._began = time.monotonic()
        self._place = place
        self._tier = request.verify
        self._owners = request.trust.users
        self._pointed = None if request.force else _pointed(place)
        self._ahead: Ahead | None = None
        if self._pointed is not None and self._tier not in _WEAK:
            self._ahead = Ahead(self._pointed)

    def key(self, recipe: Recipe) -> str:
        """Return the key of what is wanted."""
        if self._tier in _WEAK and self._pointed is not None:
            header = _header(self._pointed)
            if header is not None and self._is_from_here(header, recipe):
                return header.key
        return key_of(self._place, recipe)

    def looking(self, builder: Builder) -> Look:
        """Return what looks at an environment, and for the tier `content` at the source too, that `builder` copies.

        It raises `Damaged` when one of them is not what it was.
        """

        def look(path: Path, data: bytes) -> Checked:
            walked = self._ahead.result if self._ahead is not None and path == self._pointed else None
            checked = standing.check(path, data, self._tier, self._owners, walked)
            if self._tier == CONTENT and isinstance(builder, Glancing):
                self._compare_source(builder, path, manifest.parse(data))
            return dataclasses.replace(checked, seconds=time.monotonic() - self._began)

        return look

    def _is_from_here(self, header: manifest.Header, recipe: Recipe) -> bool:
        builder = recipe.builder
        return (
            isinstance(builder, Glancing)
            and header.source == str(self._place.source)
            and header.conditions == conditions(recipe)
            and header.origin.get(self._tier) == builder.glance(self._place.source, self._tier, {})
        )

    def _compare_source(self, builder: Glancing, path: Path, known: manifest.Manifest) -> None:
        before = known.header.origin.get(CONTENT, "")
        if not before:
            return
        algorithm, _, digest = before.partition(":")
        if builder.glance(self._place.source, CONTENT, {}, algorithm) != digest:
            names = list(_changed(self._place.source, known))
            which = ", ".join(names[:_FEW]) or "a file that the build adapted"
            more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
            raise Damaged(f"{self._place.source} has other content than {path} was made from: {which}{more}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            self._ahead.close()


def _header(path: Path) -> manifest.Header | None:
    try:
        return manifest.read_header(path) if files.is_listed(path / manifest.NAME) else None
    except (OSError, ValueError):
        return None


def _pointed(place: Place) -> Path | None:
    """Return the environment that the target leads to, when it is one of ours."""
    if place.foreign or not place.target.parent.is_dir() or not files.is_listed(place.target):
        return None
    try:
        text = files.read_link(place.target)
    except FileNotFoundError:  # it was taken away meanwhile
        return None
    if text is None or not re.fullmatch(rf"{re.escape(place.home.name)}/\w+/[\w.]+/att/[\w-]+", text):
        return None
    return place.target.parent / text


def _changed(source: Path, known: manifest.Manifest) -> Iterator[str]:
    """Yield the files of the source that have another content than their copies, with the same size and time."""
    for entry in known.entries:
        if entry.type != manifest.FILE:
            continue
        file = source / entry.path
        try:
            status = file.lstat()
            if (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns) and entry.content != (
                digests.of_file(str(file), digests.algorithm(entry.content))
            ):
                yield entry.path
        except OSError:
            continue
