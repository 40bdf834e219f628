"""What happened in one round of a storm, and the judgement on it.  The actors assert nothing; this does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence


@dataclasses.dataclass
class Member:
    """One caller.

    Attributes:
        host: Where it ran.
        began: When it was started (seconds, one clock for all).
        ended: When it ended; None: it did not.
        code: Its exit code; a signal is negative.
        killed: The storm killed it.
        path: The environment that it was given.
        digest: Of that environment's manifest.
        reused: It did not build.
        lacks: What was wrong with the environment when it was handed out.
        said: Its standard error.
    """

    host: str
    began: float
    ended: float | None = None
    code: int | None = None
    killed: bool = False
    path: str = ""
    digest: str = ""
    reused: bool = True
    lacks: Sequence[str] = ()
    said: str = ""


@dataclasses.dataclass(frozen=True)
class Sight:
    """What an observer told: `ready`, `target` or `fault`."""

    host: str
    kind: str
    text: str
    at: float


@dataclasses.dataclass
class History:
    """One round.

    Attributes:
        seed: Of the whole storm.
        number: Of the round.
        members: All callers.
        sights: What the observers told.
        looks: How often they looked, in all.
        kills: When which kind of blow fell ("build", "publish", "any", "host", "stop").
        begun: How many builds began.
        attempts: Names of the attempts that were left.
    """

    seed: int
    number: int
    members: list[Member] = dataclasses.field(default_factory=list)
    sights: list[Sight] = dataclasses.field(default_factory=list)
    looks: int = 0
    kills: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    begun: int = 0
    attempts: Sequence[str] = ()

    @property
    def done(self) -> float:
        """Seconds from the last blow (or the start) until the last caller had its environment."""
        first = min(member.began for member in self.members)
        ends = [member.ended for member in self.members if member.ended is not None and not member.killed]
        return max(ends, default=first) - max((at for at, _ in self.kills), default=first)


def faults(history: History, *, late: float = math.inf, clean: bool = False, builds: float = math.inf) -> list[str]:
    """Return what must not be, each with the round that shows it; nothing, when all went as it must.

    Args:
        history: One round.
        late: Seconds after a record was first seen within which every caller that was there has to have answered.
        clean: Nothing but the winner's attempt may be left (who is killed after publishing leaves the rest to gc).
        builds: So many may begin.
    """
    found = [*_of_members(history), *_of_sights(history), *_of_time(history, late)]
    if history.begun > builds:
        found.append(f"built {history.begun} times")
    if not history.looks:
        found.append("no observer looked")
    if clean and len(history.attempts) > 1:
        found.append(f"left behind: {', '.join(history.attempts)}")
    return [f"seed {history.seed}, round {history.number}: {text}" for text in found]


def _of_members(history: History) -> Iterable[str]:
    answers = set()
    for member in history.members:
        where = f"{member.host}: "
        if member.killed:
            continue
        if member.code is None:
            yield f"{where}stuck; it said {member.said[-300:]!r}"
        elif member.code != 0:
            yield f"{where}failed with {member.code}: {member.said[-700:]}"
        else:
            answers.add((member.path, member.digest))
            if member.lacks:
                yield f"{where}half-built returned: {'; '.join(member.lacks[:3])}"
    if len(answers) > 1:
        yield f"different environments returned: {sorted(answers)}"


def _of_sights(history: History) -> Iterable[str]:
    for sight in history.sights:
        if sight.kind == "fault":
            yield f"{sight.host}: half-built seen: {sight.text}"
    records = {sight.text for sight in history.sights if sight.kind == "ready"}
    if len(records) > 1:
        yield f"the record changed, or there are several: {sorted(records)}"


def _of_time(history: History, late: float) -> Iterable[str]:
    stood = min((sight.at for sight in history.sights if sight.kind == "ready"), default=None)
    if stood is None:
        return
    for member in history.members:
        if member.ended is not None and not member.killed and member.ended - max(stood, member.began) > late:
            yield f"{member.host}: waited {member.ended - stood:.1f} s for what stood"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of `values` do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
