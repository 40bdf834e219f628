"""pytest options and ini twins, generated from the one table of settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_multihost_env.config.table import SETTINGS, Setting

INI_TYPES = {"bool": "bool", "list": "linelist"}

_IN_USE: pytest.StashKey[bool] = pytest.StashKey()


def add_options(parser: pytest.Parser) -> None:
    """Add one group with an option and an ini twin for each setting."""
    group = parser.getgroup("multihost", "the same environment on every host, and tests on ranks")
    for setting in SETTINGS:
        # Unset must be told apart from every value: the layers below an option have a say then.
        if not setting.only_file:
            parser.addini(setting.ini, setting.help, type="string", default=None)
        if setting.everywhere:
            group.addoption(setting.option, dest=setting.ini, default=None, help=setting.help, **_arguments(setting))


def _arguments(setting: Setting) -> dict[str, Any]:
    if setting.kind == "bool":
        return {"action": "store_true"}
    if setting.repeatable:
        return {"action": "append", "metavar": setting.metavar}
    return {"metavar": setting.metavar} | ({"choices": setting.choices} if setting.choices else {})


def given(config: pytest.Config) -> tuple[dict[str, object], dict[str, object]]:
    """Return what was given as options and as ini values, by setting name."""
    # Complete for our options as soon as this plugin is loaded, which `config.option` is not before the conftests are.
    namespace = config.known_args_namespace
    options = {s.name: getattr(namespace, s.ini, None) for s in SETTINGS if s.everywhere}
    ini = {s.name: config.getini(s.ini) for s in SETTINGS if not s.only_file}
    return options, {name: value for name, value in ini.items() if value not in (None, "", [])}


def is_rank() -> bool:
    """Whether this process is a rank of a gang: it was told everything, and asks for nothing itself."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == "pytest_multihost_env.gang.rank"


def in_use(config: pytest.Config) -> bool:
    """Whether anything of ours was asked for; found out once, since every run of pytest asks at each of its stages.

    An empty value counts: `--multihost-venv=$VENV` with nothing in VENV must be refused, not passed over.
    """
    if _IN_USE not in config.stash:
        config.stash[_IN_USE] = not is_rank() and _asked(config)
    return config.stash[_IN_USE]


def _asked(config: pytest.Config) -> bool:
    options, ini = given(config)
    if (
        any(value not in (None, False) for value in options.values())
        or ini
        or any(name.startswith("MULTIHOST_ENV_") for name in os.environ)
    ):
        return True
    return _mentioned(config.rootpath / "pyproject.toml") or (config.rootpath / "multihost-env.toml").is_file()


def _mentioned(file: Path) -> bool:
    try:
        return b"tool.multihost-env" in file.read_bytes()
    except OSError:
        return False
