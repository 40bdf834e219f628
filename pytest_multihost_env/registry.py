"""Every launcher, host source and builder that there is; the built-in ones come in by the third-party door."""

from __future__ import annotations

import pluggy

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hookspecs import PROJECT, Specs, hookimpl
from pytest_multihost_env.protocols import Launcher


class Registry:
    """Parts by name, in the order in which `auto` tries them."""

    def __init__(self) -> None:
        self.launchers: dict[str, Launcher] = {}

    def add_launcher(self, launcher: Launcher) -> None:
        """Add a launcher.

        Raises:
            UsageProblem: Its name is taken.
        """
        if launcher.name in self.launchers:
            raise UsageProblem(
                f"two launchers are called {launcher.name!r}",
                where=f"{type(launcher).__module__} and {type(self.launchers[launcher.name]).__module__}",
                hint="give one of them another name, or uninstall its package",
            )
        self.launchers[launcher.name] = launcher


class _BuiltIn:
    """What this package brings along."""

    @hookimpl(tryfirst=True)
    def multihost_env_register(self, registry: Registry) -> None:
        from pytest_multihost_env.launch.local import Local
        from pytest_multihost_env.launch.mpich import MPICH
        from pytest_multihost_env.launch.openmpi import OpenMPI
        from pytest_multihost_env.launch.ssh import SSH

        for launcher in (OpenMPI(), MPICH(), Local(), SSH()):
            registry.add_launcher(launcher)


def load() -> Registry:
    """Return the registry with everything that is installed (entry-point group `multihost_env`)."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Specs)
    manager.register(_BuiltIn())
    manager.load_setuptools_entrypoints(PROJECT)
    registry = Registry()
    manager.hook.multihost_env_register(registry=registry)
    return registry
