"""Jobs of real schedulers as they were recorded: variables, files and answers, and the hosts that each job had.

What a list of hosts does not depend on (mail, paths, the user's own variables) is left out.  Names in `files` are the
recorded ones; `Job.put` writes them below a directory of the test and changes the variables that name them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        source: Name of the host source that has to answer.
        origin: Where it was recorded.
        environ: Its variables.
        expected: Its hosts and their slots.
        files: Content of the files that the variables name.
        programs: What a program of the scheduler answers, by its command line.
        lists: Variables that hold the list of hosts or lead to it: without them nobody can know the hosts.
    """

    source: str
    origin: str
    environ: Mapping[str, str]
    expected: tuple[tuple[str, int], ...]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    programs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lists: tuple[str, ...] = ()

    def put(self, place: Path) -> dict[str, str]:
        """Write files and programs below `place` and return the job's environment."""
        environ = dict(self.environ)
        for name, content in self.files.items():
            path = place / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            environ = {key: str(path) if value == name else value for key, value in environ.items()}
        return environ | {"PATH": str(shim(place, self.programs))}


def shim(place: Path, answers: Mapping[str, str], otherwise: str = "echo no such command >&2; exit 1") -> Path:
    """Write programs that answer these command lines with these texts, and return their directory.

    Any other command line makes them run `otherwise`.
    """
    directory = place / "bin"
    directory.mkdir(exist_ok=True)
    for program in {line.split()[0] for line in answers}:
        cases = []
        for line, answer in answers.items():
            name, _, rest = line.partition(" ")
            if name == program:
                cases.append(f"'{rest}') /bin/cat <<'END'\n{answer}\nEND\n;;\n")
        path = directory / program
        path.write_text(f'#!/bin/sh\ncase "$*" in\n{"".join(cases)}*) {otherwise};;\nesac\n')
        path.chmod(0o755)
    return directory


