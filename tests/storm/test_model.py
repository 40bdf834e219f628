"""L10, the real protocol under chosen schedules: whatever the order of its steps, whoever dies, whatever reply is lost."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pytest_multihost_env.errors import MultihostError, UsageProblem
from pytest_multihost_env.provision import garbage
from tests.storm import oracle
from tests.storm.scale import FULL, scaled
from tests.storm.world import Caller, World

HOSTS = ("n1", "n2", "n3")
CALLERS = 5
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
which = st.integers(0, CALLERS - 1)


class Protocol(RuleBasedStateMachine):
    """Up to five callers on three hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="it's #1 ü", dir=MEMORY))
        source = self.base / "source"
        (source / "bin").mkdir(parents=True)
        (source / "bin" / "python").write_text("#!/bin/sh\n")
        (source / "bin" / "python").chmod(0o755)
        (source / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
        (self.base / "shared").mkdir()
        self.world = World(source, self.base / "shared" / "python_env")
        self.world.__enter__()
        self.stood: dict[str, bytes] = {}
        self.looked: set[str] = set()

    def teardown(self) -> None:
        try:
            self.all_come_to_an_end()
        finally:
            self.world.__exit__()
            shutil.rmtree(self.base)

    @initialize(first=st.sampled_from(HOSTS), second=st.sampled_from(HOSTS))
    def begin(self, first: str, second: str) -> None:
        self.world.start(first)
        self.world.start(second)

    def caller(self, number: int) -> Caller:
        return self.world.callers[number % len(self.world.callers)]

    @precondition(lambda self: len(self.world.callers) < CALLERS)
    @rule(host=st.sampled_from(HOSTS))
    def another(self, host: str) -> None:
        self.world.start(host)

    @rule(number=which, steps=st.integers(1, 4))
    def step(self, number: int, steps: int) -> None:
        self.world.move(self.caller(number), steps)

    @rule(number=which, steps=st.integers(5, 120))
    def run(self, number: int, steps: int) -> None:
        self.world.move(self.caller(number), steps)

    @rule(number=which)
    def dies(self, number: int) -> None:
        self.world.kill(self.caller(number))

    @rule(number=which)
    def loses_a_reply(self, number: int) -> None:
        self.caller(number).loses = True

    @rule(number=which)
    def is_shown_an_old_listing(self, number: int) -> None:
        self.caller(number).stale = True

    @rule(number=which, seconds=st.sampled_from([0.5, 5.0]))
    def time_passes(self, number: int, seconds: float) -> None:
        self.caller(number).clock += seconds

    @invariant()
    def it_holds(self) -> None:
        """What stands is whole and stays; who was served has it; who failed was lied to."""
        records = {str(path.parent): path for path in self.base.glob("shared/.python_env.d/v1/*/READY")}
        assert self.stood.keys() <= records.keys(), "a record is gone"
        for slot, path in records.items():
            data = path.read_bytes()
            assert self.stood.setdefault(slot, data) == data, "a record changed"
        standing = [Path(slot) / "att" / json.loads(data)["attempt"] for slot, data in self.stood.items()]
        for attempt in standing:
            assert not oracle.lacks(attempt, self.world.source)
        for caller in self.world.callers:
            if caller.result is not None:
                assert [caller.result.path] == standing
            if caller.problem is not None:
                assert caller.faulty, caller.problem
                assert isinstance(caller.problem, MultihostError), caller.problem
        if self.world.target.is_symlink():
            assert [self.world.target.resolve()] == standing

    def all_come_to_an_end(self) -> None:
        if not self.world.callers:
            return
        late = self.world.start("n1")
        for caller in self.world.callers:
            caller.loses = caller.stale = False
        for _ in range(2000):
            living = [caller for caller in self.world.callers if not caller.ended]
            for caller in living:
                self.world.move(caller, 40)
            if not living:
                break
        assert all(caller.ended for caller in self.world.callers), "somebody waits for ever"
        self.it_holds()
        assert late.result is not None, late.problem


SETTINGS = hypothesis.settings(
    max_examples=scaled(40, 4000),
    stateful_step_count=50,
    deadline=None,
    database=None,
    derandomize=not FULL,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


class Clearing(Protocol):
    """Some use what they get for as long as they live; others build anew by force; and one gc after another comes.

    It begins with an environment that stands and that TARGET does not lead to: a gc that is to keep none may take it.
    """

    @initialize(first=st.sampled_from(HOSTS), second=st.sampled_from(HOSTS))
    def begin(self, first: str, second: str) -> None:
        self.world.move(self.world.start(first), 20_000)
        self.without_target()
        self.uses(first, force=False)
        self.clears(second, keep=0)

    @rule()
    def without_target(self) -> None:
        self.world.target.unlink(missing_ok=True)

    @rule(number=st.integers(0, 2 * CALLERS - 1), steps=st.integers(5, 120))
    def run_any(self, number: int, steps: int) -> None:
        self.world.move(self.caller(number), steps)

    @precondition(lambda self: len(self.world.callers) < 2 * CALLERS)
    @rule(host=st.sampled_from(HOSTS), force=st.booleans())
    def uses(self, host: str, force: bool) -> None:
        self.world.start(host, lambda: self.world.provision(force=force, uses=True), holds=True)

    @precondition(lambda self: len(self.world.callers) < 2 * CALLERS)
    @rule(host=st.sampled_from(HOSTS), keep=st.integers(0, 1))
    def clears(self, host: str, keep: int) -> None:
        wish = garbage.Wish(keep=keep)

        def clear() -> None:
            with contextlib.suppress(UsageProblem):  # nothing was made as yet
                garbage.collect(self.world.target, wish)

        self.world.start(host, clear)

    def it_holds(self) -> None:
        """What stands, and nobody takes away, is whole; and so is what somebody uses, whatever becomes of its slot."""
        slots = list(self.base.glob("shared/.python_env.d/v1/*"))
        records = {str(slot): slot / "READY" for slot in slots if (slot / "READY").exists()}
        doomed = {str(slot) for slot in slots if (slot / "pins" / "DOOMED").exists()}
        assert self.stood.keys() <= records.keys() | doomed, "a record is gone that nobody doomed"
        for slot, path in records.items():
            data = path.read_bytes()
            assert self.stood.setdefault(slot, data) == data, "a record changed"
            if slot not in doomed:
                assert not oracle.lacks(Path(slot) / "att" / json.loads(data)["attempt"], self.world.source)
        for caller in self.world.callers:
            if caller.problem is not None:
                assert caller.faulty, caller.problem
                assert isinstance(caller.problem, MultihostError), caller.problem
            if caller.holds and caller.alive and caller.result is not None:
                lacks = [
                    text
                    for text in oracle.lacks(caller.result.path, self.world.source)
                    if "manifest is not" not in text
                ]
                assert not lacks, "it is taken away under somebody who uses it"


TestClearing = Clearing.TestCase
TestClearing.settings = hypothesis.settings(SETTINGS, max_examples=scaled(20, 1000))
TestProtocol = Protocol.TestCase
TestProtocol.settings = SETTINGS
