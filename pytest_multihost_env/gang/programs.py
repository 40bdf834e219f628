"""Any program on every rank, seen from the controller: started, shown, waited for, and ended together."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping

from pytest_multihost_env.gang.gang import Message, Ranks
from pytest_multihost_env.gang.reconcile import ranks_text
from pytest_multihost_env.model import Place

GRACE = 3.0
"""Seconds that the other ranks get after one has failed."""
MERCY = 2.0
"""Seconds between TERM and KILL for a rank that is ended."""
TIME_LIMIT = 124
NOT_STARTED = 127
LOST = 4


@dataclasses.dataclass
class End:
    """How the program of one rank ended.

    Attributes:
        place: The rank.
        code: Its exit code; negative, the signal that ended it; None: it did not end by itself.
        lost: Why nothing more is known of it.
        refused: Why it could not be started.
    """

    place: Place
    code: int | None = None
    lost: str | None = None
    refused: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come from it."""
        return any(fact is not None for fact in (self.code, self.lost, self.refused))


class Programs:
    """The programs of one job.

    Args:
        ranks: Started supervisors.
        show: Called with a rank and text that its program wrote.
    """

    def __init__(self, ranks: Ranks, show: Callable[[Place, str], None]) -> None:
        self._ranks = ranks
        self._show = show
        self._ends = {place.rank: End(place) for place in ranks.placement.places}
        self.late = False
        self.first: End | None = None

    def run(self, order: Callable[[Place], Mapping[str, object]], limit: float | None) -> int:
        """Run the program of each rank to its end and return the exit code of all of them together.

        It is 0 when every rank ended with 0, else that of the first rank that did not (128 and the number of a signal,
        as in a shell); 124 at the time limit, 127 when it could not be started, 4 when a rank was lost.  The other
        ranks get `GRACE` seconds to end.

        Args:
            order: What the supervisor of a place is told, but for the message's kind.
            limit: Seconds until all are ended; None: as long as they like.
        """
        for end in self._ends.values():
            self._ranks.send(end.place.rank, {"t": "start", "stream": True, "literal": True, **order(end.place)})
        stop = None if limit is None else time.monotonic() + limit
        while not all(end.over for end in self._ends.values()):
            left = 1.0 if stop is None else stop - time.monotonic()
            if left <= 0:
                self.late = self.first is None
                break
            for rank, message in self._ranks.poll(min(left, 1.0)):
                self._note(self._ends[rank], message)
            if self.first is not None:
                grace = time.monotonic() + GRACE
                stop = grace if stop is None else min(stop, grace)
        if self.late:
            return TIME_LIMIT
        if self.first is None:
            return 0
        return code_of(self.first)

    def _note(self, end: End, message: Message) -> None:
        kind = message.get("t")
        if kind == "output":
            self._show(end.place, str(message["data"]))
        elif kind == "exit" and not end.over:
            end.code = int(str(message["code"]))
        elif kind == "failed" and not end.over:
            end.refused = str(message["why"])
        elif kind == "lost" and not end.over:
            end.lost = str(message["why"])
        elif kind == "abandoned" and not end.over:
            end.lost = "its launcher ended"
        if self.first is None and end.over and end.code != 0:
            self.first = end

    def explain(self) -> str:
        """Return why the exit code is not 0, or ""."""
        running = [end.place.rank for end in self._ends.values() if not end.over]
        if self.late:
            return f"the time limit was reached; {ranks_text(running)} had not ended"
        if self.first is None:
            return ""
        place = self.first.place
        said = f"rank {place.rank} on {place.host} {_how(self.first)}"
        others = [end.place.rank for end in self._ends.values() if end.over and end.code != 0 and end is not self.first]
        if others:
            said += f"; {ranks_text(others)} did not end well either"
        if running:
            said += f"; {ranks_text(running)} still ran {GRACE:g} s later and got SIGTERM"
        return said


def code_of(end: End) -> int:
    """Return the exit code that a shell would give to this end."""
    if end.refused is not None:
        return NOT_STARTED
    if end.code is None:
        return LOST
    return 128 - end.code if end.code < 0 else end.code


def _how(end: End) -> str:
    if end.refused is not None:
        return f"did not start: {end.refused}"
    if end.code is None:
        return f"was lost: {end.lost}"
    if end.code >= 0:
        return f"ended with code {end.code}"
    try:
        name = signal.Signals(-end.code).name
    except ValueError:
        name = f"signal {-end.code}"
    return f"was ended by {name}"
