"""A real environment through the real command: killed at random moments, its callers get one that runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.storm.scale import FULL, SEED, scaled
from tests.testbed.fixtures import skip_or_fail

LIMIT = 200.0
HOSTS = ("n1", "n2", "n3", "n4")
COMMAND = str(Path(sys.executable).with_name("multihost-env"))
_CALL = """
hostname "$1" && shift && "$1" provision --json "$2" "$3" && exec "$3/bin/python" -I -c 'import os, sys, ssl, pytest, pytest_multihost_env; print(os.path.realpath(sys.prefix))'
"""


class Callers:
    """Runs the command on several hosts, and what it made at once."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.living: list[subprocess.Popen[str]] = []

    def start(self, host: str) -> None:
        argv = ["unshare", "--uts", "sh", "-c", _CALL, "sh", host, COMMAND, str(self.source), str(self.target)]
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.living.append(process)

    def builder(self) -> int | None:
        """Return the process that began an attempt last and still lives."""
        attempts = self.target.parent.glob(".python_env.d/v1/*/att/*.json")
        for record in sorted(attempts, key=lambda path: path.stat().st_ino, reverse=True):
            with contextlib.suppress(OSError, ValueError, KeyError):
                pid = int(json.loads(record.read_text())["builder"]["pid"])
                if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    return pid
        return None

    def strike(self, pid: int) -> None:
        """Kill the caller whose process `pid` builds, and all that it has started; call again on its host."""
        (struck,) = (one for one in self.living if pid == one.pid or pid in _below(one.pid))
        host = struck.args[6]  # type: ignore[index]
        os.killpg(struck.pid, signal.SIGKILL)
        struck.communicate()
        self.living.remove(struck)
        self.start(str(host))

    def end(self) -> None:
        for process in self.living:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _below(pid: int) -> list[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def storm(callers: Callers, chance: random.Random, wanted: int, longest: float) -> int:
    """Kill builders until `wanted` are dead or the environment is made; return how many were."""
    kills = 0
    # Two on each host: the second sees at once that the first is gone.
    for host in HOSTS[: 2 if not FULL else 4] * 2:
        callers.start(host)
    while kills < wanted:
        deadline = time.monotonic() + LIMIT
        while (pid := callers.builder()) is None and any(one.poll() is None for one in callers.living):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(chance.uniform(0, longest))
        if pid is None or callers.builder() != pid:
            break  # it was done before it was struck
        callers.strike(pid)
        kills += 1
    return kills


@pytest.mark.timeout(900 if FULL else 240)
def test_a_real_environment_whose_builders_are_killed(special: Path, figure: Callable[[str], None]) -> None:
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode != 0:
        skip_or_fail("hosts cannot be given names (unshare --uts)")
    source, wanted = special / "source", scaled(2, 10)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", source], check=True)
    chance, kills, rounds, longest = random.Random(SEED), 0, 0, 3.0
    while kills < wanted:
        callers = Callers(source, special / f"shared {rounds}" / "python_env")
        callers.target.parent.mkdir()
        try:
            kills += storm(callers, chance, wanted - kills, longest)
            answers = [one.communicate(timeout=LIMIT) for one in callers.living]
            assert [one.returncode for one in callers.living] == [0] * len(answers), answers
        finally:
            callers.end()
        made = {out[: out.rindex("}") + 1].partition('"path": ')[2].partition("\n")[0] for out, _ in answers}
        assert len(made) == 1, "different environments"
        assert {out.splitlines()[-1] for out, _ in answers} == {json.loads(made.pop().rstrip(","))}
        verified = subprocess.run([COMMAND, "verify", str(callers.target)], capture_output=True, text=True)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        attempts = [path for path in callers.target.parent.glob(".python_env.d/v1/*/att/*") if path.is_dir()]
        assert len(attempts) == 1
        rounds, longest = rounds + 1, longest / 2  # a machine that builds faster is struck sooner
    figure(f"seed {SEED}: {kills} builders of a real environment killed; all callers have the same, which runs")
