"""A Slurm cluster over the hosts of a testbed: the controller on the first, a munged and a slurmd on each.

The daemons are Debian's own and run as they would on hosts; one configuration lies in the testbed's directory and is
seen by every host at /etc/slurm.  They end by pid in `down`, or with the hosts.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.testbed.bed import Testbed
from tests.testbed.client import Unavailable

CPUS = 8
"""CPUs that each node claims to have."""

_READY_LIMIT = 20.0
_PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "munged": "munge",
    "srun": "slurm-client",
}
_PLUGINS = Path("/usr/lib/x86_64-linux-gnu")

# What a namespace cannot give is left out: cgroups of its own, CPUs of its own, accounting.  22.05 knows no plugin
# `disabled` for cgroups, but does not look at the one that it is told of until something needs it.
_CONF = """\
ClusterName=testbed
SlurmctldHost={first}
AuthType=auth/munge
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=5
StateSaveLocation=/run/slurm/state
SlurmdSpoolDir=/run/slurm/spool
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd.pid
SlurmctldLogFile={logs}/slurmctld
SlurmdLogFile={logs}/slurmd-%n
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
KillWait=5
NodeName={nodes} CPUs={cpus} RealMemory=4096 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""

_START = """\
set -e
running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
mountpoint -q /etc/slurm || mount --bind "$CONF" /etc/slurm
mkdir -p /run/slurm/state /run/slurm/spool /run/munge
chown munge: /run/munge
running /run/munge/munged.pid || setpriv --reuid=munge --regid=munge --clear-groups munged --key-file="$CONF/munge.key" \
    --socket=/run/munge/munge.socket.2 --pid-file=/run/munge/munged.pid --log-file=/run/munge/log --seed-file=/run/munge/seed
[ "$(hostname)" != "$FIRST" ] || running /run/slurm/slurmctld.pid || slurmctld
running /run/slurm/slurmd.pid || slurmd
"""

_STOP = """\
for file in /run/slurm/slurmd.pid /run/slurm/slurmctld.pid /run/munge/munged.pid; do
    [ ! -s $file ] || kill -KILL "$(cat $file)" || true
done
umount /etc/slurm || true
"""


class SlurmCluster:
    """Slurm on a testbed; commands are run with the testbed's own `run` and `popen`.

    Raises:
        Unavailable: On `up`: this machine has no Slurm, or it does not start.
    """

    def __init__(self, bed: Testbed) -> None:
        self.bed = bed
        self._directory = bed.shared.parent / "slurm"

    def up(self) -> None:
        """Write the configuration and start all daemons."""
        reason = next(_refusals(), None)
        if reason is not None:
            raise Unavailable(reason)
        self._write()
        self.ready()

    def ready(self) -> None:
        """Start what is missing, as on a host that was booted meanwhile, and wait until every node can take a job.

        Raises:
            Unavailable: That does not happen.
        """
        if self._idle() != set(self.bed.names):
            self._everywhere(_START)
        limit = time.monotonic() + _READY_LIMIT
        while (idle := self._idle()) != set(self.bed.names):
            if time.monotonic() > limit:
                raise Unavailable(f"of the nodes only {', '.join(sorted(idle)) or 'none'} are idle: {self._logs()}")
            time.sleep(0.05)

    def down(self) -> None:
        """Cancel all jobs and end the daemons."""
        first = self.bed.names[0]
        self.bed.run(first, ["scancel", "--full", "--signal=KILL", "--user=root"], timeout=20)
        self._everywhere(_STOP)

    def queue(self) -> list[str]:
        """Return the ids of the jobs that are not over."""
        return self.bed.run(self.bed.names[0], ["squeue", "-h", "-o", "%i"], check=True, timeout=20).stdout.split()

    def _idle(self) -> set[str]:
        """Return the nodes that run nothing and answer; sinfo marks those that do not with an asterisk."""
        asked = self.bed.run(self.bed.names[0], ["sinfo", "-h", "-N", "-o", "%N %t"], timeout=20)
        lines = [line.split() for line in asked.stdout.splitlines()]
        return {name for name, state in lines if state == "idle"}

    def _write(self) -> None:
        self._directory.mkdir(mode=0o755)
        key = self._directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        shutil.chown(key, "munge", "munge")
        text = _CONF.format(
            first=self.bed.names[0], nodes=",".join(self.bed.names), cpus=CPUS, logs=self.bed.shared.parent / "log"
        )
        (self._directory / "slurm.conf").write_text(text, encoding="utf-8")
        (self._directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")

    def _everywhere(self, script: str) -> None:
        env = {"CONF": str(self._directory), "FIRST": self.bed.names[0]}
        options: dict[str, Any] = {"env": env, "stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started = [self.bed.popen(host, ["sh", "-c", script], **options) for host in self.bed.names]
        said = [process.communicate(timeout=_READY_LIMIT)[1].strip() for process in started]
        failed = [
            f"{host}: {text}" for host, text, one in zip(self.bed.names, said, started, strict=True) if one.returncode
        ]
        if failed:
            raise Unavailable("; ".join(failed))

    def _logs(self) -> str:
        logs = sorted((self.bed.shared.parent / "log").glob("slurm*"))
        return "; ".join(f"{log.name}: {log.read_text(errors='replace')[-400:]}" for log in logs)


def _refusals() -> Iterator[str]:
    path = "/usr/sbin:/usr/bin"
    for program, package in _PACKAGES.items():
        if shutil.which(program, path=path) is None:
            yield f"{program} is missing: install the package {package}"
    if not any(_PLUGINS.glob("libpmix.so")):
        yield "Slurm's PMIx plugin opens libpmix.so: install the package libpmix-dev"
    if os.geteuid() != 0:
        yield "munged does not run in a user namespace: Slurm needs root"


def job_id(lines: Sequence[str]) -> str:
    """Return the job that `sbatch` says it has submitted."""
    return next(line for line in lines if line.startswith("Submitted batch job ")).split()[-1]
