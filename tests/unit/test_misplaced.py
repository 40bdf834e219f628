"""Ranks that are not where they were to be."""

from __future__ import annotations

import pytest

from pytest_multihost_env.errors import Misplaced
from pytest_multihost_env.launch import misplaced
from pytest_multihost_env.model import Place, Placement

PLACEMENT = Placement((Place(0, "n1", 0), Place(1, "n1", 1), Place(2, "n2.site", 0)))


@pytest.mark.parametrize(
    "found", [("n1", "n1", "n2"), ("N1.site", "N1.site", "n2.site"), ("vm", "vm", "vm"), ("x", "x", "y")]
)
def test_names_that_are_right_or_cannot_be_compared_pass(found: tuple[str, ...]) -> None:
    misplaced.refuse(PLACEMENT, dict(enumerate(found)))


def test_an_address_may_be_that_of_a_host_that_has_a_name_too() -> None:
    twice = Placement((Place(0, "n1", 0), Place(1, "10.0.0.1", 0)))
    misplaced.refuse(twice, {0: "n1", 1: "n1"})


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (("n1", "n2", "n2"), "rank 1 was to run on n1 and runs on n2"),
        (("n2", "n2", "n1"), "rank 0 was to run on n1 and runs on n2"),
        (("n1", "n1", "n1.site"), "rank 2 was to run on n2.site and runs on n1.site"),
        (("x", "y", "y"), "rank 1 was to run on n1 and runs on y"),
    ],
)
def test_a_rank_elsewhere_is_named(found: tuple[str, ...], said: str) -> None:
    with pytest.raises(Misplaced) as caught:
        misplaced.refuse(PLACEMENT, dict(enumerate(found)))
    assert caught.value.what == said
    assert caught.value.expected == "2 on n1, 1 on n2.site, in this order"
