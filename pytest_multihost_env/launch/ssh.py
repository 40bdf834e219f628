"""No MPI, any number of hosts: one ssh for each (ssh(1))."""

from __future__ import annotations

import shlex

from pytest_multihost_env.launch.flags import ssh_options
from pytest_multihost_env.model import Command, LaunchSpec, Traits


class SSH:
    """Starts the ranks of each host with one `ssh`, without MPI."""

    name = "ssh"
    traits = Traits(("ssh",), version_flag="-V")

    def refuses(self, executable: str, version_text: str) -> str | None:
        """Return why `executable` is not an ssh client, or None."""
        return (
            None
            if "SSH" in version_text
            else f"{executable} is not an ssh client (it says: {version_text.strip()[:80]})"
        )

    def commands(self, spec: LaunchSpec) -> tuple[Command, ...]:
        """Return one ssh command for each host.

        Of an option that is given twice ssh takes the first, so the user's stand before ours.  The secret goes in by
        stdin.  The far shell splits its arguments again, so they are quoted for it.
        """
        commands = []
        for host, _ in spec.placement.counts:
            ranks = ",".join(str(place.rank) for place in spec.placement.places if place.host == host)
            far = shlex.join(("exec", *spec.program, "--ranks", ranks, "--key-on-stdin"))
            argv = (spec.executable, "-x", "-T", *spec.extra_args, *ssh_options(spec.silence), host, far)
            commands.append(Command(argv, stdin=spec.secret + "\n"))
        return tuple(commands)
