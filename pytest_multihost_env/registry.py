"""Every launcher, host source and builder that there is; the built-in ones come in by the third-party door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pluggy

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hookspecs import PROJECT, Specs, hookimpl
from pytest_multihost_env.protocols import Builder, Launcher

Part = TypeVar("Part", Launcher, Builder)


class Registry:
    """Parts by name, in the order in which they are tried."""

    def __init__(self) -> None:
        self.launchers: dict[str, Launcher] = {}
        self.builders: dict[str, Builder] = {}

    def add_launcher(self, launcher: Launcher) -> None:
        """Add a launcher.

        Raises:
            UsageProblem: Its name is taken.
        """
        _add(self.launchers, launcher, "launchers")

    def add_builder(self, builder: Builder) -> None:
        """Add a builder.

        Raises:
            UsageProblem: Its name is taken.
        """
        _add(self.builders, builder, "builders")


def _add(parts: dict[str, Part], part: Part, kind: str) -> None:
    if part.name in parts:
        raise UsageProblem(
            f"two {kind} are called {part.name!r}",
            where=f"{type(part).__module__} and {type(parts[part.name]).__module__}",
            hint="give one of them another name, or uninstall its package",
        )
    parts[part.name] = part


class _BuiltIn:
    """What this package brings along."""

    @hookimpl(tryfirst=True)
    def multihost_env_register(self, registry: Registry) -> None:
        from pytest_multihost_env.launch.local import Local
        from pytest_multihost_env.launch.mpich import MPICH
        from pytest_multihost_env.launch.openmpi import OpenMPI
        from pytest_multihost_env.launch.ssh import SSH
        from pytest_multihost_env.provision import builders

        for launcher in (OpenMPI(), MPICH(), Local(), SSH()):
            registry.add_launcher(launcher)
        for builder in builders.built_in():
            registry.add_builder(builder)


class Builders:
    """The registered builders, in their order; the registry is loaded when they are asked for."""

    def __iter__(self) -> Iterator[Builder]:
        return iter(load().builders.values())


def load() -> Registry:
    """Return the registry with everything that is installed (entry-point group `multihost_env`)."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Specs)
    manager.register(_BuiltIn())
    manager.load_setuptools_entrypoints(PROJECT)
    registry = Registry()
    manager.hook.multihost_env_register(registry=registry)
    return registry
