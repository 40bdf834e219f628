"""Secrets as files, and secrets for some tests only: what a rank finds, and that nothing is left whoever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_multihost_env import config, plan
from pytest_multihost_env.launch import secretfiles
from pytest_multihost_env.launch.job import Job
from tests import suites

PYTHON = Path(sys.executable)
SECRET = "quite unheard of 0123456789"
SUITE = """
    import json, os, pathlib, resource, stat, subprocess
    import pytest

    two = {"ranks": 2}

    @pytest.mark.multihost(**two)
    def test_key(multihost):
        file = pathlib.Path(os.environ["DEPLOY_KEY_FILE"])
        assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
        made = subprocess.run(["ssh-keygen", "-y", "-f", file], capture_output=True, text=True)
        assert made.stdout.split()[:2] == pathlib.Path("key.pub").read_text().split()[:2], made.stderr
        assert "DEPLOY_KEY" not in os.environ
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] <= 1
        pathlib.Path(f"path of rank {multihost.rank}").write_text(str(file))

    @pytest.mark.multihost(**two)
    def test_without():
        assert "DB_PASSWORD" not in os.environ
        assert "HF_TOKEN" in os.environ

    @pytest.mark.multihost(**two, secrets=["DB_PASSWORD"])
    def test_exactly_these():
        assert os.environ["DB_PASSWORD"].startswith("quite unheard of")
        assert not {"HF_TOKEN", "DEPLOY_KEY_FILE", "DEPLOY_KEY"} & os.environ.keys()
        assert os.environ["DB_PASSWORD"] == ""

    @pytest.mark.multihost(**two, secrets=[])
    def test_none_at_all():
        assert not {"HF_TOKEN", "DEPLOY_KEY_FILE", "DB_PASSWORD"} & os.environ.keys()

    @pytest.mark.multihost(**two, secrets=["NOBODY"])
    def test_undeclared(): pass

    @pytest.mark.multihost(**two, env={"HF_TOKEN": "of the marker 0123456789"})
    def test_of_the_marker():
        assert os.environ["HF_TOKEN"] == "x"
"""


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in memory, where the hosts of this test put their files, and where none may stay."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="secret files #1 ") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        monkeypatch.setattr(secretfiles, "PLACES", (name,))
        yield Path(name)
        assert not list(Path(name).iterdir())


def test_row_67_a_key_is_a_private_file_for_the_life_of_the_ranks_and_a_test_gets_the_secrets_that_it_names(
    special: Path, memory: Path
) -> None:
    suites.write(special, SUITE)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", special / "key"], check=True)
    key = (special / "key").read_text().strip()
    (special / "key").unlink()
    (special / ".env").touch(0o600)
    (special / ".env").write_text(f'DEPLOY_KEY="{key}"\nDB_PASSWORD={SECRET}\n')
    (special / "multihost-env.toml").write_text(
        'dotenv = ".env"\nsecrets = ["HF_TOKEN"]\nsecret-files = ["DEPLOY_KEY"]\ntest-secrets = ["DB_PASSWORD"]\n'
        'launcher = "local"\nhosts = "localhost:2"\n'
    )
    outcome = suites.run(PYTHON, special, "-rA", env={"HF_TOKEN": "0123456789"})
    assert outcome.tests == {
        "test_key": "passed",
        "test_without": "passed",
        "test_exactly_these": "failure",
        "test_none_at_all": "passed",
        "test_undeclared": "error",
        "test_of_the_marker": "failure",
    }, outcome
    assert "the test asks for the secret NOBODY, which nobody has declared" in outcome.messages["test_undeclared"]
    for text in (outcome.text, (special / "junit.xml").read_text()):
        assert "***" in text
        assert not [one for one in (SECRET, "of the m", key[60:100]) if one in text]
    first, second = (Path((special / f"path of rank {rank}").read_text()) for rank in (0, 1))
    assert (first.parent.parent, first.name) == (memory, "DEPLOY_KEY")
    assert first.parent != second.parent
    assert not first.parent.exists()
    words = ["env", "--explain", "--json"]
    env = suites.clean_environ({"HF_TOKEN": "0123456789", "COLUMNS": "300"})
    done = subprocess.run(
        [PYTHON, "-m", "pytest_multihost_env.cli", *words], cwd=special, env=env, capture_output=True, text=True
    )
    assert "DEPLOY_KEY_FILE" in done.stdout
    assert "a secret that is not for these ranks" in done.stdout
    assert key[60:100] not in done.stdout


def started(directory: Path) -> tuple[Job, dict[str, int]]:
    """Start two ranks that hold a secret in a file, and return the processes by what they are."""
    settings = config.load({"secret-files": ["KEY"], "launcher": "local", "hosts": "localhost:2"}, {}, {}, directory)
    made = plan.make(settings)
    spots = made._everyone
    job = made.start(plan.Placement(spots))
    for spot in spots:
        order = made.rank_env(spot, 2).order
        job.send(spot.rank, {"t": "start", "argv": ["/bin/sleep", "600"], "keep": [], "cwd": "/", **order})
    return job, {"launcher": job._processes[0].pid, "agent": job.members[0].pid, "agent 1": job.members[1].pid}


@pytest.mark.timeout(200)
def test_s7_no_file_stays_whoever_is_killed_at_whichever_moment(
    special: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 moments, from before the files are made until the program runs."""
    monkeypatch.setenv("KEY", SECRET)
    chance = random.Random(7)
    seen = 0
    for moment in range(50):
        job, pids = started(special)
        try:
            victims = list(pids) if moment % 5 == 0 else ["launcher", "agent"] if moment % 5 == 1 else ["agent"]
            if moment % 5 == 4:
                victims = []  # the controller's end of the channels goes, as when it is killed
            time.sleep(chance.uniform(0, 0.06))
            seen += bool(list(memory.glob("*/KEY")))
            for victim in victims:
                os.kill(pids[victim], signal.SIGKILL)
            if not victims:
                for member in job.members.values():
                    member.sock.close()
                    member.lost = "closed"
            elif moment % 2:
                gone(memory, 1)  # the other rank's stays as long as that runs
        finally:
            job.close()
        gone(memory, 0)
    assert seen > 10, "often enough there was something to remove"


