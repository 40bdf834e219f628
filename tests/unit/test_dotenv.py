"""The `.env` file and secrets: what a line may be, who may read the file, what leaves it and how it is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_multihost_env import config, environ, wire
from pytest_multihost_env.config.dotenv import Dotenv, read
from pytest_multihost_env.environ import secrecy
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Place, RankEnv, Secret
from pytest_multihost_env.report.json import to_json

CANARY = "hf_0123456789abcdefghijkl"


def write(directory: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = directory / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def plain(value: str | None) -> str:
    assert isinstance(value, Secret)
    return "".join(value)


def values(directory: Path, text: str | bytes) -> dict[str, str]:
    return {one.name: one.value or "" for one in read(write(directory, text), (), directory).entries}


def refusal(directory: Path, text: str | bytes, mode: int = 0o600, declared: tuple[str, ...] = ()) -> UsageProblem:
    with pytest.raises(UsageProblem) as caught:
        read(write(directory, text, mode), declared, directory)
    assert caught.value.hint, "every refusal says what to do"
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=b", {"A": "b"}),
        ("\n# comment\n\n  A = b  \n", {"A": "b"}),
        ("export A=b", {"A": "b"}),
        ("A='x # y'", {"A": "x # y"}),
        ('A="x # y" # comment', {"A": "x # y"}),
        ("A=x # comment", {"A": "x"}),
        ("A=x#y", {"A": "x#y"}),
        ('A="a\\nb\\t\\"c\\""', {"A": 'a\nb\t"c"'}),
        ("A='a\\nb'", {"A": "a\\nb"}),
        ('A="first\nsecond"\nB=c', {"A": "first\nsecond", "B": "c"}),
        ("A=", {"A": ""}),
        ("A=''", {"A": ""}),
        ("A=$HOME ${B} $(x) `x`", {"A": "$HOME ${B} $(x) `x`"}),
        ('A="$HOME"', {"A": "$HOME"}),
        ("A=b=c", {"A": "b=c"}),
        ("A=ü€", {"A": "ü€"}),
        ("A=b\r\nB=c\r\n", {"A": "b", "B": "c"}),
        ("A=1\nA=2", {"A": "2"}),
        (b"\xef\xbb\xbfA=b", {"A": "b"}),
        ("", {}),
    ],
)
def test_row_69_the_grammar(special: Path, text: str | bytes, expected: dict[str, str]) -> None:
    assert values(special, text) == expected


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        (f"A=1\n\n# x\nB='{CANARY}\n", "the line is not NAME=VALUE", 4),
        (f'A="1" {CANARY}', "the line is not NAME=VALUE", 1),
        ("A=1\n=b", "the line is not NAME=VALUE", 2),
        ("A=1\n\n\nB", "B has no value", 4),
        ("A-B=1", "'A-B' is not a variable name", 1),
        ("A=1\n1A=1", "'1A' is not a variable name", 2),
        ("A=1\nB=\0", "B contains a NUL", 2),
        (b"A=1\nB=\xff", "the line is not text", 2),
        ("EXTRA_SECRET_KEYS=A,B-C", "EXTRA_SECRET_KEYS has 'B-C', which is not a variable name", 1),
    ],
)
def test_row_69_a_bad_line_is_named_and_not_shown(special: Path, text: str | bytes, what: str, line: int) -> None:
    problem = refusal(special, text)
    assert (problem.what, problem.where) == (what, f".env:{line}")
    assert CANARY not in str(problem)


def test_row_70_a_file_that_is_not_there_is_an_error(special: Path) -> None:
    os.mkfifo(special / "fifo")
    for name, words in (("gone", "No such file"), ("", "not a file|directory"), ("fifo", "not a file")):
        with pytest.raises(UsageProblem, match=words):
            read(special / name, (), special / "elsewhere")
    (special / "big").write_text("A=" + "x" * (1 << 20))
    with pytest.raises(UsageProblem, match="more than 1 MiB"):
        read(special / "big", (), special)
    assert read(None, (), special) == Dotenv()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o602])
@pytest.mark.parametrize(
    ("text", "declared"),
    [(f"HF_TOKEN={CANARY}", ()), (f"PLAIN={CANARY}", ("PLAIN",)), (f"EXTRA_SECRET_KEYS=PLAIN\nPLAIN={CANARY}", ())],
    ids=["looks so", "declared", "declared in the file"],
)
def test_row_67_secrets_that_others_can_read_are_refused(
    special: Path, mode: int, text: str, declared: tuple[str, ...]
) -> None:
    problem = refusal(special, text, mode, declared)
    assert f"{mode:04o}" in (problem.expected or "")
    assert problem.hint == "chmod 600 .env"
    assert CANARY not in str(problem)


def test_row_67_variables_may_be_read_but_not_written_by_others(special: Path) -> None:
    assert len(read(write(special, "A=b", 0o664), (), special).entries) == 1
    assert "changed by others" in refusal(special, "A=b", 0o666).what


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away, which takes root")
def test_row_67_a_file_of_somebody_else_is_refused(special: Path) -> None:
    path = write(special, "A=b")
    os.chown(path, 4711, 4711)
    with pytest.raises(UsageProblem, match="belongs to the user 4711"):
        read(path, (), special)


FILE = f"""
PLAIN=shown
HF_TOKEN={CANARY}
WANDB_API_KEY=wandb-0123456789
OTHER_PASSWORD=not-declared-0123
EXTRA_SECRET_KEYS=WANDB_API_KEY
"""


def env_of(special: Path, launch: dict[str, str], dotenv: str = "", **options: object) -> RankEnv:
    marker = options.pop("marker", {})
    settings = config.load({"secrets": ["HF_TOKEN"], **options}, {}, {}, special)
    found = read(write(special, dotenv) if dotenv else None, settings.secrets, special)
    rules = environ.Rules.from_settings(settings, None, found)
    return environ.rank_env(rules, launch, prefix=None, spot=Place(0, "n1", 0), size=1, marker=marker)


def test_row_68_only_named_secrets_leave(special: Path) -> None:
    env = env_of(special, {}, FILE)
    found = {one.name: one for one in env.variables}
    assert plain(env.values["HF_TOKEN"]) == CANARY
    assert plain(env.values["WANDB_API_KEY"]) == "wandb-0123456789"
    assert not {"OTHER_PASSWORD", "EXTRA_SECRET_KEYS"} & env.values.keys()
    assert (found["OTHER_PASSWORD"].status, found["OTHER_PASSWORD"].origin) == ("BLOCKED", ".env:5")
    assert found["HF_TOKEN"].origin == ".env:3"
    assert (type(env.values["PLAIN"]), env.values["PLAIN"]) == (str, "shown")


def test_row_65_a_secret_is_hidden_in_every_view_and_whole_on_the_wire(special: Path) -> None:
    env = env_of(special, {}, FILE)
    rows = {name: value for name, _, value, _, _ in environ.explain(env)}
    assert (rows["HF_TOKEN"], rows["WANDB_API_KEY"], rows["OTHER_PASSWORD"]) == ("***", "***", "")
    for text in (repr(env), str(env), f"{env.values}", to_json(env.values), repr(Dotenv(entries=()))):
        assert CANARY not in text
    assert f"{env.values['HF_TOKEN']} {env.values['HF_TOKEN']!r:>5} %s" % env.values["HF_TOKEN"] == "*** '***' ***"
    (message,) = wire.Decoder().feed(wire.encode({"env": env.changes}))
    assert message["env"]["HF_TOKEN"] == CANARY
    assert json.loads(json.dumps(env.values))["HF_TOKEN"] == CANARY


def test_row_70_of_shell_file_and_option_the_later_one_wins(special: Path) -> None:
    shell, file = {"HF_TOKEN": "from-the-shell", "PLAIN": "shell"}, "HF_TOKEN=from-the-file\nPLAIN=file"
    assert plain(env_of(special, shell).values["HF_TOKEN"]) == "from-the-shell"
    both = env_of(special, shell, file)
    assert (plain(both.values["HF_TOKEN"]), both.values["PLAIN"]) == ("from-the-file", "file")
    option = env_of(special, shell, file, env=["HF_TOKEN=from-the-option", "PLAIN=option"])
    assert (plain(option.values["HF_TOKEN"]), option.values["PLAIN"]) == ("from-the-option", "option")
    assert env_of(special, shell, file, marker={"PLAIN": "m"}).values["PLAIN"] == "m"


def test_a_secret_without_a_value_is_refused_and_named(special: Path) -> None:
    for launch, text in (({}, ""), ({"HF_TOKEN": ""}, ""), ({}, "HF_TOKEN=")):
        with pytest.raises(UsageProblem, match="the secret HF_TOKEN has no value") as caught:
            env_of(special, launch, text)
        assert caught.value.where == "option --multihost-secrets"
    absent = env_of(special, {"HF_TOKEN": CANARY}, marker={"HF_TOKEN": None})
    assert "HF_TOKEN" not in absent.values, "the test wants it absent"


def test_a_secret_that_cannot_be_hidden_is_refused_without_being_shown(special: Path) -> None:
    with pytest.raises(UsageProblem, match="HF_TOKEN has fewer than 8 characters") as caught:
        env_of(special, {}, "HF_TOKEN=1234567")
    assert caught.value.where == ".env:1"
    assert "1234567" not in str(caught.value)
    assert "HF_TOKEN" in env_of(special, {}, "HF_TOKEN=12345678").values


def test_every_value_that_a_secret_has_anywhere_is_known(special: Path) -> None:
    (special / "multihost-env.toml").write_text(
        f'[environment.hosts.n9.set]\nHF_TOKEN = "of-a-host"\n[environment.ranks.7.set]\nHF_TOKEN = "of-a-rank"\n'
        f'[environment.set]\nHF_TOKEN = "of-all"\nPLAIN = "{CANARY}"'
    )
    settings = config.load({"secrets": ["HF_TOKEN"], "env": ["HF_TOKEN=of-option"]}, {}, {}, special)
    found = read(write(special, "HF_TOKEN=of-file\nA_PASSWORD=held-back"), settings.secrets, special)
    known = secrecy.values(environ.Rules.from_settings(settings, None, found), {"HF_TOKEN": "of-shell"})
    expected = {"of-a-host", "of-a-rank", "of-all", "of-option", "of-file", "of-shell", "held-back"}
    assert {plain(one) for one in known} == expected


def test_an_error_is_reworded_in_every_text() -> None:
    class Special(UsageProblem):
        exit_code = 7

    error = Special(
        f"a {CANARY}", where=f"b {CANARY}", expected=None, hint=f"c {CANARY}", details={"said": f"d {CANARY}"}
    )
    other = error.reworded(environ.Redactor([CANARY]))
    assert type(other) is Special
    assert str(other) == "a ***\n  where: b ***\n  remedy: c ***\n  said: d ***"
    assert other.args == ("a ***",)
