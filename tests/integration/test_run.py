"""`multihost-env run`: programs on ranks, what they get, what is shown, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests import suites

COMMAND = [sys.executable, "-m", "pytest_multihost_env.cli", "run"]
LOCAL = ["--launcher", "local", "--hosts", "localhost:3"]
Done = subprocess.CompletedProcess[str]


def run(cwd: Path, *words: str, env: Mapping[str, str] | None = None, python: str = sys.executable) -> Done:
    environ = suites.clean_environ(env)
    command = [python, *COMMAND[1:], *words]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=100)


def shell(cwd: Path, script: str, *options: str, env: Mapping[str, str] | None = None) -> Done:
    return run(cwd, *LOCAL, *options, "--", "sh", "-c", script, env=env)


def test_ranks_get_their_variables_and_lines_their_ranks(special: Path) -> None:
    text = "rank_bindings: [{rank: 0, env_overrides: {OWN: a}}, {rank: 1, env_overrides: {OWN: b}}]"
    (special / "b.yaml").write_text(text)
    script = 'echo "$MULTIHOST_RANK/$MULTIHOST_WORLD_SIZE $OWN ${NOBODY_ASKED-absent}"; printf "%s" "$PWD"'
    done = shell(special, script, "--rank-binding", "b.yaml", env={"NOBODY_ASKED": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == [
        f"[0@localhost] {special}",
        "[0@localhost] 0/2 a absent",
        f"[1@localhost] {special}",
        "[1@localhost] 1/2 b absent",
    ]
    literal = run(
        special, *LOCAL, "-n", "1", "--no-tags", "--", "printf", "%s|", "{channel}", "{stacks}", "--json", "a b"
    )
    assert literal.stdout == "{channel}|{stacks}|--json|a b|\n"
    plain = shell(special, "echo $MULTIHOST_RANK", "--no-tags", "-n", "2")
    assert sorted(plain.stdout.splitlines()) == ["0", "1"]


@pytest.mark.mpi_programs
def test_an_mpi_program_has_its_world(mpi_python: Path, special: Path) -> None:
    code = "from mpi4py import MPI; c = MPI.COMM_WORLD; print(sorted(c.allgather(c.rank)), flush=True)"
    words = ["-n", "3", "--hosts", "localhost:3", "--", "python", "-c", code]
    done = run(special, *words, python=str(mpi_python))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"[{rank}@localhost] [0, 1, 2]" for rank in range(3)]


@pytest.mark.mpi_programs
def test_under_mpirun_a_signal_is_told_and_ctrl_c_of_a_terminal_is_130(mpi_python: Path, special: Path) -> None:
    hosts = ["-n", "2", "--hosts", "localhost:2"]
    done = run(special, *hosts, "--", "sh", "-c", "[ $MULTIHOST_RANK = 0 ] || kill -SEGV $$", python=str(mpi_python))
    assert done.returncode == 139, done.stderr
    assert "rank 1 on localhost was ended by SIGSEGV" in done.stderr
    script = "touch running-$MULTIHOST_RANK; exec sleep 600"
    command = [str(mpi_python), *COMMAND[1:], *hosts, "--", "sh", "-c", script]
    environ = suites.clean_environ()
    child = subprocess.Popen(command, cwd=special, env=environ, stderr=subprocess.PIPE, start_new_session=True)
    end = time.monotonic() + 60
    while len(list(special.glob("running-*"))) < 2:
        assert child.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    # A terminal sends it to everything in the foreground, mpirun included.
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert b"interrupted" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("exit 0", 0, ""),
        ("[ $MULTIHOST_RANK != 1 ] || exit 3", 3, "rank 1 on localhost ended with code 3"),
        ("[ $MULTIHOST_RANK != 2 ] || kill -SEGV $$", 139, "rank 2 on localhost was ended by SIGSEGV"),
        ("[ $MULTIHOST_RANK = 0 ] && exit 5; sleep 600", 5, "ranks 1-2 still ran 3 s later and got SIGTERM"),
    ],
    ids=["good", "code", "signal", "others hang"],
)
def test_the_exit_code_is_the_programs_and_explained(special: Path, script: str, code: int, said: str) -> None:
    done = shell(special, script)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert bool(done.stderr) is bool(code)


def test_a_time_limit_and_a_program_that_is_not_there_have_codes_of_their_own(special: Path) -> None:
    late = shell(special, "[ $MULTIHOST_RANK = 1 ] || sleep 600", "--time-limit", "2")
    assert late.returncode == 124
    assert "the time limit was reached; " in late.stderr
    missing = run(special, *LOCAL, "--", "no-such-program")
    assert missing.returncode == 127
    assert "did not start: no-such-program cannot be run on this host: No such file or directory" in missing.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "9", "--", "true"], "9"),
        (["-n", "0", "--", "true"], "-n"),
        (["-n", "2"], "CMD"),
        (["--rank-binding", "gone.yaml", "--", "true"], "gone.yaml"),
        (["--secrets", "NOT_SET_ANYWHERE", "--", "true"], "the secret NOT_SET_ANYWHERE has no value"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_started(special: Path, words: list[str], said: str) -> None:
    done = run(special, *LOCAL, *words)
    assert done.returncode in (1, 2), done
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_dry_run_says_where_each_rank_would_be_and_starts_nothing(special: Path, tmp_path: Path) -> None:
    secret = "hf_'0'12'3456'789"
    rest = ["--secrets", "HF_TOKEN", "--env", f"API_KEY={secret}", "--env", "A=it's = $1", "--no-tags", "--lib-first"]
    words = [
        *rest,
        "--time-limit",
        "60",
        "--",
        "sh",
        "-c",
        'echo "$A/$MULTIHOST_WORLD_SIZE" >> "it began"',
        "https://me:passw0rd@h/",
        secret,
    ]
    done = run(special, *LOCAL, "-n", "2", "--dry-run", *words, env={"HF_TOKEN": secret})
    assert done.returncode == 0, done.stderr
    assert "2 ranks with the launcher local" in done.stdout
    assert list(special.iterdir()) == []
    assert not [secret[at : at + 6] for at in range(len(secret) - 5) if secret[at : at + 6] in done.stdout]
    line = done.stdout.splitlines()[-1]
    assert "https://***@h/" in line
    assert " --env=API_KEY " in line, "a name without its value, which the shell is to give"
    shell = suites.clean_environ({"HF_TOKEN": secret, "API_KEY": secret})
    shell["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{shell['PATH']}"
    pasted = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=60)
    assert pasted.returncode == 0, pasted.stderr
    assert (special / "it began").read_text() == "it's = $1/2\n" * 2


def test_a_rank_that_is_lost_is_told_from_one_that_fails(special: Path) -> None:
    done = shell(special, '[ $MULTIHOST_RANK != 1 ] || kill -KILL "$PPID"; sleep 600')
    assert done.returncode == 4, done.stderr
    assert "rank 1 on localhost was lost" in done.stderr


def test_a_secret_arrives_and_is_not_shown(special: Path) -> None:
    secret = "hf_0123456789abcdefghijkl"
    script = 'printf %s "$HF_TOKEN" | cut -c1-12; sleep 0.2; printf "%s\\n" "$HF_TOKEN" | wc -c; echo "$HF_TOKEN" >&2'
    done = shell(special, script, "-n", "1", "--no-tags", "--secrets", "HF_TOKEN", env={"HF_TOKEN": secret})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["***", "26", "***"]
    assert done.stderr == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_outlives_the_command(special: Path, number: signal.Signals, code: int) -> None:
    script = "touch running-$MULTIHOST_RANK; sleep 600"
    command = [*COMMAND, *LOCAL, "-n", "2", "--", "sh", "-c", script]
    child = subprocess.Popen(command, cwd=special, env=suites.clean_environ(), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(special.glob("running-*"))) < 2:
        assert child.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    ranks = [one for one in psutil.process_iter(["cmdline", "pid"]) if one.info["cmdline"] == ["sh", "-c", script]]
    assert len(ranks) == 2
    os.kill(child.pid, number)
    assert child.wait(30) == code
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert alive == []
