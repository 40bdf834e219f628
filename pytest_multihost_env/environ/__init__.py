"""Which variables each rank receives, and why.  Computes only.

A rank receives exactly these, and keeps what its launcher and its host own (`LAUNCHER_OWNED`).
"""

from __future__ import annotations

from typing import Final

from pytest_multihost_env.environ.profiles import PROFILES, Profile
from pytest_multihost_env.environ.rank import rank_env
from pytest_multihost_env.environ.rules import Rules
from pytest_multihost_env.environ.secrecy import values as secret_values
from pytest_multihost_env.environ.special import (
    LAUNCHER_OWNED,
    OF_ONE_RANK,
    hides,
    is_secret,
    launcher_owned,
    mpi_setting,
    redact_names,
    shown,
    without_login,
)
from pytest_multihost_env.model import RankEnv
from pytest_multihost_env.redact import Redactor

__all__ = [
    "LAUNCHER_OWNED",
    "OF_ONE_RANK",
    "PROFILES",
    "Profile",
    "Redactor",
    "Rules",
    "explain",
    "hides",
    "is_secret",
    "launcher_owned",
    "mpi_setting",
    "rank_env",
    "redact_names",
    "secret_values",
    "shown",
    "without_login",
]


ON_HOST: Final = "(a path on the rank's host)"


def explain(env: RankEnv) -> list[tuple[str, str, str, str, str]]:
    """Return a row (name, status, value that may be shown, rule, origin) for each variable that a rule decided."""
    there = [(name, "SET", ON_HOST, "secret-files", "built-in") for name in env.files]
    there += [(name, "SET", ON_HOST, "local-caches", origin) for name, origin in env.caches.items()]
    decided = [
        (one.name, one.status, "" if one.value is None else shown(one.name, one.value), one.rule, one.origin)
        for one in env.variables
    ]
    return sorted(decided + there, key=lambda row: row[0])
