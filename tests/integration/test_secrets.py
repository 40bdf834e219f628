"""Secrets in real runs: they arrive, they are nobody's business, and what is wrong with them is said before the launch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import suites

PYTHON = Path(sys.executable)
COMMAND = [sys.executable, "-m", "pytest_multihost_env.cli"]
CANARY = "hf_0123456789abcdefghijkl"
ARRIVES = """
    import hashlib, os
    import pytest

    @pytest.mark.multihost(ranks=2)
    def test_arrives(multihost):
        digests = {name: hashlib.sha256(os.environ[name].encode()).hexdigest() for name in ("HF_TOKEN", "OF_SHELL")}
        for name, digest in digests.items():
            print(f"{name} of rank {multihost.rank} {digest}")
        assert "OTHER_PASSWORD" not in os.environ
        assert os.environ["PLAIN"] == "a # b"

    def test_ordinary():
        assert "HF_TOKEN" not in os.environ
"""
SETTINGS = 'dotenv = ".env"\nsecrets = ["HF_TOKEN", "OF_SHELL"]\nhosts = "localhost:2"\n'


def prepare(directory: Path, dotenv: str, text: str = ARRIVES) -> None:
    suites.write(directory, text)
    (directory / "multihost-env.toml").write_text(SETTINGS)
    (directory / ".env").write_text(dotenv, encoding="utf-8")
    (directory / ".env").chmod(0o600)


@pytest.mark.mpi_programs
@pytest.mark.parametrize("launcher", ["auto", "local"])
def test_secrets_of_file_and_shell_arrive_and_nothing_else_does(special: Path, launcher: str) -> None:
    prepare(special, f"HF_TOKEN={CANARY}\nOTHER_PASSWORD=0123456789\nPLAIN='a # b'\n")
    env = {"OF_SHELL": "secret of the shell"}
    outcome = suites.run(PYTHON, special, "-rP", f"--multihost-launcher={launcher}", env=env)
    assert outcome.code == 0, outcome
    assert outcome.tests == {"test_arrives": "passed", "test_ordinary": "passed"}, outcome
    assert "OTHER_PASSWORD" in outcome.text, "the header says what was held back"
    assert "0123456789" not in outcome.text


@pytest.mark.parametrize(
    ("dotenv", "said"),
    [
        ("PLAIN=x", ["the secret HF_TOKEN has no value", "multihost-env.toml"]),
        ("HF_TOKEN=short", ["HF_TOKEN has fewer than 8 characters", ".env:1"]),
        (f'A=1\nHF_TOKEN="{CANARY}', ["the line is not NAME=VALUE", ".env:2"]),
    ],
    ids=["missing", "short", "bad line"],
)
def test_what_is_wrong_with_a_secret_is_said_before_any_module_is_imported(
    special: Path, dotenv: str, said: list[str]
) -> None:
    prepare(special, dotenv, "import pathlib\npathlib.Path('imported').touch()\ndef test_x(): pass")
    outcome = suites.run(PYTHON, special, env={"OF_SHELL": "secret of the shell"})
    assert outcome.code == 4, outcome
    for words in said:
        assert words in outcome.text, outcome
    assert CANARY not in outcome.text
    assert not (special / "imported").exists()


def test_a_file_that_git_tracks_is_remarked_upon(special: Path) -> None:
    prepare(special, f"HF_TOKEN={CANARY}\n")
    command = [*COMMAND, "env", "--explain", "--json"]
    env = suites.clean_environ({"OF_SHELL": "secret of the shell"})
    for tracked in (False, True):
        if tracked:
            subprocess.run(["git", "init", "-q", "."], cwd=special, check=True, env=env)
            subprocess.run(["git", "add", ".env"], cwd=special, check=True, env=env)
        done = subprocess.run(command, cwd=special, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert ("tracked by git" in done.stderr) is tracked
        assert CANARY not in done.stdout + done.stderr
        rows = {row["name"]: row for row in json.loads(done.stdout)["variables"]}
        assert (rows["HF_TOKEN"]["value"], rows["HF_TOKEN"]["origin"]) == ("***", ".env:1")
        assert (rows["OF_SHELL"]["value"], rows["OF_SHELL"]["rule"]) == ("***", "secret")
