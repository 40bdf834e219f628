"""The storms notice mistakes: each of these turns one of them red, within a few rounds."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.tiny import make_source
from tests.storm import alone, blows, mutants
from tests.storm.blows import Weather
from tests.storm.field import Field
from tests.storm.history import History, Member, Sight, faults
from tests.storm.scale import FULL, SEED
from tests.testbed.mounts import StaleMounts

Fields = Callable[..., Field]
Mounts = Callable[..., StaleMounts]
ROUNDS = 6
CALM = Weather(provisioners=4, blows=0)


def calm(field: Field, weather: Weather = CALM) -> Iterator[History]:
    """Yield rounds in which nobody is struck."""
    for number in range(1, ROUNDS + 1):
        with field.round(SEED, number) as here:
            for host in field.hosts * 2:
                here.start(host, *weather.options)
            yield here.finish()


def first_faults(rounds: Iterator[History], **limits: float) -> str:
    """Return what the first round that is red says, or ""."""
    for history in rounds:
        found = faults(history, **limits)  # type: ignore[arg-type]
        if found:
            return "\n".join(found)
    return ""


def test_a_record_that_can_be_replaced(fields: Fields) -> None:
    with fields(mutant="replaces") as field:
        found = first_faults(calm(field, Weather(ttl=0.0)))
    assert "the record changed" in found or "different environments returned" in found


def test_publishing_before_the_last_step(fields: Fields) -> None:
    with fields(mutant="publishes_early") as field:
        found = first_faults(calm(field))
    assert "half-built seen" in found
    assert "missing: finished" in found


@pytest.mark.parametrize("mutant", ["", "polls_by_name"])
def test_asking_by_name(fields: Fields, stale_mounts: Mounts, mutant: str) -> None:
    """Row 28: without the mistake, what a delayed builder publishes is seen at once, by a listing, and by everybody."""
    patient = dataclasses.replace(CALM, ttl=60.0)
    with fields(storage=stale_mounts("n1", "n2", cache=12.0), mutant=mutant) as field:
        found = first_faults(calm(field, patient), builds=1)
    assert ("built 2 times" in found) is bool(mutant), "who was told too early that there is nothing builds it again"


def test_the_usual_script_with_a_lock_that_works(fields: Fields) -> None:
    with fields(mutant="flock_copy_move") as field:
        found = first_faults(blows.storm(field, SEED, 2 * ROUNDS, Weather(blows=1)))
    assert "half-built seen" in found


def test_the_usual_script_with_a_lock_that_ends_at_the_host(fields: Fields, stale_mounts: Mounts) -> None:
    with fields(storage=stale_mounts("n1", "n2"), mutant="flock_copy_move") as field:
        found = first_faults(calm(field))
    assert "half-built" in found or "failed with 3" in found


def test_believing_the_reply_of_a_link(stale_mounts: Mounts, special: Path) -> None:
    storage, source = stale_mounts("n1", cache=0.1), make_source(special / "source")
    target = str(storage.mounts["n1"] / "python_env")
    program = [sys.executable, "-m", "tests.storm.mutants", "believes_the_reply", str(source), target]
    with storage.faults(lose={"link": 1.0}, only="/READY"):
        alone.run(program)
    (record,) = storage.backing.rglob("READY")
    attempt = record.parent / "att" / json.loads(record.read_text())["attempt"]
    assert not attempt.exists(), "what stands was not thrown away: this is no mistake any more"


_MODEL = """
import hypothesis, sys
from hypothesis.stateful import run_state_machine_as_test
from tests.storm import mutants, test_model
mutants.apply(sys.argv[1])
settings = hypothesis.settings(test_model.SETTINGS, max_examples=400, phases=[hypothesis.Phase.generate], derandomize=True)
run_state_machine_as_test(test_model.Protocol, settings=settings)
"""


@pytest.mark.parametrize("name", ["replaces", "publishes_early", "believes_the_reply"][: None if FULL else 1])
def test_the_model_notices_it_too(name: str) -> None:
    done = alone.run([sys.executable, "-c", _MODEL, name])
    assert done.returncode == 1
    assert "AssertionError" in done.stderr


def test_every_mistake_is_tried() -> None:
    here = Path(__file__)
    text = "".join(here.with_name(f"test_{name}.py").read_text() for name in ("mutants", "volumes", "schedules"))
    assert [name for name in mutants.MUTANTS if f'{name}"' not in text] == []


def member(**values: object) -> Member:
    return Member(**{"host": "n1", "began": 0.0, "ended": 1.0, "code": 0, "path": "a", "digest": "1", **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (History(1, 1, [member(), member(path="b")], looks=1), "different environments"),
        (History(1, 1, [member(), member(lacks=["missing: x"])], looks=1), "half-built returned"),
        (History(1, 1, [member(code=None, ended=None)], looks=1), "stuck"),
        (History(1, 1, [member(code=3, said="no")], looks=1), "failed with 3: no"),
        (History(1, 1, [member()], [Sight("n2", "fault", "missing: x", 1.0)], looks=1), "half-built seen"),
        (History(1, 1, [member()], [Sight("n2", "ready", t, 1.0) for t in "ab"], looks=1), "the record changed"),
        (History(1, 1, [member(ended=40.0)], [Sight("n2", "ready", "a", 1.0)], looks=1), "waited 39.0 s"),
        (History(1, 1, [member()]), "no observer looked"),
        (History(1, 1, [member()], looks=1, begun=2), "built 2 times"),
    ],
)
def test_the_judge_sees_each_kind_of_fault(history: History, said: str) -> None:
    (found,) = faults(history, late=30.0, builds=1)
    assert said in found
    assert found.startswith("seed 1, round 1: ")


def test_the_judge_has_nothing_to_say_of_a_good_round() -> None:
    killed = member(code=-9, killed=True, path="", digest="")
    assert faults(History(1, 1, [member(), member(), killed], [Sight("n1", "ready", "a", 0.5)], looks=3), late=5) == []
