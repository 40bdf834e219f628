"""Laws of placement: exactly the ranks and hosts that were asked for, and never more than a host's slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env.errors import PlacementImpossible
from pytest_multihost_env.model import Allocation, Host, Placement, Shape
from pytest_multihost_env.placement import place

SLOTS = st.lists(st.integers(0, 9), min_size=1, max_size=7)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    kind = draw(st.sampled_from(["fill", "hosts", "per_host", "both"]))
    per_host = draw(st.integers(1, 5))
    hosts = draw(st.integers(1, 5))
    if kind == "fill":
        return Shape(draw(st.integers(1, 30)))
    if kind == "hosts":
        return Shape(draw(st.integers(hosts, 30)), hosts=hosts)
    return Shape(hosts * per_host, hosts if kind == "both" else None, per_host)


def job(slots: list[int]) -> Allocation:
    return Allocation(tuple(Host(f"n{index}", count) for index, count in enumerate(slots)), "test")


def placed(shape: Shape, slots: list[int]) -> Placement | None:
    try:
        return place(shape, job(slots))
    except PlacementImpossible:
        return None


@given(shapes(), SLOTS)
def test_a_placement_is_exactly_what_was_asked_for(shape: Shape, slots: list[int]) -> None:
    placement = placed(shape, slots)
    if placement is None:
        return
    counts = dict(placement.counts)
    assert [one.rank for one in placement.places] == list(range(shape.ranks))
    assert all(count <= slots[int(host[1:])] for host, count in counts.items())
    assert shape.hosts in (None, len(counts))
    assert shape.per_host is None or set(counts.values()) == {shape.per_host}
    order = [one.host for one in placement.places]
    assert order == sorted(order, key=lambda host: int(host[1:])), "neighbours, in the order of the hosts"
    for host in counts:
        assert [one.local_rank for one in placement.places if one.host == host] == list(range(counts[host]))


@given(shapes(), SLOTS)
def test_it_is_refused_only_when_it_is_impossible(shape: Shape, slots: list[int]) -> None:
    if shape.per_host is not None:
        possible = sum(count >= shape.per_host for count in slots) * shape.per_host >= shape.ranks
    elif shape.hosts is not None:
        widest = sorted((count for count in slots if count), reverse=True)[: shape.hosts]
        possible = len(widest) == shape.hosts and sum(widest) >= shape.ranks
    else:
        possible = sum(slots) >= shape.ranks
    assert (placed(shape, slots) is not None) == possible


@given(st.integers(1, 30), st.integers(1, 6), SLOTS)
def test_ranks_are_spread_as_evenly_as_the_slots_allow(extra: int, hosts: int, slots: list[int]) -> None:
    placement = placed(Shape(hosts + extra, hosts=hosts), slots)
    if placement is None:
        return
    counts = dict(placement.counts)
    for host, count in counts.items():
        if count < slots[int(host[1:])]:
            assert max(counts.values()) - count <= 1, "a host with a free slot has at most one rank less than another"
