"""Whether a rank's environment is the one that was planned for it.  Standard library only: both sides use it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

_PYTHONS_OWN: Final = ("LC_CTYPE",)
"""Python sets it by itself where the locale is "C" (PEP 538)."""


def prints(env: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what a rank compares its variables with: no values, since it has them already; None for one to be absent."""
    return {name: None if value is None else _digest(value) for name, value in env.items() if name not in _PYTHONS_OWN}


def differing(planned: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that are not as planned, with what they are; None for one that is absent."""
    return {
        name: environ.get(name)
        for name, digest in planned.items()
        if (digest is None) is not (name not in environ) or (digest and digest != _digest(environ[name]))
    }


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:16]
