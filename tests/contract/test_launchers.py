"""What every registered launcher must keep to, and the exact command of each built-in one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_multihost_env import registry
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.launch import paste
from pytest_multihost_env.launch.mpich import MPICH
from pytest_multihost_env.launch.openmpi import OpenMPI
from pytest_multihost_env.launch.select import Search, choose
from pytest_multihost_env.launch.srun import SRun
from pytest_multihost_env.launch.ssh import SSH
from pytest_multihost_env.model import LaunchSpec, Place, Placement
from pytest_multihost_env.protocols import Launcher

LAUNCHERS: Mapping[str, Launcher] = registry.load().launchers
THREE = Placement((Place(0, "n1", 0), Place(1, "n1", 1), Place(2, "n2", 0)))
SPEC = LaunchSpec(
    placement=THREE,
    program=("/gen/bin/python", "-P", "/gen/boot strap.py", "10.0.0.1:4000"),
    executable="/gen/bin/mpirun",
    version=(5, 0, 11),
    forward=("FORWARDED",),
    secret="5ec4e7" * 8,
    secret_name="MULTIHOST_ENV_CHANNEL_KEY",
    extra_args=("--user-arg", "x y"),
    local_only=False,
    as_root=False,
)


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> Launcher:
    return LAUNCHERS[request.param]


class TestEvery:
    def test_it_is_registered_under_its_own_name(self, launcher: Launcher) -> None:
        assert LAUNCHERS[launcher.name] is launcher

    def test_computing_a_command_twice_gives_the_same(self, launcher: Launcher) -> None:
        assert launcher.commands(SPEC) == launcher.commands(SPEC)

    def test_the_secret_stands_in_no_argument(self, launcher: Launcher) -> None:
        for command in launcher.commands(SPEC):
            assert not any(SPEC.secret in argument for argument in command.argv)
            assert SPEC.secret not in repr(command)

    def test_the_secret_gets_there_all_the_same(self, launcher: Launcher) -> None:
        for command in launcher.commands(SPEC):
            by_name = command.env.get(SPEC.secret_name) == SPEC.secret and any(
                SPEC.secret_name in argument for argument in command.argv
            )
            by_stdin = command.stdin == SPEC.secret + "\n" and any("--key-on-stdin" in a for a in command.argv)
            assert by_name or by_stdin

    def test_its_commands_can_be_pasted_and_need_nothing_of_this_job(self, launcher: Launcher) -> None:
        """A shell takes each line apart into the variables, arguments and scripts that it was made of."""
        for command in launcher.commands(dataclasses.replace(SPEC, executable="/a b'/bin/mpirun")):
            line = paste.line(command, without=(SPEC.secret_name,))
            assert SPEC.secret not in line
            assert "\n" not in line
            show = "import os, sys, json; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
            argv = (sys.executable, "-c", show, *command.argv)
            line = paste.line(dataclasses.replace(command, argv=argv), without=(SPEC.secret_name,))
            done = subprocess.run(["sh", "-c", line], env={}, capture_output=True, text=True, check=True)
            words, environ = json.loads(done.stdout)
            assert words == list(command.argv)
            for name, value in command.env.items():
                if name == SPEC.secret_name:
                    assert name not in environ
                elif "{agent}" in value:
                    script = Path(environ[name].removeprefix("/bin/sh "))
                    assert script.read_text() == command.scripts["agent"]
                    script.unlink()
                else:
                    assert environ[name] == value

    def test_the_user_s_arguments_are_kept_whole(self, launcher: Launcher) -> None:
        if launcher.traits.programs:
            assert all("x y" in command.argv for command in launcher.commands(SPEC))

    def test_another_program_of_the_same_name_is_refused(self, launcher: Launcher) -> None:
        if launcher.traits.programs:
            refusal = launcher.refuses("/usr/bin/thing", "GNU thing 1.0")
            assert refusal is not None
            assert "/usr/bin/thing" in refusal


def test_open_mpi_5() -> None:
    (command,) = OpenMPI().commands(SPEC)
    assert command.argv == (
        "/gen/bin/mpirun", "--host", "n1:2,n2:1", "-n", "3", "--bind-to", "none",
        "-x", "MULTIHOST_ENV_CHANNEL_KEY", "-x", "FORWARDED", "--user-arg", "x y", *SPEC.program,
    )  # fmt: skip
    assert command.env["OMPI_MCA_btl"] == "self,sm,tcp"
    assert "BatchMode=yes" in command.env["PRTE_MCA_plm_ssh_args"]
    assert not command.scripts


def test_open_mpi_4_has_other_names_for_the_same() -> None:
    (command,) = OpenMPI().commands(dataclasses.replace(SPEC, version=(4, 1, 4)))
    assert command.env["OMPI_MCA_btl"] == "self,vader,tcp"
    assert "BatchMode=yes" in command.env["OMPI_MCA_plm_rsh_args"]
    assert not any(name.startswith("PRTE_") for name in command.env)


def test_open_mpi_on_one_machine_resolves_nothing_and_runs_as_root_when_told() -> None:
    (command,) = OpenMPI().commands(dataclasses.replace(SPEC, local_only=True, as_root=True))
    assert command.argv[2] == "localhost:3"
    assert command.env["OMPI_ALLOW_RUN_AS_ROOT"] == "1"


def test_open_mpi_in_a_path_that_a_shell_would_split_gets_an_agent_that_quotes_it() -> None:
    (command,) = OpenMPI().commands(dataclasses.replace(SPEC, executable="/a b'/bin/mpirun"))
    assert command.env["PRTE_MCA_plm_ssh_agent"] == "/bin/sh {agent}"
    assert set(command.scripts) == {"agent"}


def test_mpich() -> None:
    (command,) = MPICH().commands(SPEC)
    assert command.argv == (
        "/gen/bin/mpirun", "-genvlist", "MULTIHOST_ENV_CHANNEL_KEY,FORWARDED", "--user-arg", "x y",
        "-hosts", "n1:2,n2:1", "-n", "3", *SPEC.program,
    )  # fmt: skip


def test_intel_s_mpiexec_has_a_section_for_each_host() -> None:
    (command,) = MPICH().commands(dataclasses.replace(SPEC, version=(2021, 18)))
    assert command.argv == (
        "/gen/bin/mpirun", "-genvlist", "MULTIHOST_ENV_CHANNEL_KEY,FORWARDED", "--user-arg", "x y",
        "-host", "n1", "-n", "2", *SPEC.program, ":", "-host", "n2", "-n", "1", *SPEC.program,
    )  # fmt: skip
    assert "BatchMode=yes" in command.env["I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS"]


OWN_KEYS = [
    (OpenMPI(), (), ("--bind-to", "core"), "none"),
    (OpenMPI(), (), ("--bind-to=core",), "none"),
    (OpenMPI(), (), ("--hostfile", "mine"), "n1:2,n2:1"),
    (OpenMPI(), (4, 1, 8), ("-H", "n1:2,n2:1,n3"), "n1:2,n2:1"),
    (MPICH(), (4, 0), ("-f", "mine"), "n1:2,n2:1"),
    (MPICH(), (2021, 18), ("-machinefile", "mine"), "n1"),
    (MPICH(), (4, 0), ("-genvall",), "-genvlist"),
]


@pytest.mark.parametrize(("launcher", "version", "theirs", "ours"), OWN_KEYS)
def test_a_user_s_own_key_takes_the_place_of_ours(
    launcher: Launcher, version: tuple[int, ...], theirs: tuple[str, ...], ours: str
) -> None:
    """Row 86; mpirun refuses an option that it finds twice."""
    with_it = dataclasses.replace(SPEC, version=version, extra_args=theirs)
    (command,) = launcher.commands(with_it)
    assert ours not in command.argv
    assert " ".join(theirs) in " ".join(command.argv)


def test_variables_that_the_user_has_mpich_send_are_sent_as_well() -> None:
    (command,) = MPICH().commands(dataclasses.replace(SPEC, extra_args=("-genvlist", "A,B", "-v")))
    assert command.argv[1:4] == ("-genvlist", "MULTIHOST_ENV_CHANNEL_KEY,FORWARDED,A,B", "-v")


def test_of_two_values_ssh_takes_the_first_so_the_user_s_come_first() -> None:
    command, _ = SSH().commands(dataclasses.replace(SPEC, extra_args=("-o", "ConnectTimeout=60")))
    assert command.argv.index("ConnectTimeout=60") < command.argv.index("ConnectTimeout=10")


def test_ssh_quotes_for_the_far_shell() -> None:
    first, second = SSH().commands(SPEC)
    assert first.argv[-2:] == (
        "n1",
        "exec /gen/bin/python -P '/gen/boot strap.py' 10.0.0.1:4000 --ranks 0,1 --key-on-stdin",
    )
    assert second.argv[-2] == "n2"
    assert "--ranks 2" in second.argv[-1]


LISTED = "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\nspecific pmix plugin versions available: pmix_v4\n"
OPEN_MPI = '["Open MPI v5.0.11, package: x", "/gen/lib/libmpi.so.40"]\n'
MPICH_5 = '["MPICH Version:      5.0.2", "/usr/lib/libmpich.so.12"]\n'
NOTHING = '["none", ""]\n'


def srun(library: str, *extra: str, listed: str = LISTED) -> tuple[str, ...]:
    spec = dataclasses.replace(SPEC, executable="/usr/bin/srun", extra_args=extra, answers=(listed, library))
    (command,) = SRun().commands(spec)
    return command.argv


def test_srun_places_every_task_and_sends_variables_by_name() -> None:
    spec = dataclasses.replace(SPEC, executable="/usr/bin/srun", answers=(LISTED, OPEN_MPI))
    (command,) = SRun().commands(spec)
    own = "OMPI_MCA_btl,OMPI_MCA_mpi_yield_when_idle,OPAL_PREFIX,PMIX_PREFIX,PMIX_MCA_psec"
    assert command.argv == (
        "/usr/bin/srun", "--ntasks=3", "--nodes=2", "--ntasks-per-node=2", "--distribution=arbitrary",
        "--nodelist=n1,n1,n2", "--mpi=pmix", "--overlap", "--cpu-bind=none", "--kill-on-bad-exit=1", "--input=none",
        f"--export=MULTIHOST_ENV_CHANNEL_KEY,{own},FORWARDED,PATH,LD_LIBRARY_PATH", "--user-arg", "x y",
        *SPEC.program, "--rank-from", "SLURM_PROCID",
    )  # fmt: skip
    assert command.env["OPAL_PREFIX"] == "/gen"


def test_srun_offers_what_the_library_can_talk_to() -> None:
    assert "--mpi=pmix" in srun(OPEN_MPI)
    assert "--mpi=pmi2" in srun(MPICH_5)
    assert "--mpi=none" in srun(NOTHING)
    assert not any(word.startswith("--mpi") for word in srun(""))
    older = "srun: MPI types are...\nsrun: none\nsrun: pmi2\n"
    assert SRun().mismatch((older, MPICH_5)) is None
    assert SRun().mismatch((older, OPEN_MPI)) == "it offers none, pmi2, and Open MPI v5.0.11, package: x needs pmix"


def test_a_key_of_the_user_takes_the_place_of_ours() -> None:
    words = srun(
        OPEN_MPI, "--mpi=pmix_v4", "-K0", "--hint=nomultithread", "--exclusive", "-i", "all", "--export=MINE,ALL"
    )
    assert [
        word for word in words if word.startswith(("--mpi", "--kill", "-K", "--cpu-bind", "--overlap", "--input"))
    ] == [
        "--mpi=pmix_v4",
        "-K0",
    ]
    (export,) = [word for word in words if word.startswith("--export")]
    assert "MULTIHOST_ENV_CHANNEL_KEY" in export
    assert export.endswith(",MINE,ALL")
    assert "=" not in export.removeprefix("--export=")


@pytest.mark.parametrize(
    ("environ", "hosts", "why"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[01-03]"}, ("n01", "n03"), None),
        ({}, ("n01",), "not in a Slurm job"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[01-03]"}, ("n01", "n4"), "n4: not a node of this Slurm job"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[01-"}, ("n01",), "cannot be read"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_HET_SIZE": "2"}, ("n1",), "heterogeneous"),
    ],
)
def test_srun_is_for_the_hosts_of_its_own_job(environ: dict[str, str], hosts: tuple[str, ...], why: str | None) -> None:
    said = SRun().outside(environ, hosts)
    assert (said is None) is (why is None)
    assert why is None or why in str(said)


def test_srun_outside_of_a_job_is_refused_with_what_to_do() -> None:
    search = Search(Path("/gen"), "", remote=True, mpi4py=True, environ={}, hosts=("n1",))
    with pytest.raises(UsageProblem) as caught:
        choose("srun", LAUNCHERS, search)
    assert "this process is not in a Slurm job (start it with salloc or sbatch)" in str(caught.value)
    assert "start this in a job that has these hosts" in str(caught.value)