TORQUE = Job(
    "PBS",
    "Open MPI users' list, 26 Nov 2013: an interactive job of Torque 2.3.6, -l nodes=1:ppn=32",
    {
        "PBS_VERSION": "TORQUE-2.3.6",
        "PBS_JOBNAME": "STDIN",
        "PBS_ENVIRONMENT": "PBS_INTERACTIVE",
        "PBS_TASKNUM": "1",
        "PBS_O_QUEUE": "default",
        "PBS_NODENUM": "0",
        "PBS_SERVER": "manage.cluster",
        "PBS_JOBID": "8120.manage.cluster",
        "PBS_O_HOST": "manage.cluster",
        "PBS_VNODENUM": "0",
        "PBS_QUEUE": "default",
        "PBS_NODEFILE": "/var/spool/torque/aux//8120.manage.cluster",
    },
    (("node03", 32),),
    {"/var/spool/torque/aux//8120.manage.cluster": "node03\n" * 32},
    lists=("PBS_NODEFILE",),
)
PACE = Job(
    "PBS",
    "TACC/launcher, pull request 53: the node file of a job of Torque at Georgia Tech",
    {"PBS_JOBID": "14220.pace", "PBS_NODEFILE": "/var/spool/torque/aux/14220.pace"},
    (("atl1-1-02-014-20-r.pace.gatech.edu", 4), ("atl1-1-02-010-29-r.pace.gatech.edu", 4)),
    {
        "/var/spool/torque/aux/14220.pace": "atl1-1-02-014-20-r.pace.gatech.edu\n" * 4
        + "atl1-1-02-010-29-r.pace.gatech.edu\n" * 4
    },
    lists=("PBS_NODEFILE",),
)
LSF = Job(
    "LSF",
    "Open MPI users' list, 8 Apr 2009: a job of LSF 7.0 with four slots on three hosts",
    {
        "LSB_BATCH_JID": "748",
        "LSB_EXEC_CLUSTER": "grid-cluster-01",
        "LSB_JOBID": "748",
        "LSB_JOBINDEX": "0",
        "LSB_QUEUE": "normal",
        "LSB_SUB_HOST": "grid03",
        "LSF_VERSION": "7.0",
        "LSB_HOSTS": "grid01 grid01 grid05 grid03",
        "LSB_MCPU_HOSTS": "grid03 1 grid05 1 grid01 2",
        "LSB_DJOB_HOSTFILE": "/home/lsfadmin/.lsbatch/1239206877.748.hostfile",
    },
    (("grid03", 1), ("grid05", 1), ("grid01", 2)),
    {"/home/lsfadmin/.lsbatch/1239206877.748.hostfile": "grid03\ngrid05\ngrid01\ngrid01\n"},
    lists=("LSB_DJOB_HOSTFILE", "LSB_MCPU_HOSTS", "LSB_HOSTS"),
)
LSF_VARIABLES = dataclasses.replace(
    LSF,
    environ={name: value for name, value in LSF.environ.items() if name != "LSB_DJOB_HOSTFILE"},
    files={},
    lists=("LSB_MCPU_HOSTS", "LSB_HOSTS"),
)
FLUX_JOB = Job(
    "Flux",
    "flux-framework/flux-core, issue 3289 (variables, of one task), and flux-hostlist(1)",
    {
        "FLUX_TASK_LOCAL_ID": "0",
        "FLUX_TASK_RANK": "0",
        "FLUX_JOB_SIZE": "5",
        "FLUX_JOB_NNODES": "2",
        "FLUX_JOB_ID": "ƒ2rBK5cs",
        "FLUX_URI": "local:///tmp/flux-Kl2h2t/0/local",
        "FLUX_KVS_NAMESPACE": "job-70346866688",
    },
    (("fluke0", 3), ("fluke1", 2)),
    programs={"flux hostlist local": "fluke[0-1]"},
)
FLUX_INSTANCE = Job(
    "Flux",
    "the log of a Flux cluster of two hosts in Kubernetes, which shows its RFC 20 resources; flux-environment(7)",
    {"FLUX_URI": "local:///run/flux/local"},
    (("flux-sample-0", 4), ("flux-sample-1", 4)),
    programs={
        "flux hostlist local": "flux-sample-[0-1]",
        "flux resource R": json.dumps(
            {
                "version": 1,
                "execution": {
                    "R_lite": [{"rank": "0-1", "children": {"core": "0-3"}}],
                    "starttime": 0.0,
                    "expiration": 0.0,
                    "nodelist": ["flux-sample-[0-1]"],
                },
            }
        ),
    },
)
SLURM_HET = Job(
    "Slurm",
    "Slurm's page on heterogeneous jobs: salloc -N1 : -N2",
    {
        "SLURM_JOB_ID": "11741",
        "SLURM_HET_SIZE": "2",
        "SLURM_JOB_ID_HET_GROUP_0": "11741",
        "SLURM_JOB_ID_HET_GROUP_1": "11742",
        "SLURM_JOB_NODES_HET_GROUP_0": "1",
        "SLURM_JOB_NODES_HET_GROUP_1": "2",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "nid00001",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "nid[00011-00012]",
    },
    (("nid00001", 1), ("nid00011", 1), ("nid00012", 1)),
    lists=("SLURM_JOB_NODELIST_HET_GROUP_0", "SLURM_JOB_NODELIST_HET_GROUP_1"),
)
SLURM = Job(
    "Slurm",
    "Slurm 22.05.8, Debian 12, three nodes of four CPUs: salloc -N3 -n6",
    {
        "SLURM_JOB_CPUS_PER_NODE": "4,1(x2)",
        "SLURM_JOB_ID": "2",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_NODELIST": "n[1-3]",
        "SLURM_NTASKS": "6",
        "SLURM_TASKS_PER_NODE": "4,1(x2)",
    },
    (("n1", 4), ("n2", 1), ("n3", 1)),
    lists=("SLURM_JOB_NODELIST", "SLURM_NODELIST"),
)
SLURM_STEP = Job(
    "Slurm",
    "the same Slurm with spank_pbs.so, which sets PBS's variables: salloc -N3 srun -N1 -n1",
    {
        "PBS_JOBID": "5",
        "PBS_JOBNAME": "interactive",
        "PBS_NODENUM": "0",
        "PBS_TASKNUM": "1",
        "SLURM_JOB_CPUS_PER_NODE": "1(x3)",
        "SLURM_JOB_CPUS_PER_NODE_PACK_GROUP_0": "1(x3)",
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_NODELIST": "n[1-3]",
        "SLURM_NTASKS": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "n1",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_STEP_TASKS_PER_NODE": "1",
        "SLURM_TASKS_PER_NODE": "1",
    },
    (("n1", 1), ("n2", 1), ("n3", 1)),
    lists=("SLURM_JOB_NODELIST", "SLURM_NODELIST"),
)
SLURM_HET_STEP = Job(
    "Slurm",
    "the same Slurm: a step of one component, salloc -N1 -n2 : -N2 srun --het-group=1",
    {
        "SLURM_HET_SIZE": "2",
        "SLURM_JOB_CPUS_PER_NODE": "1(x2)",
        "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_0": "2",
        "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_1": "1(x2)",
        "SLURM_JOB_ID": "11",
        "SLURM_JOB_ID_HET_GROUP_0": "11",
        "SLURM_JOB_ID_HET_GROUP_1": "12",
        "SLURM_JOB_NODELIST": "n[2-3]",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "n1",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "n[2-3]",
        "SLURM_NODELIST": "n[2-3]",
        "SLURM_NODELIST_HET_GROUP_0": "n1",
        "SLURM_NODELIST_HET_GROUP_1": "n[2-3]",
        "SLURM_STEP_NODELIST": "n[2-3]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_TASKS_PER_NODE": "1(x2)",
        "SLURM_TASKS_PER_NODE_HET_GROUP_0": "2",
        "SLURM_TASKS_PER_NODE_HET_GROUP_1": "1(x2)",
    },
    (("n1", 2), ("n2", 1), ("n3", 1)),
    lists=(
        "SLURM_JOB_NODELIST",
        "SLURM_NODELIST",
        "SLURM_JOB_NODELIST_HET_GROUP_0",
        "SLURM_JOB_NODELIST_HET_GROUP_1",
        "SLURM_NODELIST_HET_GROUP_0",
        "SLURM_NODELIST_HET_GROUP_1",
    ),
)

RECORDED = (
    TORQUE,
    PACE,
    LSF,
    LSF_VARIABLES,
    FLUX_JOB,
    FLUX_INSTANCE,
    SLURM,
    SLURM_STEP,
    SLURM_HET,
    SLURM_HET_STEP,
)
