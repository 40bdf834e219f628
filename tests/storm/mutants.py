"""Deliberate mistakes, to see that the storms notice them."""

from __future__ import annotations

from collections.abc import Callable

MUTANTS: dict[str, Callable[[], None]] = {}


def apply(name: str) -> None:
    """Make the mistake `name` in this process; "" is none."""
    if name:
        MUTANTS[name]()
