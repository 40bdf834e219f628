"""The pytest plugin: options, marker, fixtures.  Thin, and cheap while nobody uses it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_multihost_env.plugin.fixtures import comm, drift_check, multihost, smoke_check
from pytest_multihost_env.plugin.options import add_options, in_use, is_rank

if TYPE_CHECKING:
    from pytest_multihost_env.plugin.controller import Controller

__all__ = [
    "comm",
    "drift_check",
    "multihost",
    "pytest_addoption",
    "pytest_cmdline_main",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_generate_tests",
    "pytest_load_initial_conftests",
    "smoke_check",
]

MARKER = (
    "multihost(ranks, hosts=None, per_host=None, timeout=None, fresh=False, env=None, secrets=None): "
    "run the test on this many ranks, placed on that many hosts"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--multihost-...` and the ini twins."""
    add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Provision and change over to the environment, before a conftest is imported and before output is captured.

    From here on nothing that is printed holds a secret: a conftest may fail, and so may what comes after the session.
    """
    if in_use(early_config):
        from pytest_multihost_env.plugin.redaction import guard_streams
        from pytest_multihost_env.plugin.reexec import change_over

        guard_streams(early_config)
        change_over(early_config)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Print the plan and stop, when asked to; here, since the controller is there only from `pytest_configure` on."""
    if not in_use(config):
        return None
    from pytest_multihost_env.plugin import session

    return session.print_plan(config)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and, where something of ours was asked for, the controller."""
    config.addinivalue_line("markers", MARKER)
    # The process that only feeds xdist's workers sees no item, and hears from them what went wrong.
    if in_use(config) or (getattr(config.option, "dist", "no") != "no" and not is_rank()):
        _controller(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have the controller take over the marked tests; without any, and with nothing asked for, it is not even loaded."""
    if not is_rank() and (in_use(config) or any(item.get_closest_marker("multihost") for item in items)):
        _controller(config).adopt(items)


def _controller(config: pytest.Config) -> Controller:
    """Return the session's controller, registered on first use."""
    known: Controller | None = config.pluginmanager.getplugin("multihost_env_controller")
    if known is None:
        from pytest_multihost_env.plugin.controller import Controller

        known = Controller(config)
        config.pluginmanager.register(known, "multihost_env_controller")
    return known


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test id for each number of ranks when the marker has a list of them."""
    marker = metafunc.definition.get_closest_marker("multihost")
    ranks = marker and (marker.kwargs.get("ranks") or (marker.args[0] if marker.args else None))
    if isinstance(ranks, list | tuple):
        metafunc.fixturenames.append("multihost_ranks")
        metafunc.parametrize("multihost_ranks", list(ranks), ids=[f"ranks={count}" for count in ranks])
