"""Placement: which rank runs where, and what the marker may say."""

from __future__ import annotations

import pytest

from pytest_multihost_env.errors import PlacementImpossible, UsageProblem
from pytest_multihost_env.model import Allocation, Host, Place, Shape
from pytest_multihost_env.placement import SIGNATURE, MarkerRequest, place, shape_from_marker


def job(*slots: int) -> Allocation:
    return Allocation(tuple(Host(f"n{number}", count) for number, count in enumerate(slots, 1)), "test")


@pytest.mark.parametrize(
    ("shape", "slots", "counts"),
    [
        (Shape(1), (16,), [("n1", 1)]),
        (Shape(3), (2, 2), [("n1", 2), ("n2", 1)]),
        (Shape(4), (0, 3, 3), [("n2", 3), ("n3", 1)]),
        (Shape(4, hosts=2), (8, 8, 8), [("n1", 2), ("n2", 2)]),
        (Shape(5, hosts=2), (8, 8), [("n1", 3), ("n2", 2)]),
        (Shape(6, hosts=2), (2, 8), [("n1", 2), ("n2", 4)]),
        (Shape(6, hosts=2), (2, 8, 8), [("n2", 3), ("n3", 3)]),
        (Shape(7, hosts=3), (1, 2, 8), [("n1", 1), ("n2", 2), ("n3", 4)]),
        (Shape(2, hosts=1), (1, 2), [("n2", 2)]),
        (Shape(2, hosts=1), (4, 8), [("n1", 2)]),
        (Shape(4, per_host=2), (1, 2, 8), [("n2", 2), ("n3", 2)]),
        (Shape(4, per_host=1), (4, 4, 4, 4), [("n1", 1), ("n2", 1), ("n3", 1), ("n4", 1)]),
        (Shape(4, hosts=2, per_host=2), (4, 4), [("n1", 2), ("n2", 2)]),
    ],
)
def test_ranks_are_placed(shape: Shape, slots: tuple[int, ...], counts: list[tuple[str, int]]) -> None:
    assert list(place(shape, job(*slots)).counts) == counts


def test_each_rank_knows_its_place_on_its_host() -> None:
    assert place(Shape(3, hosts=2), job(2, 2)).places == (Place(0, "n1", 0), Place(1, "n1", 1), Place(2, "n2", 0))


@pytest.mark.parametrize(
    ("shape", "slots", "words"),
    [
        (Shape(5), (2, 2), "5 ranks asked for; this job has 2 hosts with 4 slots (n1:2, n2:2, from test)"),
        (Shape(2, hosts=2), (16,), "2 ranks on exactly 2 hosts asked for; this job has 1 host with 16 slots"),
        (Shape(6, hosts=2), (2, 2, 2), "6 ranks on exactly 2 hosts asked for; this job has 3 hosts with 6 slots"),
        (Shape(2, hosts=2), (4, 0), "2 ranks on exactly 2 hosts"),
        (Shape(4, per_host=2), (2, 1, 1), "2 hosts of 2 slots asked for (ranks=4, per_host=2); 1 can hold that many"),
        (Shape(100), (1,) * 20, "n8:1 and 12 more"),
    ],
)
def test_what_cannot_be_placed_is_said_in_numbers(shape: Shape, slots: tuple[int, ...], words: str) -> None:
    with pytest.raises(PlacementImpossible) as caught:
        place(shape, job(*slots))
    assert words in caught.value.what
    assert "--multihost-hosts" in (caught.value.hint or "")


@pytest.mark.parametrize("shape", [Shape(0), Shape(1, hosts=2), Shape(3, per_host=2), Shape(4, hosts=1, per_host=2)])
def test_a_shape_that_contradicts_itself_is_not_placed(shape: Shape) -> None:
    with pytest.raises(PlacementImpossible):
        place(shape, job(16, 16))


@pytest.mark.parametrize(
    ("args", "kwargs", "request_"),
    [
        ((4,), {}, MarkerRequest((Shape(4),))),
        ((), {"ranks": [1, 2]}, MarkerRequest((Shape(1), Shape(2)))),
        ((), {"ranks": (2, 4), "hosts": 2}, MarkerRequest((Shape(2, 2), Shape(4, 2)))),
        ((), {"hosts": 2}, MarkerRequest((Shape(2, 2),))),
        ((), {"hosts": 2, "per_host": 3}, MarkerRequest((Shape(6, 2, 3),))),
        ((4, 2, 2, 60, True), {}, MarkerRequest((Shape(4, 2, 2),), 60.0, fresh=True)),
        ((2,), {"timeout": 0.5, "fresh": None}, MarkerRequest((Shape(2),), 0.5)),
        ((2,), {"env": {"B": "", "A": "x y"}}, MarkerRequest((Shape(2, env=(("A", "x y"), ("B", ""))),))),
        ((2,), {"env": {"A": None}}, MarkerRequest((Shape(2, env=(("A", None),)),))),
    ],
)
def test_a_marker(args: tuple[object, ...], kwargs: dict[str, object], request_: MarkerRequest) -> None:
    assert shape_from_marker(args, kwargs) == request_


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "ranks is missing"),
        ((), {"per_host": 2}, "ranks is missing"),
        ((0,), {}, "ranks=0"),
        ((True,), {}, "ranks=True"),
        ((2.0,), {}, "ranks=2.0"),
        (("2",), {}, "ranks='2'"),
        (([],), {}, "an empty list"),
        (([1, 0],), {}, "ranks=[1, 0]"),
        (([2, 2],), {}, "twice"),
        ((2,), {"rank": 2}, "no argument 'rank'"),
        ((2,), {"ranks": 2}, "ranks is given twice"),
        ((1, 1, 1, 1, False, None, [], 8), {}, "8 arguments"),
        ((1,), {"secrets": "HF_TOKEN"}, "secrets is not a list of names"),
        ((2,), {"hosts": 3}, "hosts=3 is more than ranks=2"),
        (([4, 2],), {"hosts": 3}, "hosts=3 is more than ranks=2"),
        ((3,), {"per_host": 2}, "ranks=3 is not a multiple of per_host=2"),
        ((4,), {"hosts": 2, "per_host": 4}, "makes 8 ranks, not ranks=4"),
        ((4,), {"hosts": 2, "per_host": 1}, "makes 2 ranks, not ranks=4"),
        ((2,), {"hosts": "2"}, "hosts='2'"),
        ((2,), {"timeout": 0}, "timeout=0"),
        ((2,), {"timeout": float("nan")}, "timeout=nan"),
        ((2,), {"timeout": 10**400}, "is not a positive number of seconds"),
        ((2,), {"timeout": "60"}, "timeout='60'"),
        ((2,), {"fresh": 1}, "fresh=1"),
        ((2,), {"env": ["A=1"]}, "env is of type list"),
        ((2,), {"env": {"A": 1}}, "env['A'] is of type int"),
        ((2,), {"env": {"A=B": ""}}, "'A=B', which is not a variable name"),
        ((2,), {"env": {1: ""}}, "1, which is not a variable name"),
        ((2,), {"env": {"A": "\0"}}, "contains a NUL"),
    ],
)
def test_a_wrong_marker_says_what_and_shows_the_signature(
    args: tuple[object, ...], kwargs: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        shape_from_marker(args, kwargs)
    assert words in caught.value.what
    assert caught.value.what.startswith("@pytest.mark.multihost: ")
    assert caught.value.expected == SIGNATURE
