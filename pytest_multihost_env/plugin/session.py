"""What this package knows during one pytest session, computed when first needed and kept in `config.stash`."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_multihost_env.errors import MultihostError
from pytest_multihost_env.model import Completed
from pytest_multihost_env.plugin.options import given, in_use

if TYPE_CHECKING:
    from pytest_multihost_env.config import Settings
    from pytest_multihost_env.plan import Plan
    from pytest_multihost_env.provision import Pin

KEY: pytest.StashKey[MultihostSession] = pytest.StashKey()
PINS: pytest.StashKey[list[Pin]] = pytest.StashKey()


class MultihostSession:
    """Settings, facts, plan and answers of hosts for one pytest configuration."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._answers: dict[str, dict[str, Completed]] = {}

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings of this session."""
        from pytest_multihost_env import config as settings

        options, ini = given(self._config)
        return settings.load(options, os.environ, ini, self._config.rootpath, cwd=self._config.invocation_params.dir)

    @functools.cached_property
    def plan(self) -> Plan:
        """The plan of this session."""
        from pytest_multihost_env import plan

        plugins = self._config.pluginmanager.get_plugins()
        return plan.foreseen(self.settings, plugins) if self.settings.dry_run else plan.make(self.settings, plugins)

    @property
    def in_use(self) -> bool:
        """Whether anything of ours was asked for."""
        return in_use(self._config)

    def ask_hosts(self, request: Mapping[str, object]) -> Mapping[str, Completed]:
        """Have every host of the job take the snapshot that `request` describes; equal requests are asked once."""
        key = json.dumps(request, sort_keys=True)
        if key not in self._answers:
            from pytest_multihost_env import asking

            self._answers[key] = asking.snapshots(self.plan, request)
        return self._answers[key]

    def check_hosts(self) -> str:
        """Check all hosts as the setting `check` says; return what is wrong, or ""."""
        if not self.in_use:
            return ""
        level = self.settings.check or ("smoke" if self.plan.has_other_hosts else "off")
        if level == "off":
            return ""
        from pytest_multihost_env.check import gate

        return self.plan.redact(gate.failure(level, self.ask_hosts))


def of(config: pytest.Config) -> MultihostSession:
    """Return the session's state, made on first use."""
    if KEY not in config.stash:
        config.stash[KEY] = MultihostSession(config)
    return config.stash[KEY]


def print_plan(config: pytest.Config) -> int | None:
    """Print the plan and return pytest's exit code, when settings say so; else None."""
    from pytest_multihost_env import telling
    from pytest_multihost_env.report import text

    state = of(config)
    try:
        if not state.settings.dry_run:
            return None
        print(text.plan(telling.rows(state.plan)))
    except MultihostError as error:
        raise usage(error) from None
    return 0


def usage(error: MultihostError) -> pytest.UsageError:
    """Return what pytest shows, with exit code 4, for an error of ours."""
    return pytest.UsageError(f"multihost-env: {error}")
