"""Every launcher, host source and builder that there is; the built-in ones come in by the third-party door."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import pluggy

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hookspecs import PROJECT, Specs, hookimpl
from pytest_multihost_env.protocols import Builder, HostSource, Launcher

Part = TypeVar("Part", Launcher, HostSource, Builder)
HOOK = "multihost_env_register"


class Registry:
    """Parts by name, in the order in which they are tried."""

    def __init__(self) -> None:
        self.launchers: dict[str, Launcher] = {}
        self.host_sources: dict[str, HostSource] = {}
        self.host_suffixes: list[str] = []
        self.builders: dict[str, Builder] = {}

    def add_launcher(self, launcher: Launcher) -> None:
        """Add a launcher.

        Raises:
            UsageProblem: Its name is taken.
        """
        _add(self.launchers, launcher, "launchers")

    def add_host_source(self, source: HostSource) -> None:
        """Add a source of hosts; it is asked when no setting names hosts, after those that were added before it.

        Raises:
            UsageProblem: Its name is taken.
        """
        _add(self.host_sources, source, "host sources")

    def add_host_suffix(self, suffix: str) -> None:
        """Have a first label that ends in `suffix` name the host without it: with `-ib`, `n1-ib` is `n1`.

        Raises:
            UsageProblem: It cannot be the end of a host's name.
        """
        if not re.fullmatch(r"[a-z0-9_-]*[a-z0-9]", suffix):
            raise UsageProblem(
                f"{suffix!r} is not the end of a host's name",
                where="add_host_suffix",
                expected="small letters, digits, '-' and '_', as in -ib0",
                hint="give it as it stands before the first dot",
            )
        self.host_suffixes.append(suffix)

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
        from pytest_multihost_env import hosts
        from pytest_multihost_env.launch.local import Local
        from pytest_multihost_env.launch.mpich import MPICH
        from pytest_multihost_env.launch.openmpi import OpenMPI
        from pytest_multihost_env.launch.srun import SRun
        from pytest_multihost_env.launch.ssh import SSH
        from pytest_multihost_env.provision import builders

        for launcher in (SRun(), OpenMPI(), MPICH(), Local(), SSH()):
            registry.add_launcher(launcher)
        for source in hosts.built_in():
            registry.add_host_source(source)
        for suffix in hosts.SUFFIXES:
            registry.add_host_suffix(suffix)
        for builder in builders.built_in():
            registry.add_builder(builder)


class Builders:
    """The registered builders, in their order; the registry is loaded when they are asked for."""

    def __iter__(self) -> Iterator[Builder]:
        return iter(load().builders.values())


def load(plugins: Iterable[object] = ()) -> Registry:
    """Return the registry with everything that is installed (entry-point group `multihost_env`).

    Args:
        plugins: Where to look besides: those of them that have our hook add their parts (a conftest, for one).

    Raises:
        UsageProblem: A part's name is taken, or a hook is not marked as one.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Specs)
    manager.register(_BuiltIn())
    manager.load_setuptools_entrypoints(PROJECT)
    for plugin in plugins:
        # Not `hasattr`: some plugins have every attribute that they are asked for.
        if inspect.isroutine(getattr(plugin, HOOK, None)) and not manager.is_registered(plugin):
            _register(manager, plugin)
    registry = Registry()
    manager.hook.multihost_env_register(registry=registry)
    return registry


def _register(manager: pluggy.PluginManager, plugin: object) -> None:
    manager.register(plugin)
    if not manager.get_hookcallers(plugin):
        raise UsageProblem(
            f"{HOOK} is not marked as a hook",
            where=getattr(plugin, "__file__", None) or repr(plugin),
            hint="write @hookimpl above it (from pytest_multihost_env.hookspecs import hookimpl)",
        )
