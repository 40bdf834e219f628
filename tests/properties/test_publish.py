"""Whatever the order of their steps, and whoever dies on the way: what stands is whole, is one, and never changes."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytest_multihost_env import files
from pytest_multihost_env.provision import actor, manifest, publish
from pytest_multihost_env.provision.lease import Sighting
from pytest_multihost_env.provision.publish import Ready, Slot
from pytest_multihost_env.provision.scan import scan
from pytest_multihost_env.provision.sharing import NOBODY
from pytest_multihost_env.provision.target import Place

RACERS = 3


class Racer:
    """One builder on a host of its own, advanced step by step; each step is the real one."""

    def __init__(self, slot: Slot, number: int) -> None:
        self.slot, self.number = slot, number
        self.me = dataclasses.replace(actor.myself(), host=f"n{number}", boot=str(number))
        self.attempt: Path | None = None
        self.ready: Ready | None = None
        self.steps: Iterator[None] | None = self._run()

    def advance(self) -> None:
        if self.steps is not None and next(self.steps, self) is self:
            self.steps = None

    def die(self) -> None:
        self.steps = None

    def _run(self) -> Iterator[None]:
        self.slot.make()
        yield
        self.attempt = attempt = self.slot.begin(self.me, self.number + 1)
        yield
        (attempt / "bin").mkdir(parents=True)
        yield
        (attempt / "bin" / "python").write_text(f"built by {self.number}")
        NOBODY.seal(attempt)
        yield
        header = manifest.Header("key", str(attempt), "source", "3.11", "0", dataclasses.asdict(self.me))
        data = manifest.render(header, scan(attempt))
        files.write_new(attempt / manifest.NAME, data)
        yield
        ready = self.slot.publish(attempt, manifest.digest(data), self.me)
        yield
        if ready.attempt != attempt.name:
            self.slot.discard(attempt)
        else:
            self.slot.sweep(ready, Sighting(RACERS + 1, None, None, free=False))
        yield
        publish.point(self.slot.place, self.slot.attempts / ready.attempt)
        self.ready = ready


class Race(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="it's #1 ü"))
        self.slot = Slot(Place(self.base / "source", self.base / "python_env", foreign=False), "key")
        self.racers = [Racer(self.slot, number) for number in range(RACERS)]
        self.stood: Ready | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    @rule(number=st.integers(0, RACERS - 1))
    def step(self, number: int) -> None:
        racer = self.racers[number]
        swept = self.stood is not None and racer.attempt is not None and racer.attempt.name != self.stood.attempt
        # A builder whose lease was lost may find its tree swept, but only when another's stands.
        with contextlib.suppress(FileNotFoundError) if swept else contextlib.nullcontext():
            racer.advance()

    @precondition(lambda self: sum(racer.steps is not None for racer in self.racers) > 1)
    @rule(number=st.integers(0, RACERS - 1))
    def kill(self, number: int) -> None:
        self.racers[number].die()

    @invariant()
    def what_stands_is_whole_and_never_changes(self) -> None:
        ready = self.slot.ready()
        assert ready is not None or self.stood is None
        if ready is None:
            return
        assert self.stood in {None, ready}
        self.stood = ready
        env = self.slot.attempts / ready.attempt
        data = (env / manifest.NAME).read_bytes()
        assert manifest.digest(data) == ready.digest
        assert manifest.parse(data).entries == tuple(scan(env))

    @invariant()
    def all_who_arrived_agree(self) -> None:
        assert {racer.ready for racer in self.racers if racer.ready is not None} <= {self.stood}
        target = self.slot.place.target
        if target.is_symlink():
            assert self.stood is not None
            assert target.resolve().name == self.stood.attempt


TestRace = Race.TestCase
TestRace.settings = hypothesis.settings(max_examples=60, stateful_step_count=40, deadline=None)
