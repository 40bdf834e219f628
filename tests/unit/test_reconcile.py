"""The documented rules for ranks that disagree, one by one."""

from __future__ import annotations

import pytest

from pytest_multihost_env.gang.reconcile import ABANDONED, PHASES, ranks_text, reconcile
from pytest_multihost_env.model import RankRecord

STRICT = {"outcome": "failed", "longrepr": "[XPASS(strict)] known"}
XFAILED = {"outcome": "skipped", "wasxfail": "known"}
XPASSED = {"outcome": "passed", "wasxfail": "known"}
PASSED = {"outcome": "passed"}
SKIPPED = {"outcome": "skipped"}
FAILED = {"outcome": "failed", "longrepr": "boom"}


def rank(number: int, call: dict[str, str], **changes: object) -> RankRecord:
    reports = tuple({"when": when, **(call if when == "call" else PASSED)} for when in PHASES)
    fields: dict[str, object] = {"rank": number, "host": "n1", "reports": reports, "done": True}
    return RankRecord(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("calls", "status"),
    [
        ([PASSED, PASSED], "passed"),
        ([SKIPPED, SKIPPED], "skipped"),
        ([SKIPPED, PASSED], "failed"),
        ([XFAILED, PASSED], "xfailed"),
        ([XFAILED, XPASSED], "xfailed"),
        ([XFAILED, STRICT], "xfailed"),
        ([STRICT, STRICT], "failed"),
        ([XPASSED, XPASSED], "xpassed"),
        ([XFAILED, FAILED], "failed"),
        ([XFAILED, SKIPPED], "failed"),
    ],
)
def test_what_a_call_comes_to(calls: list[dict[str, str]], status: str) -> None:
    verdict = reconcile(len(calls), [rank(number, call) for number, call in enumerate(calls)])
    assert [phase.status for phase in verdict.phases] == ["passed", status, "passed"]


def test_ranks_that_fail_alike_are_folded_and_the_others_are_not_blamed() -> None:
    other = {"outcome": "failed", "longrepr": "bang"}
    verdict = reconcile(5, [rank(n, c) for n, c in enumerate([PASSED, FAILED, other, FAILED, PASSED])])
    assert [(blame.ranks, blame.text) for blame in verdict.phases[1].blames] == [((1, 3), "boom"), ((2,), "bang")]


def test_the_rank_that_died_comes_before_those_that_the_launcher_ended() -> None:
    begun = ({"when": "setup", "outcome": "passed"},)
    verdict = reconcile(
        3,
        [
            rank(0, PASSED, reports=begun, done=False, exit=-9, lost=ABANDONED),
            rank(1, PASSED, reports=begun, done=False, exit=7),
            rank(2, PASSED, reports=begun, done=False, exit=-9, lost=ABANDONED),
        ],
    )
    blames = verdict.phases[1].blames
    assert [blame.ranks for blame in blames] == [(1,), (0, 2)]
    assert "exited with code 7 during call" in blames[0].text


def test_one_death_is_one_failure_and_no_error_in_teardown_besides() -> None:
    begun = ({"when": "setup", "outcome": "passed"},)
    verdict = reconcile(2, [rank(0, PASSED), rank(1, PASSED, reports=begun, done=False, exit=-11)])
    assert [(phase.when, phase.status) for phase in verdict.phases] == [
        ("setup", "passed"),
        ("call", "failed"),
        ("teardown", "passed"),
    ]


def test_setup_that_fails_on_one_rank_has_no_call() -> None:
    failed = ({"when": "setup", **FAILED}, {"when": "teardown", **PASSED})
    verdict = reconcile(2, [rank(0, PASSED), rank(1, PASSED, reports=failed)])
    assert [(phase.when, phase.status) for phase in verdict.phases] == [("setup", "failed"), ("teardown", "passed")]
    assert verdict.phases[0].blames[0].ranks == (1,)


@pytest.mark.parametrize(
    ("ranks", "text"), [([2], "rank 2"), ([0, 1, 2, 3, 7], "ranks 0-3,7"), ([5, 1], "ranks 1,5"), ([], "ranks ")]
)
def test_ranks_as_text(ranks: list[int], text: str) -> None:
    assert ranks_text(ranks) == text
