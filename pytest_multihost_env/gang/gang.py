"""One warm gang, seen from the controller: start its ranks, run test after test, say what each rank did."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pytest_multihost_env.errors import LaunchFailed
from pytest_multihost_env.gang.arrived import prints
from pytest_multihost_env.gang.reconcile import ABANDONED
from pytest_multihost_env.gang.stacks import explain
from pytest_multihost_env.model import Place, Placement, RankEnv, RankRecord

Message = dict[str, object]


class Ranks(Protocol):
    """The channel to started ranks (`launch.job.Job` is one)."""

    placement: Placement

    def send(self, rank: int, message: Mapping[str, object]) -> None:
        """Send one message to a rank's supervisor."""
        ...

    def poll(self, timeout: float) -> list[tuple[int, Message]]:
        """Return the messages that arrive within `timeout` seconds."""
        ...

    def close(self, grace: float = 0.0) -> str:
        """End all ranks and whatever started them; return the tail of what that printed."""
        ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds that each step may take.

    Attributes:
        test: One test on all of its ranks.
        start: From the launcher's start until all ranks have collected.
        grace: What the other ranks get after one has failed.
        mourning: The same after one has died; nothing can come from it any more.
        dump: Waiting for stacks.
        finish: Tearing the session down and finalising MPI.
    """

    test: float = 300.0
    start: float = 60.0
    grace: float = 3.0
    mourning: float = 1.0
    dump: float = 3.0
    finish: float = 30.0


@dataclasses.dataclass(frozen=True)
class Script:
    """What each rank of a gang runs, as a function of its place.

    Attributes:
        argv: The rank program; `{channel}` and `{stacks}` become file descriptors.
        env: The exact environment of a place.
        keep: Names, and beginnings that end in `_`, of variables that the launcher sets and the rank needs.
        cwd: Working directory, on every host.
        session: What the rank's pytest session is told (see `gang.rank`).
        mpi: The launcher promises an MPI world of the gang's size.
        stream: Relay output as it comes instead of keeping a tail.
    """

    argv: tuple[str, ...]
    env: Callable[[Place], RankEnv]
    keep: tuple[str, ...]
    cwd: str
    session: Mapping[str, object]
    mpi: bool
    stream: bool = False


@dataclasses.dataclass
class _State:
    """What is known of one rank; `reports` and what follows are of the current test."""

    place: Place
    exit: int | None = None
    lost: str | None = None
    bye: bool = False
    reports: list[Message] = dataclasses.field(default_factory=list)
    done: bool = False
    stacks: str = ""
    output: str = ""

    @property
    def over(self) -> bool:
        """Nothing more will come from it; of an abandoned rank, its last words may."""
        return self.exit is not None or (self.lost is not None and self.lost != ABANDONED)

    @property
    def failed(self) -> bool:
        return any(r.get("outcome") == "failed" for r in self.reports) or self.over or self.lost is not None

    @property
    def _was_ended(self) -> bool:
        """Its supervisor killed it when the launcher was gone; any other end was its own."""
        return self.lost == ABANDONED and self.exit == -signal.SIGKILL

    def record(self) -> RankRecord:
        return RankRecord(
            rank=self.place.rank,
            host=self.place.host,
            reports=tuple(self.reports),
            done=self.done,
            exit=self.exit,
            lost=self.lost if self.exit is None or self._was_ended else None,
            output=self.output,
        )


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one test: a record for each rank, and if it was cut short, why and who was still busy."""

    records: tuple[RankRecord, ...]
    trouble: str = ""
    stacks: str = ""
    late: tuple[int, ...] = ()


