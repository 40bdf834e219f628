"""Finds the installed distributions of an environment and keeps their RECORD true."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from pytest_multihost_env.provision import scripts


def site_directories(env: Path) -> list[Path]:
    """Return the site-packages directories of `env`, each once."""
    found: dict[str, Path] = {}
    for library in ("lib", "lib64"):
        for path in sorted((env / library).glob("python3.*/site-packages")):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def entry(content: bytes) -> tuple[str, str]:
    """Return digest and size as RECORD writes them (recording installed projects, PEP 376 and 627)."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}", str(len(content))


def rows(text: str) -> list[list[str]]:
    """Return the rows of a RECORD: path, digest, size; none when it is not one."""
    try:
        return [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error:
        return []


def text(table: Iterable[Iterable[str]]) -> str:
    """Return rows as the text of a RECORD."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(table)
    return stream.getvalue()


def update(env: Path, changes: Mapping[Path, bytes]) -> None:
    """Put the new digests and sizes of the files in `changes` into the RECORD files that list them."""
    names = {path.name for path in changes}
    for site in site_directories(env):
        wanted = {os.path.realpath(path): content for path, content in changes.items()}
        for path in sorted(path for path in site.glob("*.dist-info/RECORD") if path.is_file()):
            before = path.read_text(encoding="utf-8", errors="surrogateescape")
            if "\0" in before or not any(name in before for name in names):
                continue
            table = rows(before)
            for row in table:
                if len(row) > 1 and row[1] and (full := os.path.realpath(site / row[0])) in wanted:
                    row[1:] = entry(wanted[full])
            after = text(table)
            if rows(before) != table:
                scripts.replace(path, after.encode("utf-8", "surrogateescape"))  # it may be read-only
