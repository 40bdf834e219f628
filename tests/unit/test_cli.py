"""The command's parser, and how settings and errors become options and exit codes; nothing is provisioned here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pytest_multihost_env.cli import command, main
from pytest_multihost_env.cli.provisioning import failing_code
from pytest_multihost_env.cli.state import in_our_words, project_of
from pytest_multihost_env.config.table import SETTINGS

PARTS = ["activate", "check", "demo", "doctor", "env", "gc", "hosts", "plan", "provision", "run", "verify"]


@pytest.fixture(autouse=True)
def elsewhere(special: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(special)
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    return special


def test_only_commands_that_work_are_registered() -> None:
    assert sorted(command.commands) == PARTS


@pytest.mark.parametrize("name", PARTS)
def test_help_of_each_part(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: multihost-env {name} ")
    assert "--config FILE" in text


def test_options_that_are_settings_have_the_words_of_the_table() -> None:
    known = {f"--{setting.name}": setting for setting in SETTINGS if setting.everywhere}
    found = [
        (option, known[option.opts[0]])
        for part in command.commands.values()
        for option in part.params
        if isinstance(option, click.Option) and option.opts[0] in known and option.help != part.params[0].help
    ]
    shared = [(option, setting) for option, setting in found if option.opts[0] != "--dry-run"]
    assert len(shared) > 10
    for option, setting in shared:
        assert option.help == setting.help[:1].upper() + setting.help[1:] + "."
        assert option.metavar == setting.metavar
        assert option.multiple == setting.repeatable


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "Usage: multihost-env"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["plan", "--bogus"], 2, "remedy: see `multihost-env plan --help`"),
        (["hosts", "--hosts", "n1:x"], 2, "option --hosts"),
        (["hosts", "--hostfile", "no file"], 2, "no file"),
        (["plan", "--launcher", "nothing"], 2, "where: --launcher"),
        (["--config", "none.toml", "plan"], 2, "the configuration file does not exist"),
        (["plan", "--config", "none.toml"], 2, "the configuration file does not exist"),
        (["provision"], 2, "there is no SOURCE"),
        (["provision", "no source"], 2, "does not exist"),
        (["verify"], 3, "is not an environment"),
        (["env", "--rank", "99", "--hosts", "localhost:2"], 2, "0 to 1"),
        (["env", "--host", "n7", "--hosts", "n1:2,n2:2"], 2, "n1, n2"),
        (["doctor", "--fs", "no such"], 2, "no such does not exist"),
        (["doctor", "--fs", "/dev/null"], 2, "/dev/null is not a directory"),
        (["doctor", "--fs", ".", "--patience", "0"], 2, "--patience"),
        (["doctor", "--launcher", "nothing", "--fs", "."], 2, "where: --launcher"),
        (["doctor", "--hosts", "n1:x"], 2, "option --hosts"),
        (["doctor", "--fs", ".", "--patience", "nan"], 2, "nan is no time"),
        (["doctor", "--fs", ""], 2, "is the variable set that it comes from?"),
        (["provision", ""], 2, "is the variable set that it comes from?"),
        (["provision", "source", ""], 2, "is the variable set that it comes from?"),
        (["verify", ""], 2, "is the variable set that it comes from?"),
        (["gc", ""], 2, "is the variable set that it comes from?"),
        (["check", "--manifest", ""], 2, "is the variable set that it comes from?"),
        (["plan", "--config", ""], 2, "is the variable set that it comes from?"),
        (["plan", "--hosts"], 2, "remedy: see `multihost-env plan --help`"),
        (["check", "--require", "=="], 2, "--require"),
        (["check", "--manifest", "none.txt"], 2, "none.txt"),
    ],
)
def test_what_cannot_be_is_one_clear_error(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err
    if words:
        assert captured.err.startswith("multihost-env: ")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("words", [["-v", "provision", "none"], ["provision", "none", "-v"]])
def test_verbose_shows_where_an_error_came_from(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert "multihost-env: the source " in captured.err


def test_hosts_as_text_and_as_json(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "host file").write_text("n1 slots=2\nn2 slots=3\n")
    assert main(["hosts", "--hostfile", "host file", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    file = elsewhere / "host file"
    assert found["hosts"] == [
        {"name": "n1", "slots": 2, "where": f"{file}:1"},
        {"name": "n2", "slots": 3, "where": f"{file}:2"},
    ]
    assert found["source"] == f"hostfile {file}"
    assert main(["hosts", "--hostfile", "host file"]) == 0
    assert "n2     3       host file:2\n" in capsys.readouterr().out
    assert found["slots"] == 5
    assert main(["hosts", "--hosts", "n[1-2]:4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["n1", "4", "option", "--hosts"],
        ["n2", "4", "option", "--hosts"],
    ]
    assert lines[-1] == "2 hosts, 8 slots, named by: option --hosts"


def test_env_explains_each_name_and_hides_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TT_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("HF_TOKEN", "very-secret-indeed")
    words = ["env", "--hosts", "n1:2,n2:2", "--env", "MODE=fast", "--block", "TT_VISIBLE_DEVICES", "--rank", "3"]
    assert main([*words, "--json"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text)
    rows = {row["name"]: row for row in found["variables"]}
    assert (found["rank"], found["host"]) == (3, "n2")
    assert rows["TT_VISIBLE_DEVICES"]["status"] == "BLOCKED"
    assert rows["TT_VISIBLE_DEVICES"]["rule"] == "block TT_VISIBLE_DEVICES"
    assert rows["MODE"]["value"] == "fast"
    assert rows["HF_TOKEN"]["value"] == "***"
    assert rows["MULTIHOST_RANK"]["value"] == "3"
    assert main([*words, "--explain"]) == 0
    explained = capsys.readouterr().out
    assert main(words) == 0
    short = capsys.readouterr().out
    assert "BLOCKED" in explained
    assert "BLOCKED" not in short
    assert "TT_VISIBLE_DEVICES" not in short
    assert "very-secret-indeed" not in text + explained + short


def test_a_host_is_known_by_the_name_of_its_interface(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 84."""
    (elsewhere / "multihost-env.toml").write_text("[environment.hosts.n1]\nset = { MODE = 'fast' }\n")
    assert main(["env", "--hosts", "n1-hsn0.x.org:2,n2:2", "--host", "n1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rank"], found["host"]) == (0, "n1-hsn0.x.org")
    assert [one["value"] for one in found["variables"] if one["name"] == "MODE"] == ["fast"]
    assert main(["hosts", "--hosts", "n1-hsn0,n2,N1.x.org"]) == 2
    assert "N1.x.org names the same machine as n1-hsn0" in capsys.readouterr().err