def gone(memory: Path, most: int) -> None:
    end = time.monotonic() + 20
    while len(left := list(memory.iterdir())) > most:
        assert time.monotonic() < end, left
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_s7_no_file_stays_when_the_command_is_ended(special: Path, memory: Path, number: signal.Signals) -> None:
    words = ["--launcher=local", "--hosts=localhost:2", "--secret-files=KEY", "-n2", "--", "sh", "-c"]
    script = 'cat "$KEY_FILE" >/dev/null && touch running-$MULTIHOST_RANK; sleep 600'
    command = [PYTHON, "-m", "pytest_multihost_env.cli", "run", *words, script]
    with subprocess.Popen(
        command, cwd=special, env=suites.clean_environ({"KEY": SECRET}), stderr=subprocess.DEVNULL
    ) as one:
        end = time.monotonic() + 60
        while len(list(special.glob("running-*"))) < 2:
            assert one.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        assert len(list(memory.glob("*/KEY"))) == 2
        os.kill(one.pid, number)
    gone(memory, 0)


HOLDER = """
import os, sys
from pytest_multihost_env.launch.secretfiles import SecretFiles
files = SecretFiles({"KEY_FILE": "0123456789"})
print(files._keeper.pid, files.variables["KEY_FILE"], flush=True)
sys.stdin.read()
"""


def test_what_an_agent_and_its_keeper_leave_is_swept_and_what_is_held_is_not() -> None:
    held = secretfiles.SecretFiles({"OTHER_FILE": "0123456789"})
    with subprocess.Popen([PYTHON, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        keeper, path = holder.stdout.readline().split(maxsplit=1)
        file = Path(path.strip())
        os.kill(int(keeper), signal.SIGKILL)
        secretfiles.sweep()
        assert file.read_text() == "0123456789", "its owner lives"
        holder.kill()
    assert file.exists(), "both are gone"
    secretfiles.sweep()
    assert not file.parent.exists()
    assert Path(held.variables["OTHER_FILE"]).exists()
    held.remove()
    held.remove()


def test_only_memory_will_do(special: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = next((one for one in (special, Path.home(), Path("/var/tmp")) if not secretfiles._in_memory(str(one))), None)
    assert disk is not None
    monkeypatch.setattr(secretfiles, "PLACES", (str(disk), ""))
    with pytest.raises(OSError, match="no directory in memory for the files of secrets"):
        secretfiles.SecretFiles({"KEY_FILE": SECRET})
    assert not list(disk.glob(f"{secretfiles.BEGINNING}*"))
    monkeypatch.setattr(secretfiles, "PLACES", (str(memory), ""))
    with pytest.raises(OSError, match="No such file"):
        secretfiles.SecretFiles({"KEY_FILE": SECRET, "no/such_FILE": SECRET})
