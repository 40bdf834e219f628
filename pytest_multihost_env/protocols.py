"""What a part must offer to be one of its kind.  Each has at most four members; each can be registered by others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pytest_multihost_env.model import Allocation, Command, LaunchSpec, Traits


class HostSource(Protocol):
    """Names the hosts of the job from one place (a hostfile, a scheduler)."""

    name: str

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts, or None when this source has nothing to say here.

        Called on the controller only.

        Raises:
            MultihostError: The source should answer and cannot: that is never "one host".
        """
        ...


class Launcher(Protocol):
    """Turns "these ranks on these hosts" into commands.  Computes only; `launch.job` starts them."""

    name: str
    traits: Traits

    def refuses(self, executable: str, version_text: str) -> str | None:
        """Return a sentence why `executable`, which printed `version_text`, is not this launcher; None if it is."""
        ...

    def commands(self, spec: LaunchSpec) -> tuple[Command, ...]:
        """Return the commands that start every rank of `spec`."""
        ...


class Builder(Protocol):
    """Makes a tree out of one kind of SOURCE."""

    name: str

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why this builder cannot make an environment from `source`; None if it can."""
        ...

    def fingerprint(self, source: Path) -> str:
        """Return a digest that changes when the outcome of `build` would."""
        ...

    def build(self, source: Path, destination: Path) -> None:
        """Put a virtual environment into `destination`, which does not exist yet.

        Raises:
            NotReady: It could not be made; nothing outside `destination` was touched.
        """
        ...
