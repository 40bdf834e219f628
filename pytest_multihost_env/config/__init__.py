"""What was asked for: options, variables, ini and the configuration file as one frozen `Settings`.

Only the table is imported at once: every run of pytest needs it for its options, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_multihost_env.config.table import ALL_PROFILES, BY_NAME, SETTINGS, Setting

if TYPE_CHECKING:
    from pytest_multihost_env.config.layers import load
    from pytest_multihost_env.config.settings import Assignment, EnvironmentTable, Item, Settings

__all__ = [
    "ALL_PROFILES",
    "BY_NAME",
    "SETTINGS",
    "Assignment",
    "EnvironmentTable",
    "Item",
    "Setting",
    "Settings",
    "load",
]

_HOMES = {"load": "layers", **dict.fromkeys(("Assignment", "EnvironmentTable", "Item", "Settings"), "settings")}


def __getattr__(name: str) -> object:
    """Return a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
