"""MPICH's mpiexec (Hydra), also Intel MPI's, which speaks the same dialect (mpiexec.hydra(1))."""

from __future__ import annotations

import re

from pytest_multihost_env.launch.flags import SSH_OPTIONS, host_counts
from pytest_multihost_env.model import Command, LaunchSpec, Traits


class MPICH:
    """Starts ranks with Hydra's `mpiexec`."""

    name = "mpich"
    traits = Traits(("mpiexec", "mpirun", "mpiexec.hydra", "mpirun.mpich"), mpi=True)

    def refuses(self, executable: str, version_text: str) -> str | None:
        """Return why `executable` is not Hydra's, or None."""
        if re.search(r"HYDRA|Hydra|Intel\(R\) MPI", version_text):
            return None
        return f"{executable} is not MPICH's (it says: {version_text.splitlines()[0] if version_text else 'nothing'})"

    def commands(self, spec: LaunchSpec) -> tuple[Command, ...]:
        """Return the one mpiexec command.  `-genvlist` names what Hydra would otherwise send whole."""
        names = ",".join((spec.secret_name, *spec.forward))
        argv = (
            *(spec.executable, "-hosts", host_counts(spec), "-n", str(spec.placement.size), "-genvlist", names),
            *spec.extra_args,
            *spec.program,
        )
        env = {spec.secret_name: spec.secret, "HYDRA_LAUNCHER_EXTRA_ARGS": " ".join(SSH_OPTIONS)}
        return (Command(argv, env),)
