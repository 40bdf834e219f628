"""MPICH's mpiexec (Hydra), and Intel MPI's, which has most of its dialect (mpiexec.hydra(1))."""

from __future__ import annotations

import re

from pytest_multihost_env.launch.flags import host_counts, ssh_options, unless_given, without
from pytest_multihost_env.model import Command, LaunchSpec, Traits

_HOSTS = ("-hosts", "-host", "-f", "-hostfile", "-machinefile", "-machine")


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
        theirs, extra = without(spec.extra_args, "-genvlist")
        names = ",".join((spec.secret_name, *spec.forward, *theirs))
        argv = (spec.executable, *unless_given(extra, ("-genvall",), "-genvlist", names), *extra, *_places(spec))
        ssh = "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS" if _is_intel(spec) else "HYDRA_LAUNCHER_EXTRA_ARGS"
        return (Command(argv, {spec.secret_name: spec.secret, ssh: " ".join(ssh_options(spec.silence))}),)


def _places(spec: LaunchSpec) -> tuple[str, ...]:
    """Return the hosts with their ranks, and the program; Intel's knows no `host:count` but a section for each host."""
    if unless_given(spec.extra_args, _HOSTS, "ours") and _is_intel(spec):
        counts = [("localhost", spec.placement.size)] if spec.local_only else spec.placement.counts
        sections = [(":", "-host", host, "-n", str(count), *spec.program) for host, count in counts]
        return tuple(word for section in sections for word in section)[1:]
    hosts = unless_given(spec.extra_args, _HOSTS, "-hosts", host_counts(spec))
    return (*hosts, "-n", str(spec.placement.size), *spec.program)


def _is_intel(spec: LaunchSpec) -> bool:
    """Intel counts its versions in years."""
    return spec.version >= (2000,)
