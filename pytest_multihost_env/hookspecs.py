"""The hook by which launchers, host sources and builders come in, ours and others' alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pytest_multihost_env.registry import Registry

PROJECT = "multihost_env"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Specs:
    """What a plugin of the entry-point group `multihost_env`, or any plugin of pytest's, may implement."""

    @hookspec
    def multihost_env_register(self, registry: Registry) -> None:
        """Called once before the first use; add parts with `registry.add_launcher(...)` and the like.

        Parts are tried in the order in which they were added, ours first; with `@hookimpl(tryfirst=True)` yours are.
        """