def test_env_of_a_host_is_that_of_its_first_rank(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--hosts", "n1:2,n2:2", "--host", "n2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rank"], found["host"]) == (2, "n2")


def test_settings_come_from_the_nearest_project_above(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = elsewhere / "a" / "b"
    below.mkdir(parents=True)
    assert project_of(below) == below
    (elsewhere / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert project_of(below) == below
    (elsewhere / "pyproject.toml").write_text("[tool.multihost-env]\nhosts = 'n1:7'\n")
    assert project_of(below) == elsewhere
    monkeypatch.chdir(below)
    (elsewhere / "a" / "multihost-env.toml").write_text("hosts = 'n1:7'\n")
    assert project_of(below) == elsewhere / "a"


def test_a_named_file_does_not_decide_where_things_are_written(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "ci").mkdir()
    (elsewhere / "ci" / "own.toml").write_text("timeout = 7\nhostfile = 'hosts'\n")
    (elsewhere / "ci" / "hosts").write_text("localhost slots=2\n")
    assert main(["plan", "--config", "ci/own.toml", "--launcher", "local", "--json"]) == 0
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["target"]["value"] == str(elsewhere / "python_env")
    assert rows["limit for a test"]["value"] == "7 s"
    assert rows["host localhost"]["value"] == "2 slots"
    assert rows["launcher"]["decided_by"] == "option --launcher"


def test_hints_speak_of_options_that_the_command_has() -> None:
    text = "leave it out (--multihost-hosts) or see --multihost-launcher-args and --multihost-dry-run"
    ours = in_our_words(text, command.commands["plan"])
    assert ours == "leave it out (--hosts) or see --launcher-args and --multihost-dry-run"
    assert in_our_words(text, None) == text


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("form", ["--shell={}", "--shell {}", ""])
def test_failing_code_makes_the_eval_fail(shell: str, form: str) -> None:
    code = failing_code(["activate", *form.format(shell).split()])
    done = subprocess.run([shell, "-ec", 'eval "$1"; echo reached', shell, code], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "no environment was activated" in done.stderr


@pytest.mark.parametrize("words", [["--shell"], ["--shell=none"], ["--shell", "fish", "--shell=sh"]])
def test_failing_code_is_never_empty(words: list[str]) -> None:
    assert "printf" in failing_code(words)


def command_line(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell's script as `"$@"`."""
    argv = ["sh", "-c", script, "sh", sys.executable, "-m", "pytest_multihost_env.cli", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", [["hosts"], ["hosts", "--json"], ["plan", "--help"]])
def test_a_closed_standard_output_changes_nothing_but_what_is_seen(words: list[str]) -> None:
    done = command_line('"$@" >&-', *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_with_everything_closed_the_code_still_tells() -> None:
    assert command_line('"$@" <&- >&- 2>&-', "hosts").returncode == 0
    assert command_line('"$@" <&- >&- 2>&-', "provision", "nothing").returncode == 2


@pytest.mark.parametrize("words", [["hosts"], ["hosts", "--json"]])
def test_a_full_standard_output_is_one_error(words: list[str]) -> None:
    done = command_line('"$@" >/dev/full', *words)
    assert (done.returncode, done.stderr) == (3, "multihost-env: standard output: No space left on device\n")


def test_activate_fails_too_when_its_code_finds_no_room() -> None:
    done = command_line('"$@" >/dev/full', "activate", "nothing")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "does not exist" in done.stderr


def test_a_working_directory_that_is_gone_is_called_so(elsewhere: Path) -> None:
    (elsewhere / "gone").mkdir()
    done = command_line('cd gone && rmdir ../gone && "$@"', "hosts")
    assert done.returncode == 2
    assert "the working directory is not there any more" in done.stderr


def test_the_package_can_be_run_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_multihost_env.cli", "--version"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    assert done.stdout.startswith("multihost-env, version ")