class Gang:
    """Ranks that stay warm between tests.

    Args:
        ranks: Started supervisors.
        script: What they run.
        limits: How long things may take.
        show: Called with `(place, text)` for output that is relayed live.

    Attributes:
        started_by: The commands that started its ranks, for people.
        joining: The ranks that are on the way into their MPI world.
    """

    def __init__(
        self, ranks: Ranks, script: Script, limits: Limits, show: Callable[[Place, str], None] | None = None
    ) -> None:
        self.ranks = ranks
        self.limits = limits
        self.collected: dict[int, list[str]] = {}
        self.collect_errors: dict[int, list[Message]] = {}
        self.worlds: dict[int, Message] = {}
        self.differs: dict[int, dict[str, str | None]] = {}
        self.started_by: tuple[str, ...] = ()
        self.joining: set[int] = set()
        self.ran = 0
        self.usable = True
        self._script = script
        self._show = show
        self._states = {place.rank: _State(place) for place in ranks.placement.places}
        self._sequence = 0
        self._finishing = False
        self._ready: set[int] = set()

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self._states)

    @property
    def broken(self) -> str | None:
        """Why the gang cannot run another test, or None; looks at what has arrived meanwhile."""
        self._take(0)
        for state in self._states.values():
            if state.over:
                return f"rank {state.place.rank}@{state.place.host} ended between tests ({_end(state)})"
        return None

    def start(self) -> None:
        """Start every rank's pytest session and wait until all have collected.

        Raises:
            LaunchFailed: A rank could not start, died, or took too long; says which, where and why.
        """
        for state in self._states.values():
            self.ranks.send(
                state.place.rank,
                {
                    "t": "start",
                    "argv": list(self._script.argv),
                    **self._script.env(state.place).order,
                    "keep": list(self._script.keep),
                    "cwd": self._script.cwd,
                    "stream": self._script.stream,
                },
            )
            place = state.place
            who = {"rank": place.rank, "size": self.size, "host": place.host, "local_rank": place.local_rank}
            who |= {"planned": prints(self._script.env(place).changes)}
            session = {**self._script.session, "mpi": self._script.mpi, **who}
            self.ranks.send(state.place.rank, {"t": "tell", "m": {"do": "session", **session}})
        end = time.monotonic() + self.limits.start
        while len(self._ready) < self.size:
            self._take(max(0.0, min(0.2, end - time.monotonic())))
            over = [state for state in self._states.values() if state.over]
            if over:
                self._take(0.3)
                raise self._not_started(over, "ended before the first test")
            if time.monotonic() > end:
                late = [state for state in self._states.values() if state.place.rank not in self._ready]
                self._dump(late)
                raise self._not_started(late, f"did not become ready within {self.limits.start:.0f} s")

    def _not_started(self, states: Sequence[_State], what: str) -> LaunchFailed:
        names = ", ".join(f"rank {s.place.rank}@{s.place.host}" for s in states)
        details = "\n".join(
            f"rank {s.place.rank}@{s.place.host}: {_end(s)}\n{s.output.strip()}\n{s.stacks.strip()}".rstrip()
            for s in states[:4]
        )
        return LaunchFailed(f"{names} {what}\n{details}")

    def run(self, nodeid: str, following: str | None, timeout: float) -> Run:
        """Run one test on all ranks and return what each of them said.

        Args:
            nodeid: The test.
            following: The next test of this gang; its fixtures stay alive.  None: tear everything down.
            timeout: Seconds until the ranks' stacks are taken and the ranks are ended.
        """
        self._sequence += 1
        self.ran += 1
        for state in self._states.values():
            state.reports, state.done, state.stacks, state.output = [], False, "", ""
            message = {"do": "run", "seq": self._sequence, "id": nodeid, "next": following}
            self.ranks.send(state.place.rank, {"t": "tell", "m": message})
        trouble = self._wait_for_all(timeout)
        stacks = ""
        waiting = [state for state in self._states.values() if not state.done and not state.over]
        if trouble:
            self._dump(waiting)
            stacks = explain({s.place.rank: s.stacks for s in waiting})
        records = tuple(state.record() for state in self._states.values())
        return Run(records, trouble, stacks, tuple(state.place.rank for state in waiting))

    def _wait_for_all(self, timeout: float) -> str:
        """Wait until each rank is done or gone.  Return why waiting was given up, or ""."""
        end = time.monotonic() + timeout
        reason = f"the time limit of {timeout:g} s was reached"
        failed = dead = False
        while True:
            states = self._states.values()
            if all(state.done or state.over for state in states):
                return ""
            if not dead and any(state.over for state in states):
                dead = failed = True
                end, reason = self._sooner(end, reason, self.limits.mourning, "died")
            elif not failed and any(state.failed for state in states):
                failed = True
                end, reason = self._sooner(end, reason, self.limits.grace, "failed")
            left = end - time.monotonic()
            if left <= 0:
                return reason
            self._take(left)

    @staticmethod
    def _sooner(end: float, reason: str, seconds: float, what: str) -> tuple[float, str]:
        limit = time.monotonic() + seconds
        if limit >= end:
            return end, reason
        return limit, f"it was still waiting {seconds:g} s after another rank had {what}"

    def _dump(self, states: Sequence[_State]) -> None:
        for state in states:
            state.stacks = ""
            self.ranks.send(state.place.rank, {"t": "dump"})
        end = time.monotonic() + self.limits.dump
        while any(not s.stacks and not s.over for s in states) and time.monotonic() < end:
            self._take(end - time.monotonic())

    def _take(self, timeout: float) -> None:
        for rank, message in self.ranks.poll(timeout):
            self._note(self._states[rank], message)

    def _note(self, state: _State, message: Message) -> None:
        kind = message.get("t")
        if kind == "child":
            inner = message.get("m")
            if isinstance(inner, dict):
                self._note_child(state, inner)
        elif kind == "output":
            text = str(message.get("data", ""))
            if self._show is not None:
                self._show(state.place, text)
            state.output = (state.output + text)[-(64 << 10) :]
        elif kind == "stacks":
            state.stacks = str(message.get("text") or "") or "(no answer: the process takes no signals)"
            state.output += str(message.get("output") or "")
        elif kind == "exit":
            code = message.get("code")
            state.exit = code if isinstance(code, int) else 255
            state.output += str(message.get("output") or "")
        elif kind == "abandoned":
            state.lost = ABANDONED
        elif kind in {"failed", "lost"} and state.lost is None:
            state.lost = str(message.get("why"))

    def _note_child(self, state: _State, message: Message) -> None:
        kind = message.get("ev")
        rank = state.place.rank
        if kind == "collect-error":
            self.collect_errors.setdefault(rank, []).append(message)
        elif kind == "joining":
            self.joining.add(rank)
        elif kind == "ready":
            self.joining.discard(rank)
            ids = message.get("ids")
            self.collected[rank] = [str(nodeid) for nodeid in ids] if isinstance(ids, list) else []
            world = message.get("world")
            self.worlds[rank] = world if isinstance(world, dict) else {}
            differs = message.get("differs")
            self.differs[rank] = differs if isinstance(differs, dict) else {}
            self._ready.add(rank)
        elif kind == "internal-error":
            state.output += f"INTERNALERROR in the rank's pytest session\n{message.get('text')}\n"
        elif kind == "bye":
            state.bye = message.get("code") == 0
            if not self._finishing:
                state.lost = f"its pytest session ended by itself with code {message.get('code')} (pytest.exit?)"
        elif message.get("seq") != self._sequence:
            return  # Late news of a test that is over must not count for this one.
        elif kind == "report":
            data = message.get("data")
            if isinstance(data, dict):
                state.reports.append(data)
        elif kind == "done":
            state.done = True

    def finish(self) -> list[str]:
        """End the gang in good order and return what went wrong: ranks that did not end with code 0."""
        self._finishing = True
        for state in self._states.values():
            if not state.over:
                self.ranks.send(state.place.rank, {"t": "tell", "m": {"do": "finish"}})
        end = time.monotonic() + self.limits.finish
        mourning = False
        while any(not state.over for state in self._states.values()) and time.monotonic() < end:
            if not mourning and any(state.over and state.exit != 0 for state in self._states.values()):
                # MPI_Finalize waits for every rank, also for one that will never come.
                mourning = True
                end = min(end, time.monotonic() + self.limits.mourning)
            self._take(end - time.monotonic())
        problems = []
        late = [state for state in self._states.values() if not state.over]
        if late:
            self._dump(late)
            stacks = explain({state.place.rank: state.stacks for state in late})
            names = ", ".join(f"rank {s.place.rank}@{s.place.host}" for s in late)
            problems.append(f"{names} did not end after the last test\n{stacks}")
        problems += [
            f"rank {s.place.rank}@{s.place.host} {_end(s)} after the last test\n{s.output.strip()}".strip()
            for s in self._states.values()
            if s.over and (s.exit != 0 or not s.bye)
        ]
        self.close()
        return problems

    def close(self, grace: float = 0.0) -> str:
        """End all ranks now and return what their launcher said; the gang is of no use afterwards."""
        self.usable = False
        return self.ranks.close(grace)


def _end(state: _State) -> str:
    if state.lost == ABANDONED:
        return state.lost
    if state.exit is not None:
        end = f"killed by signal {-state.exit}" if state.exit < 0 else f"exit code {state.exit}"
        return end if state.exit or state.bye else f"{end}, without having finished its session"
    return state.lost or "still starting"
