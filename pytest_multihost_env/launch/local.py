"""No MPI, this machine only."""

from __future__ import annotations

from pytest_multihost_env.model import Command, LaunchSpec, Traits


class Local:
    """Starts all ranks on this machine, without MPI."""

    name = "local"
    traits = Traits(remote=False)

    def refuses(self, executable: str, version_text: str) -> str | None:  # noqa: ARG002
        """Return None: there is no program to refuse."""
        return None

    def commands(self, spec: LaunchSpec) -> tuple[Command, ...]:
        """Return one command that forks a supervisor for each rank."""
        ranks = ",".join(str(place.rank) for place in spec.placement.places)
        return (Command((*spec.program, "--ranks", ranks, "--key-on-stdin"), stdin=spec.secret + "\n"),)
