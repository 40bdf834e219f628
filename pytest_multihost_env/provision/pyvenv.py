"""Reads and writes `pyvenv.cfg` (PEP 405) without losing keys that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.errors import NotReady


def read(path: Path) -> dict[str, str]:
    """Return the keys, in lower case, and values of the file, in its order.

    Raises:
        NotReady: It cannot be read.
    """
    values: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise NotReady(
            f"{path.parent} is no virtual environment: its pyvenv.cfg cannot be read ({error.strerror})",
            where=str(path),
            hint="name a directory that `python3 -m venv` or `uv venv` made",
        ) from None
    for line in text.splitlines():
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
