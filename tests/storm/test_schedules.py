"""Two callers, one of which is interrupted once, at each of its steps in turn, while the other does all of its work."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.provision import garbage
from tests.integration.tiny import make_source
from tests.storm import alone, oracle
from tests.storm.scale import scaled
from tests.storm.world import World

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
ALL = 20_000
Task = Callable[[World], Callable[[], object]]


def builds(world: World) -> Callable[[], object]:
    return world.provision


def uses(world: World) -> Callable[[], object]:
    return lambda: world.provision(uses=True)


def builds_anew(world: World) -> Callable[[], object]:
    return lambda: world.provision(uses=True, force=True)


def clears(world: World) -> Callable[[], object]:
    def clear() -> None:
        with contextlib.suppress(UsageProblem):
            garbage.collect(world.target, garbage.Wish(keep=0))

    return clear


@contextlib.contextmanager
def world(*, stands: bool) -> Iterator[World]:
    """A world; `stands`: with an environment to which TARGET does not lead, so that a gc may take it."""
    with tempfile.TemporaryDirectory(prefix="it's #1 ü", dir=MEMORY) as base:
        source = make_source(Path(base) / "source")
        shutil.rmtree(source / "lib")
        (Path(base) / "shared").mkdir()
        with World(source, Path(base) / "shared" / "python_env") as here:
            if stands:
                here.move(here.start("n1"), ALL)
                here.target.unlink()
            yield here


def interrupted(first: Task, second: Task, steps: int, *, stands: bool) -> str | None:
    """Let `first` take so many steps, `second` all of its own, and `first` the rest.

    Return what is wrong; None when `first` came to its end before it was interrupted.
    """
    with world(stands=stands) as here:
        one = here.start("n1", first(here), holds=True)
        here.move(one, steps)
        if one.ended:
            return None
        other = here.start("n2", second(here), holds=True)
        # The second may have to wait for the first: then both go on in turn.
        here.move(other, 400)
        if other.ended and second is uses:
            here.target.unlink()  # it need not lead to what somebody uses
        while not (one.ended and other.ended):
            here.move(one, 400)
            here.move(other, 400)
        for caller in (one, other):
            if caller.problem is not None:
                return f"after {steps} steps: {type(caller.problem).__name__}: {caller.problem}"
            path = getattr(caller.result, "path", None)
            if path is not None and (lacks := oracle.lacks(path, here.source)):
                return f"after {steps} steps: {lacks}"
        records = list(here.target.parent.glob(".python_env.d/v1/*/READY"))
        if first is second is builds and len(records) != 1:
            return f"after {steps} steps: {len(records)} environments"
    return ""


def first_fault(first: Task, second: Task, *, stands: bool, every: int = 1) -> str:
    """Return what is wrong at the first step at which something is, or ""."""
    steps = 1
    while (found := interrupted(first, second, steps, stands=stands)) == "":
        steps += every
    assert steps > 20, "that was no work to interrupt"
    return found or ""


@pytest.mark.parametrize(
    ("first", "second", "stands"),
    [
        (builds, builds, False),
        (builds, clears, False),
        (uses, clears, True),
        (clears, uses, True),
        (clears, builds_anew, True),
        (builds_anew, clears, True),
        (clears, clears, True),
    ],
)
def test_interrupted_at_every_step(first: Task, second: Task, stands: bool) -> None:
    assert first_fault(first, second, stands=stands, every=scaled(3, 1)) == ""


_MUTANT = """
import sys
from tests.storm import mutants, test_schedules as schedules
mutants.apply(sys.argv[1])
first, second = (getattr(schedules, name) for name in sys.argv[2:])
print(schedules.first_fault(first, second, stands=True))
"""


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("pins_without_looking", "uses", "clears"), ("dooms_without_looking", "clears", "uses")],
)
def test_a_gc_or_a_user_that_does_not_look_again_is_noticed(name: str, first: str, second: str) -> None:
    done = alone.run([sys.executable, "-c", _MUTANT, name, first, second])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("after ")
