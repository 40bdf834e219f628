"""Texts for people, and JSON that is the same for the same value."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from pytest_multihost_env.check.drift import compare
from pytest_multihost_env.check.smoke import smoke
from pytest_multihost_env.check.values import Asked, Declared, Imported, Snapshot, Unanswered
from pytest_multihost_env.environ import explain
from pytest_multihost_env.model import Allocation, Generation, Host, RankEnv, Variable
from pytest_multihost_env.report import json as report_json
from pytest_multihost_env.report import text
from pytest_multihost_env.table import Cell, Look, Table, render

ASCII = Look(encoding="ascii")
COLOUR = Look(colour=True)
TABLE = Table(("name", "n[1-2]"), (("größe", Cell("2.1.0", odd=True)), ("[bold]x[/bold]", "a" * 300)), "end")


def test_nothing_is_cut_off_and_nothing_is_taken_for_markup() -> None:
    shown = render(TABLE)

    assert shown.count("a") >= 300
    assert "[bold]x[/bold]" in shown
    assert "n[1-2]" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.endswith("\nend")


def test_plain_text_has_no_escapes_and_colour_is_not_needed_to_see_what_is_odd() -> None:
    assert "\x1b" not in render(TABLE)
    assert "!= 2.1.0" in render(TABLE)
    assert "\x1b[" in render(TABLE, COLOUR)
    assert "!= 2.1.0" in render(TABLE, COLOUR)


def test_colour_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = render(TABLE), render(TABLE, COLOUR)
    for name, value in (("NO_COLOR", "1"), ("FORCE_COLOR", "1"), ("COLUMNS", "20"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)

    assert (render(TABLE), render(TABLE, COLOUR)) == before


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "no such encoding"])
def test_text_fits_the_encoding(encoding: str) -> None:
    shown = render(TABLE, Look(encoding=encoding))

    shown.encode("ascii" if encoding == "no such encoding" else encoding)
    assert ("größe" in shown) is (encoding in ("latin-1", "utf-8"))


def test_foreign_text_cannot_move_the_cursor() -> None:
    shown = render(Table(("host",), (("\x1b[2Jn1\r\x07\u202e",),), "\x1b]0;x"))

    assert "\x1b" not in shown
    assert "\\x1b[2Jn1\\r\\x07\\u202e" in shown


def test_look_of_a_stream() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")

    assert text.look_of(stream) == Look(colour=False, width=100, encoding="ascii")
    assert text.look_of(stream, colour=True, width=80).colour


def answers() -> dict[str, Any]:
    def host(version: str) -> Snapshot:
        return Snapshot(
            platform={"python": "3.13"},
            asked={"numpy": Asked(("numpy",), ("numpy",))},
            declared={"numpy": Declared(version)},
            modules={"numpy": Imported(version, "/e/numpy", distributions=("numpy",))},
        )

    return {"n1": host("2.4.6"), "n2": host("2.4.6"), "n3": host("2.1.0"), "n4": Unanswered("no route")}


@pytest.mark.parametrize("look", [Look(), ASCII, COLOUR])
def test_drift_and_smoke_tell_table_sentences_and_remedy(look: Look) -> None:
    told = text.drift(compare(answers(), packages=["numpy"]), look)
    assert (
        told.index("!= 2.1.0") < told.index("numpy: n3 has 2.1.0, the other 2 hosts have 2.4.6") < told.index("remedy:")
    )
    assert "n4 gave no answer: no route" in told
    if look is ASCII:
        told.encode("ascii")

    assert "no route" in text.smoke(smoke(answers(), ["numpy"]), look)


def test_a_check_that_passed_says_what_is_so() -> None:
    good = {name: answer for name, answer in answers().items() if name in ("n1", "n2")}

    assert "every host has the same" in text.drift(compare(good, packages=["numpy"]))
    assert "every host imports every module" in text.smoke(smoke(good, ["numpy"]))
    assert "remedy" not in text.drift(compare(good))


def test_hosts() -> None:
    told = text.hosts(Allocation((Host("n1", 8), Host("n2", 1)), "slurm"))

    assert told.splitlines()[-1] == "2 hosts, 9 slots, named by: slurm"
    assert text.hosts(Allocation((Host("n1", 1),), "local")).endswith("1 host, 1 slot, named by: local")


def test_explain() -> None:
    env = RankEnv(
        (
            Variable("TT_A", "1", "PASSED", "prefix TT_", "profile tenstorrent"),
            Variable("CI", None, "BLOCKED", "name CI", "profile ci"),
        )
    )
    told = text.explain(explain(env))

    assert "prefix TT_" in told
    assert told.endswith("1 BLOCKED, 1 PASSED")
    assert "!=" not in told
    assert text.explain([]).endswith("no variables")


def test_plan_names_a_stage_once() -> None:
    told = text.plan([("hosts", "n1:8", "slurm"), ("hosts", "n2:8", "slurm"), ("launch", "openmpi", "option")])

    assert told.count("hosts") == 1
    assert told.count("slurm") == 2


def test_generation(special: Path) -> None:
    made = Generation(special, "k", "d" * 64, False, "n1:7", ("pytest 9.0",), 1.25)

    assert str(special) in text.generation(made)
    assert "made in 1.2 s by n1:7" in text.generation(made)
    assert "pytest 9.0" in text.generation(made)
    assert "reused" in text.generation(dataclasses.replace(made, reused=True))


@dataclasses.dataclass(frozen=True)
class Held:
    where: Path
    names: frozenset[str]
    token: str = dataclasses.field(repr=False, default="hidden")


def test_json_is_stable_and_leaves_out_what_repr_leaves_out() -> None:
    value = {"b": Held(Path("/a b"), frozenset({"y", "x", "z"})), "a": (1, None, True, 0.5), 3: "ü"}
    written = report_json.to_json(value)

    assert json.loads(written) == {
        "3": "ü",
        "a": [1, None, True, 0.5],
        "b": {"names": ["x", "y", "z"], "where": "/a b"},
    }
    assert written == report_json.to_json(dict(reversed(value.items())))
    assert written.isascii()


def test_json_of_a_report_names_the_odd_host() -> None:
    data = json.loads(report_json.to_json(compare(answers(), packages=["numpy"])))

    assert [d["hosts"] for d in data["differences"] if d["kind"] == "mismatch"] == [["n3"], ["n3"]]


@pytest.mark.parametrize("value", [b"x", object(), {1.5: 1}, {True: 1}, float("nan"), Held])
def test_json_refuses_what_it_cannot_write(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        report_json.to_json(value)
