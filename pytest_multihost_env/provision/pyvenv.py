"""Reads and writes `pyvenv.cfg` (PEP 405) without losing keys that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """Return the keys, in lower case, and values of the file, in its order."""
    values: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        key, equals, value = line.partition("=")
        if equals:
            values[key.strip().lower()] = value.strip()
    return values


def write(path: Path, values: Mapping[str, str]) -> None:
    """Replace the file by `values`."""
    text = "".join(f"{key} = {value}\n" for key, value in values.items())
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8", errors="surrogateescape")
    fresh.replace(path)
