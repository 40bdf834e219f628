"""Open MPI's mpirun, 4.1 and 5 (mpirun(1); PRRTE's prte-map(1))."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from pytest_multihost_env.launch.flags import host_counts, open_mpi_settings, ssh_options, unless_given
from pytest_multihost_env.model import Command, LaunchSpec, Traits

_HOSTS = ("--host", "-H", "--hostfile", "--machinefile")
_SENT_ANYWAY = ("OMPI_", "PMIX_", "PRTE_")


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
        extra = spec.extra_args
        argv = [spec.executable, *unless_given(extra, _HOSTS, "--host", host_counts(spec))]
        argv += ["-n", str(spec.placement.size), *unless_given(extra, ("--bind-to",), "--bind-to", "none")]
        for name in (spec.secret_name, *spec.forward):
            if not name.startswith(_SENT_ANYWAY):
                argv += ["-x", name]
        argv += [*extra, *spec.program]
        prefix = str(Path(spec.executable).parent.parent)
        scripts = {} if spec.local_only or shlex.quote(prefix) == prefix else {"agent": _quoting_agent(spec, prefix)}
        env = {spec.secret_name: spec.secret, **self._environ(spec)}
        if scripts:
            # With its own tree of logins the far hosts would need the script too.
            env |= {f"{_mca(spec)}plm_{_ssh(spec)}_agent": "/bin/sh {agent}"}
            env |= {f"{_mca(spec)}plm_{_ssh(spec)}_no_tree_spawn": "1"}
        return (Command(tuple(argv), env, scripts=scripts),)

    def _environ(self, spec: LaunchSpec) -> dict[str, str]:
        five = _is_five(spec)
        env = open_mpi_settings(five=five)
        if spec.as_root:
            env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        if not spec.local_only:
            env[f"{_mca(spec)}plm_{_ssh(spec)}_args"] = " ".join(ssh_options(spec.silence))
            if five:
                # The ranks' own channels should notice first: they know which rank it is.
                time, interval = str(spec.silence), str(max(1, spec.silence // 4))
                env |= {
                    "PRTE_MCA_prte_keepalive_time": time,
                    "PRTE_MCA_oob_tcp_keepalive_time": time,
                    "PRTE_MCA_oob_tcp_keepalive_intvl": interval,
                    "PRTE_MCA_oob_tcp_keepalive_probes": "2",
                }
        return env


def _is_five(spec: LaunchSpec) -> bool:
    return not spec.version or spec.version >= (5,)


def _mca(spec: LaunchSpec) -> str:
    """Prefix of the variables that set parameters of the run-time; PRRTE took it over from Open MPI in 5."""
    return "PRTE_MCA_" if _is_five(spec) else "OMPI_MCA_"


def _ssh(spec: LaunchSpec) -> str:
    return "ssh" if _is_five(spec) else "rsh"


def _quoting_agent(spec: LaunchSpec, prefix: str) -> str:
    """Return a script that calls ssh with the installation's path quoted: mpirun writes it as it is, blanks and all."""
    code = (
        "import os, shlex, sys; prefix, *args = sys.argv[1:]; "
        "os.execvp('ssh', ['ssh', *(arg.replace(prefix, shlex.quote(prefix)) for arg in args)])"
    )
    return f'exec {shlex.join([spec.program[0], "-P", "-c", code, prefix])} "$@"\n'
