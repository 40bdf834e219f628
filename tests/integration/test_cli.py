"""The command in real processes: what it prints where, what it leaves, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.suites import clean_environ

COMMAND = [sys.executable, "-m", "pytest_multihost_env.cli"]
LIMIT = 60


def run(cwd: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        cwd=cwd,
        env=clean_environ({"COLUMNS": "400", **(env or {})}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def shell(cwd: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a CI step; `activate` is the command's beginning there."""
    text = f'activate() {{ {shlex.join([*COMMAND, "activate"])} "$@"; }}\n{script}'
    argv = ["bash", "-euc", text]
    return subprocess.run(argv, cwd=cwd, env=clean_environ(), capture_output=True, text=True, timeout=LIMIT)


def tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SOURCE with one module of its own and nothing of pytest."""
    path = tmp_path_factory.mktemp("cli") / "so'urce #1 \N{LATIN SMALL LETTER U WITH DIAERESIS}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True, timeout=LIMIT)
    site = next(path.glob("lib/python3*/site-packages"))
    (site / "only_in_source.py").write_text("__version__ = '1.0'\n")
    return path


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    """The directory in which `source` was provisioned as ./python_env; tests leave the environment alone."""
    directory = source.with_name("made here")
    directory.mkdir()
    done = run(directory, "provision", str(source))
    assert done.returncode == 0, done.stderr
    return directory


def test_provision_says_what_it_made_and_then_reuses_it(made: Path, source: Path) -> None:
    done = run(made, "provision", str(source), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reused"] is True
    assert (made / "python_env").resolve() == Path(found["path"])
    text = run(made, "provision", str(source)).stdout
    assert text.splitlines()[0] == f"environment {found['path']}"
    assert "added, since the source lacks it: " in text


@pytest.mark.parametrize("as_json", [True, False])
def test_a_dry_run_writes_nothing(made: Path, source: Path, special: Path, as_json: bool) -> None:
    more = ["--json"] if as_json else []
    before = tree(made)
    done = run(made, "provision", str(source), "--dry-run", *more)
    assert done.returncode == 0, done.stderr
    assert str((made / "python_env").resolve()) in done.stdout.encode().decode("unicode_escape" if as_json else "utf-8")
    done = run(special, "provision", str(source), "here", "--dry-run", *more)
    assert done.returncode == 0, done.stderr
    assert ".here.d" in done.stdout
    assert tree(special) == set()
    assert tree(made) == before


def test_source_and_target_may_stand_in_the_configuration(made: Path, source: Path, special: Path) -> None:
    (special / "multihost-env.toml").write_text(
        f"venv = {json.dumps(str(source))}\ntarget = {json.dumps(str(made / 'python_env'))}\n"
    )
    done = run(special, "provision", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reused"] is True
    assert tree(special) == {"multihost-env.toml"}


def test_activate_prints_only_code(made: Path, source: Path) -> None:
    done = shell(made, f"eval \"$(activate {shlex.quote(str(source))})\"; python -c 'import sys; print(sys.prefix)'")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.rstrip("\n")) == (made / "python_env").resolve()


@pytest.mark.parametrize(
    ("words", "code"),
    [("'no source'", 2), ("--bogus", 2), ("a b c d", 2), ("--shell=none .", 2), (". --config=none", 2)],
)
def test_a_failed_activate_makes_the_eval_fail(special: Path, words: str, code: int) -> None:
    done = shell(special, f'eval "$(activate {words})"; echo reached')
    assert done.returncode != 0
    assert done.stdout == ""
    assert "multihost-env: no environment was activated" in done.stderr
    done = shell(special, f"activate {words}")
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert tree(special) == set()


@pytest.fixture
def slow(special: Path) -> Iterator[Path]:
    """A SOURCE whose interpreter answers when its pipe does: never, before it is removed."""
    path = special / "slow"
    (path / "bin").mkdir(parents=True)
    (path / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.0\n")
    os.mkfifo(special / "pipe")
    python = path / "bin" / "python"
    python.write_text(f"#!/bin/sh\nexec cat < {shlex.quote(str(special / 'pipe'))}\n")
    python.chmod(0o755)
    return path


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_an_interrupted_activate_makes_the_eval_fail_and_leaves_nothing(slow: Path, number: int, code: int) -> None:
    child = subprocess.Popen(
        [*COMMAND, "activate", str(slow), "made"],
        cwd=slow.parent,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    first = child.stderr.readline()
    child.send_signal(number)
    out, err = child.communicate(timeout=LIMIT)
    assert first.startswith("multihost-env: making ")
    assert child.returncode == code, err
    assert subprocess.run(["sh", "-c", 'eval "$1"', "sh", out], capture_output=True).returncode != 0
    assert not (slow.parent / "made").is_symlink()
    assert list((slow.parent / ".made.d").glob("v1/*/att/*/bin")) == []


def test_verify_says_yes_and_then_what_changed(made: Path) -> None:
    done = run(made, "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\ngood\n")
    module = next((made / "python_env").glob("lib/python3*/site-packages/only_in_source.py"))
    planted, before, times = module.with_name("planted.py"), module.read_bytes(), module.stat()
    try:
        module.chmod(0o644)  # published files are read-only, which root does not notice
        module.write_text("__version__ = '6.6'\n")
        planted.touch()
        done = run(made, "verify", "python_env", "--json")
        text = run(made, "verify").stdout
    finally:
        module.write_bytes(before)
        module.chmod(0o444)
        os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
        planted.unlink(missing_ok=True)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["good"] is False
    (changed,) = found["differing"]
    assert (Path(changed["path"]).name, changed["what"]) == ("only_in_source.py", ["content", "mode", "time"])
    assert [Path(path).name for path in found["extra"]] == ["planted.py"]
    assert f"changed: {changed['path']} (content, mode, time)" in text
    assert text.endswith("\nNOT as it was published: make a new one with `multihost-env provision --force`\n")


def test_verify_compares_two_environments(made: Path, special: Path) -> None:
    manifest = special / "brought from n7"
    manifest.write_bytes((made / "python_env" / ".multihost-manifest").read_bytes())
    done = run(made, "verify", "python_env", "--against", str(manifest))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "equal")
    text = manifest.read_text()
    manifest.write_text(text.replace("\tonly_in_source.py\t", "\tonly_there.py\t").replace("100444\t", "100644\t", 1))
    done = run(made, "verify", "python_env", "--against", str(manifest), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["equal"]) == (1, False)
    assert [Path(path).name for path in found["missing"] + found["extra"]] == ["only_in_source.py", "only_there.py"]
    assert [one["what"] for one in found["differing"]] == [["mode"]]
    told = run(made, "verify", "python_env", "--against", str(manifest)).stdout
    assert "only in the first: " in told
    assert told.endswith("NOT equal\n")


def test_provision_says_how_it_looked(made: Path, source: Path) -> None:
    for tier in ("metadata", "directories", "stat", "content"):
        done = run(made, "provision", str(source), "--verify", tier, "--json")
        found = json.loads(done.stdout)
        assert (found["reused"], found["checked"]["tier"]) == (True, tier), done.stderr
    assert "checked by stat walk" in run(made, "provision", str(source)).stdout
    done = run(made, "provision", str(source), "--verify", "closely")
    assert done.returncode == 2
    assert "metadata or directories or stat or content" in done.stderr


def test_reach_runs_something_on_each_host(special: Path) -> None:
    done = run(special, "hosts", "--hosts", "localhost:2", "--reach", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (host,) = json.loads(done.stdout)["hosts"]
    assert host["reached"] is True
    assert host["answer"].startswith(f"{os.uname().nodename}, Python 3.")


def test_a_host_that_cannot_be_reached_is_named(special: Path) -> None:
    done = run(special, "hosts", "--hosts", "localhost:2,nowhere.invalid:1", "--reach", "--launcher", "ssh")
    assert done.returncode == 4, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("nowhere.invalid")]
    assert "NO ANSWER" in line
    done = run(special, "check", "--hosts", "nowhere.invalid", "--imports", "json", "--launcher", "ssh")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "nowhere.invalid gave no answer" in done.stdout


def test_check_tells_yes_from_no(special: Path) -> None:
    (special / "needs.txt").write_text("pytest>=8\n")
    good = ["--require", "pytest>=8", "--manifest", "needs.txt", "--packages", "pytest,pluggy", "--imports", "json"]
    done = run(special, "check", *good, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    assert [check["check"] for check in found["checks"]] == ["imports", "drift", "requirements", "requirements"]
    done = run(special, "check", *good, "--require", "pytest<2")
    assert done.returncode == 1
    assert "pytest<2 (--require): " in done.stdout
    done = run(special, "check", "--imports", "no_such_module")
    assert done.returncode == 1
    assert "no_such_module: " in done.stdout


def test_check_goes_into_the_environment_that_it_makes(made: Path, source: Path) -> None:
    done = run(made, "check", "--venv", str(source), "--imports", "only_in_source", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)["checks"][0]["rows"]
    assert set(row["values"].values()) == {"ok"}
    assert run(made, "check", "--imports", "only_in_source").returncode == 1


def test_plan_is_what_a_run_would_act_on(made: Path, source: Path, special: Path) -> None:
    done = run(made, "plan", "--venv", str(source), "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["stage"]: row for row in json.loads(done.stdout)}
    assert rows["python"]["decided_by"] == "the generation"
    assert Path(rows["python"]["value"]) == (made / "python_env").resolve() / "bin" / "python"
    assert rows["source"] == {"stage": "source", "value": str(source), "decided_by": "option --venv"}
    done = run(special, "plan", "--venv", str(source), "--json")
    rows = {row["stage"]: row for row in json.loads(done.stdout)}
    assert rows["python"]["decided_by"] == "to be made by provisioning"
    assert tree(special) == set()


def test_the_dry_run_of_pytest_prints_the_plan_and_runs_nothing(source: Path, special: Path) -> None:
    (special / "pytest.ini").touch()
    (special / "test_x.py").write_text("from pathlib import Path\nPath(__file__).with_name('imported').touch()\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--multihost-venv={source}", "--multihost-dry-run"],
        cwd=special,
        env=clean_environ({"PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "option --multihost-venv" in done.stdout
    assert "to be made by provisioning" in done.stdout
    assert tree(special) == {"pytest.ini", "test_x.py"}


def test_a_reader_that_has_seen_enough_is_no_trouble(special: Path) -> None:
    script = f"{shlex.join([*COMMAND, 'env', '--json'])} | true"
    done = subprocess.run(["bash", "-c", script], cwd=special, env=clean_environ(), capture_output=True, text=True)
    assert done.stderr == ""
