"""Which hosts a session goes on with when one is lost."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_multihost_env.errors import LaunchFailed, PlacementImpossible
from pytest_multihost_env.gang.reconcile import ABANDONED
from pytest_multihost_env.model import Allocation, Host, RankRecord, Shape
from pytest_multihost_env.plugin.roster import Roster

JOB = Allocation(tuple(Host(name, 1) for name in ("n1", "n2", "n3")), "test")


def record(rank: int, lost: str | None = None) -> RankRecord:
    return RankRecord(rank=rank, host=f"n{rank + 1}", lost=lost)


def test_only_hosts_whose_ranks_vanished_are_asked_and_only_the_unfit_are_left_out() -> None:
    asked: list[set[str]] = []

    def unfit(names: Iterable[str]) -> dict[str, str]:
        asked.append(set(names))
        return {"n3": "no answer"} if "n3" in asked[-1] else {}

    roster = Roster(JOB, unfit)
    roster.served(roster.place(Shape(3)))
    assert roster.settle() == {}
    roster.heard([record(0), record(1, ABANDONED), record(2, "silent")])
    assert roster.settle() == {"n3": "no answer"}
    roster.heard([record(0, ABANDONED), record(1, ABANDONED)])
    assert roster.settle() == {}
    assert asked == [{"n3"}, {"n1", "n2"}]
    assert roster.place(Shape(2)).hosts == ("n1", "n2")
    with pytest.raises(LaunchFailed, match="lost during this session: n3"):
        roster.place(Shape(3))
    with pytest.raises(PlacementImpossible):
        roster.place(Shape(4))


def test_a_host_that_never_served_is_not_lost() -> None:
    roster = Roster(JOB, lambda _names: {})
    assert roster.take_out({"n3": "refused"}) == {}
    assert roster.place(Shape(3)).size == 3
