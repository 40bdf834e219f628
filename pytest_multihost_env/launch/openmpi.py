"""Open MPI's mpirun, 4.1 and 5 (mpirun(1); PRRTE's prte-map(1))."""

from __future__ import annotations

import re

from pytest_multihost_env.launch.flags import SSH_OPTIONS, host_counts
from pytest_multihost_env.model import Command, LaunchSpec, Traits


class OpenMPI:
    """Starts ranks with Open MPI's `mpirun`."""

    name = "openmpi"
    traits = Traits(("mpirun", "mpiexec", "mpirun.openmpi"), mpi=True)

    def refuses(self, executable: str, version_text: str) -> str | None:
        """Return why `executable` is not Open MPI's, or None."""
        if re.search(r"Open MPI|OpenRTE|PRRTE", version_text):
            return None
        return (
            f"{executable} is not Open MPI's (it says: {version_text.splitlines()[0] if version_text else 'nothing'})"
        )

    def commands(self, spec: LaunchSpec) -> tuple[Command, ...]:
        """Return the one mpirun command.

        Values never stand in it: `-x NAME` has mpirun send the value over its own channel.
        """
        argv = [spec.executable, "--host", host_counts(spec), "-n", str(spec.placement.size), "--bind-to", "none"]
        for name in (spec.secret_name, *spec.forward):
            argv += ["-x", name]
        argv += [*spec.extra_args, *spec.program]
        return (Command(tuple(argv), {spec.secret_name: spec.secret, **self._environ(spec)}),)

    def _environ(self, spec: LaunchSpec) -> dict[str, str]:
        five = not spec.version or spec.version >= (5,)
        env = {
            # Without it MPI_Init of Open MPI 5 sleeps for a second; 4.1 knows the same transport by another name.
            "OMPI_MCA_btl": "self,sm,tcp" if five else "self,vader,tcp",
            # Tests often have more ranks than cores; a spinning rank would starve the one that it waits for.
            "OMPI_MCA_mpi_yield_when_idle": "1",
        }
        if spec.as_root:
            env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        if not spec.local_only:
            prefix = "PRTE_MCA_" if five else "OMPI_MCA_"
            env[f"{prefix}plm_ssh_args" if five else f"{prefix}plm_rsh_args"] = " ".join(SSH_OPTIONS)
            if five:
                env |= {
                    "PRTE_MCA_prte_keepalive_time": "5",
                    "PRTE_MCA_oob_tcp_keepalive_time": "5",
                    "PRTE_MCA_oob_tcp_keepalive_intvl": "3",
                    "PRTE_MCA_oob_tcp_keepalive_probes": "3",
                }
        return env
