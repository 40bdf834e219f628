"""Whatever arrives, and whatever does not, a pass needs everything from everybody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env.gang.reconcile import PHASES, Verdict, reconcile
from pytest_multihost_env.model import RankRecord

GOOD = tuple({"when": when, "outcome": "passed", "$report_type": "TestReport"} for when in PHASES)

reports = st.fixed_dictionaries(
    {
        "when": st.sampled_from([*PHASES, "collect", ""]),
        "outcome": st.sampled_from(["passed", "failed", "skipped", ""]),
    },
    optional={
        "wasxfail": st.just("known"),
        "longrepr": st.sampled_from(["[XPASS(strict)] known", "boom", None]),
        "$report_type": st.sampled_from(["TestReport", "SubtestReport"]),
    },
)
records = st.builds(
    RankRecord,
    rank=st.integers(-1, 5),
    host=st.sampled_from(["n1", "n2"]),
    reports=st.one_of(st.just(GOOD), st.lists(reports, max_size=4).map(tuple)),
    done=st.booleans(),
    exit=st.sampled_from([None, None, 0, 1, -11]),
    lost=st.sampled_from([None, None, "the channel broke"]),
)


def good(rank: int, **changes: object) -> RankRecord:
    fields = {"rank": rank, "host": f"n{rank}", "reports": GOOD, "done": True} | changes
    return RankRecord(**fields)  # type: ignore[arg-type]


def passed(verdict: Verdict) -> bool:
    return [phase.when for phase in verdict.phases] == list(PHASES) and all(
        phase.status == "passed" for phase in verdict.phases
    )


def complete(size: int, given_records: list[RankRecord]) -> bool:
    """The definition of a pass, written down a second time and in another way."""
    if sorted(record.rank for record in given_records) != list(range(size)):
        return False
    return all(
        [(report.get("when"), report.get("outcome"), "wasxfail" in report) for report in record.reports
         if report.get("$report_type", "TestReport") == "TestReport"]
        == [(when, "passed", False) for when in PHASES]
        and record.done
        and record.exit in (None, 0)
        and record.lost is None
        for record in given_records
    )  # fmt: skip


class TestPass:
    @given(st.integers(1, 6))
    def test_everything_from_everybody_is_a_pass(self, size: int) -> None:
        assert passed(reconcile(size, [good(rank) for rank in range(size)]))

    @given(st.integers(1, 5), st.lists(records, max_size=6))
    def test_only_that_is_a_pass(self, size: int, found: list[RankRecord]) -> None:
        assert passed(reconcile(size, found)) == complete(size, found)

    @given(st.integers(1, 6), st.data())
    def test_a_missing_rank_is_blamed(self, size: int, data: st.DataObject) -> None:
        absent = data.draw(st.integers(0, size - 1))
        verdict = reconcile(size, [good(rank) for rank in range(size) if rank != absent])
        assert not verdict.good
        assert any(blame.ranks == (absent,) for phase in verdict.phases for blame in phase.blames)

    @given(st.integers(1, 6), st.integers(0, 2), st.data())
    def test_a_report_that_never_came_is_blamed_on_its_rank(self, size: int, kept: int, data: st.DataObject) -> None:
        short = data.draw(st.integers(0, size - 1))
        found = [good(rank, reports=GOOD[:kept] if rank == short else GOOD) for rank in range(size)]
        verdict = reconcile(size, found)
        assert not verdict.good
        assert {blame.ranks for phase in verdict.phases for blame in phase.blames} == {(short,)}

    @given(st.integers(1, 5), st.lists(records, max_size=6), st.text(max_size=20))
    def test_it_is_total_and_what_is_not_good_has_somebody_to_blame(
        self, size: int, found: list[RankRecord], trouble: str
    ) -> None:
        verdict = reconcile(size, found, trouble=trouble)
        assert [phase.when for phase in verdict.phases] in (["setup", "teardown"], list(PHASES))
        for phase in verdict.phases:
            assert phase.status != "missing"
            if phase.status == "failed":
                assert phase.blames


class TestDeath:
    @given(st.integers(1, 5), st.sampled_from([-9, -11, 1, 7]), st.data())
    def test_a_rank_that_dies_after_its_last_report_fails_the_test(
        self, size: int, code: int, data: st.DataObject
    ) -> None:
        dead = data.draw(st.integers(0, size - 1))
        verdict = reconcile(size, [good(rank, exit=code if rank == dead else None) for rank in range(size)])
        assert not verdict.good
        assert any(dead in blame.ranks for phase in verdict.phases for blame in phase.blames)

    @given(st.integers(2, 5), st.data())
    def test_a_doubled_rank_is_never_a_pass(self, size: int, data: st.DataObject) -> None:
        twice = data.draw(st.integers(0, size - 1))
        assert not reconcile(size, [*(good(rank) for rank in range(size)), good(twice)]).good
