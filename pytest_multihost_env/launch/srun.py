"""Slurm's srun, as a step of the job that this process is part of (srun(1))."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_multihost_env.launch.flags import open_mpi_settings, unless_given, without
from pytest_multihost_env.model import Command, LaunchSpec, Traits

_FAMILIES = (
    (re.compile(r"Open MPI"), ("pmix",)),
    (re.compile(r"CRAY", re.IGNORECASE), ("cray_shasta", "pmi2")),
    (re.compile(r"MPICH|MVAPICH|Intel"), ("pmi2",)),
)
"""Which of Slurm's plugins a library can talk to, best first.

A pair that does not fit gives N worlds of size 1 and exit code 0, or a rank that aborts.
"""
NO_MPI = "none"
_LOOK = """\
import json
try:
    import mpi4py
except ImportError:
    print(json.dumps(["none", ""]))
else:
    mpi4py.rc.initialize = False
    from mpi4py import MPI
    files = [line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/libmpi" in line]
    print(json.dumps([MPI.Get_library_version().split("\\n")[0], (files + [""])[0]]))
"""


class SRun:
    """Starts ranks with Slurm's `srun`, each gang as a step of this job."""

    name = "srun"
    traits = Traits(("srun",), mpi=True)

    def refuses(self, executable: str, version_text: str) -> str | None:
        """Return why `executable` is not Slurm's, or None."""
        if re.match(r"slurm\b", version_text):
            return None
        return f"{executable} is not Slurm's (it says: {version_text.splitlines()[0] if version_text else 'nothing'})"

    def outside(self, environ: Mapping[str, str], hosts: Sequence[str]) -> str | None:
        """Return why there is no job, or none with these hosts."""
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

        if not environ.get("SLURM_JOB_ID"):
            return "this process is not in a Slurm job (start it with salloc or sbatch)"
        if environ.get("SLURM_HET_SIZE"):
            return "this is a heterogeneous job, of which one step does not hold all hosts"
        nodes = environ.get("SLURM_JOB_NODELIST", "")
        try:
            known = NodeSet(nodes, resolver=RESOLVER_NOGROUP)
        except NodeSetException:
            return f"SLURM_JOB_NODELIST cannot be read: {nodes}"
        strange = [host for host in hosts if host not in known]
        return f"{', '.join(strange[:8])}: not a node of this Slurm job ({nodes})" if strange else None

    def questions(self, executable: str, python: str) -> tuple[tuple[str, ...], ...]:
        """Return what tells which MPI plugins there are, and which library the ranks will load."""
        return ((executable, "--mpi=list"), (python, "-c", _LOOK))

    def mismatch(self, answers: Sequence[str]) -> str | None:
        """Return why no plugin fits the library."""
        offered, (library, _) = _offered(answers[0]), _library(answers[1])
        wanted = _wanted(library)
        if not wanted or not offered or offered & set(wanted):
            return None
        return f"it offers {', '.join(sorted(offered))}, and {library} needs {' or '.join(wanted)}"

    def commands(self, spec: LaunchSpec) -> tuple[Command, ...]:
        """Return the one srun command; values never stand in it, since `--export` names what srun is to send.

        With `--distribution=arbitrary` a list of nodes is the list of the tasks' places (22.05 takes no `n1*2` there).  `--overlap`: the next gang does
        not wait for what the last one or the step of pytest itself holds.
        """
        env = {spec.secret_name: spec.secret, **self._environ(spec)}
        placement = spec.placement
        nodes = ",".join(place.host for place in placement.places)
        argv = [spec.executable, f"--ntasks={placement.size}", f"--nodes={len(placement.hosts)}"]
        argv += [f"--ntasks-per-node={max(count for _, count in placement.counts)}"]
        argv += ["--distribution=arbitrary", f"--nodelist={nodes}"]
        exports, extra = without(spec.extra_args, "--export")
        mine = [name for text in exports for name in text.split(",") if name not in ("", "NONE")]
        for keys, option in _options(spec):
            argv += unless_given(extra, keys, option)
        names = dict.fromkeys((*env, *spec.forward, "PATH", "LD_LIBRARY_PATH", *mine))
        argv += [f"--export={','.join(names)}", *extra, *spec.program, "--rank-from", "SLURM_PROCID"]
        return (Command(tuple(argv), env),)

    def _environ(self, spec: LaunchSpec) -> dict[str, str]:
        library, file = _library(_answer(spec, 1))
        if not library.startswith("Open MPI"):
            return {}
        env = open_mpi_settings(five=not re.match(r"Open MPI v[1-4]\.", library))
        prefix = Path(spec.program[0]).parent.parent
        if file and Path(file).is_relative_to(prefix):
            # mpirun tells ranks where their Open MPI lies; srun does not, and a wheel was built for another place.
            env |= {"OPAL_PREFIX": str(prefix), "PMIX_PREFIX": str(prefix), "PMIX_MCA_psec": "native"}
        return env


def _options(spec: LaunchSpec) -> list[tuple[tuple[str, ...], str]]:
    """Return options that a user may replace: the keys that do, and the option."""
    offered, (library, _) = _offered(_answer(spec, 0)), _library(_answer(spec, 1))
    wanted = _wanted(library)
    kind = next((one for one in wanted if one in offered), wanted[0] if wanted else "")
    options = [(("--mpi",), f"--mpi={kind}")] if kind else []
    return [
        *options,
        (("--overlap", "--exclusive"), "--overlap"),
        # As for the other launchers: ranks of a test may be more than cores, and have threads.
        (("--cpu-bind", "--hint"), "--cpu-bind=none"),
        (("--kill-on-bad-exit", "-K", "-K0", "-K1", "--no-kill", "-k"), "--kill-on-bad-exit=1"),
        (("--input", "-i"), "--input=none"),
    ]


def _answer(spec: LaunchSpec, number: int) -> str:
    return spec.answers[number] if number < len(spec.answers) else ""


def _offered(text: str) -> set[str]:
    return set(re.findall(r"\b(?:none|pmi2|pmix(?:_v\d+)?|cray_shasta)\b", text))


def _library(text: str) -> tuple[str, str]:
    """Return the library's name with its version and its file; ("", "") when that is not known."""
    for line in reversed(text.splitlines()):
        if line.startswith("["):
            name, file = json.loads(line)
            return str(name), str(file)
    return "", ""


def _wanted(library: str) -> tuple[str, ...]:
    """Return the plugins that serve a library, best first; () when it is not known: the site's default decides."""
    if library == NO_MPI:
        return ("none",)
    return next((kinds for pattern, kinds in _FAMILIES if pattern.search(library)), ())
