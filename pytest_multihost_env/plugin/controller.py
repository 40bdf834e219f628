"""The controller's side of a session: marked tests stay ordinary items, and their phases come from the ranks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from pytest_multihost_env.errors import MultihostError, PlacementImpossible
from pytest_multihost_env.model import Shape
from pytest_multihost_env.plugin import session as sessions

if TYPE_CHECKING:
    from pytest_multihost_env.plugin.ranks import Ranks


class GangTest:
    """What a marked item needs beyond being an item.

    Attributes:
        shape: The ranks and hosts that it asks for.
        timeout: Seconds, or None: the setting's.
        fresh: It wants ranks of its own.
        following: The item that pytest runs next, or None.
        reports: What its ranks made of it, by phase.
    """

    __slots__ = ("following", "fresh", "reports", "shape", "timeout")

    def __init__(self, shape: Shape, timeout: float | None, *, fresh: bool) -> None:
        self.shape = shape
        self.timeout = timeout
        self.fresh = fresh
        self.following: pytest.Item | None = None
        self.reports: dict[str, pytest.TestReport] = {}


GANG: pytest.StashKey[GangTest] = pytest.StashKey()


class Controller:
    """Registered in every process that runs a session, unless it is a rank."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ranks: Ranks | None = None
        self._problems: list[str] = []

    @property
    def ranks(self) -> Ranks:
        """The gangs of this session; made when the first marked test runs."""
        if self._ranks is None:
            from pytest_multihost_env.plugin.ranks import Ranks

            self._ranks = Ranks(self._config)
        return self._ranks

    # Plan and checks ------------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Refuse what cannot be acted on before a test module is imported."""
        state = sessions.of(session.config)
        try:
            if not state.in_use:
                return
            state.plan.settle()
            redact = state.plan.redact
        except MultihostError as error:
            raise sessions.usage(error) from None
        if redact:
            from pytest_multihost_env.plugin.redaction import Redaction

            Redaction(redact).install(session.config)

    def pytest_report_header(self, config: pytest.Config) -> list[str]:
        """Say which environment this is and which hosts and launcher there are, when any of it was asked for."""
        state = sessions.of(config)
        if not state.in_use:
            return []
        from pytest_multihost_env import telling

        return [f"multihost: {line}" for line in telling.header(state.plan)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Check all hosts before the first test."""
        if session.config.option.collectonly or not session.items:
            return
        try:
            failure = sessions.of(session.config).check_hosts()
        except MultihostError as error:
            raise sessions.usage(error) from None
        if failure:
            pytest.exit(f"multihost: the hosts of this job are not fit to run tests\n{failure}", returncode=1)

    # Items ----------------------------------------------------------------------------------------------------------

    def adopt(self, items: list[pytest.Item]) -> None:
        """Turn marked items into ones whose phases happen on ranks."""
        state = sessions.of(self._config)
        everywhere = state.settings.ranks if state.in_use else None
        for item in items:
            marker = item.get_closest_marker("multihost")
            if marker is not None:
                self._adopt(item, marker)
            elif everywhere:
                self._take_over(item, GangTest(Shape(ranks=everywhere), None, fresh=False))

    def _adopt(self, item: pytest.Item, marker: pytest.Mark) -> None:
        from pytest_multihost_env.placement import shape_from_marker

        try:
            request = shape_from_marker(marker.args, marker.kwargs)
        except MultihostError as error:
            raise pytest.UsageError(f"{item.nodeid}: {error}") from None
        callspec = getattr(item, "callspec", None)
        ranks = callspec.params.get("multihost_ranks") if callspec else None
        shape = next((shape for shape in request.shapes if shape.ranks == ranks), request.shapes[0])
        state = sessions.of(self._config)
        if state.in_use and shape.env:
            state.plan.learn(shape)
        self._take_over(item, GangTest(shape, request.timeout, fresh=request.fresh))

    def _take_over(self, item: pytest.Item, test: GangTest) -> None:
        """Keep the item, its hooks and its reports; only what it does in each phase happens elsewhere."""
        item.stash[GANG] = test
        item.setup = functools.partial(self._setup, item, test)  # type: ignore[method-assign]
        item.runtest = lambda: None  # type: ignore[method-assign]
        item.teardown = lambda: None  # type: ignore[method-assign]

    def _setup(self, item: pytest.Item, test: GangTest) -> None:
        """Run the whole test on its ranks; pytest asks for the reports of the phases afterwards."""
        test.reports = {}
        reason = ""
        try:
            test.reports = self.ranks.run(item, test)
        except PlacementImpossible as error:
            reason = f"{error.what}. {error.hint or ''}"
        if reason and sessions.of(item.config).settings.strict:
            pytest.fail(f"{reason}\n(--multihost-strict makes this a failure)", pytrace=False)
        if reason:
            raise pytest.skip.Exception(reason, _use_item_location=True)
        setup = test.reports["setup"]
        if setup.outcome != "passed":
            raise _Elsewhere

    def pytest_runtest_logstart(self) -> None:
        """Show other hosts, from time to time, that this job lives and uses its environment."""
        for pin in self._config.stash.get(sessions.PINS, ()):
            pin.beat()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
        """Remember what comes next: it decides which fixtures stay alive on the ranks."""
        if (test := item.stash.get(GANG, None)) is not None:
            test.following = nextitem
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Answer with the ranks' report; what other plugins make of the empty phase here does not count."""
        report = yield
        test = item.stash.get(GANG, None)
        if test is None or not test.reports:
            return report
        return test.reports.get(call.when, report)

    # End ------------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End the gangs; ranks that did not end well make a session that does not."""
        if self._ranks is not None:
            self._problems += self._ranks.close()
        worker = getattr(session.config, "workeroutput", None)
        if worker is not None:
            worker["multihost_problems"] = self._problems
        if self._problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist had to say: it has no terminal, and its exit code is not looked at."""
        self._problems += getattr(node, "workeroutput", {}).get("multihost_problems", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what went wrong beside the tests."""
        if self._problems:
            terminalreporter.section("multihost problems", red=True)
            for problem in self._problems:
                terminalreporter.line(problem)

    def pytest_unconfigure(self) -> None:
        """Leave nothing running, also after an internal error or an interrupt."""
        if self._ranks is not None:
            self._ranks.kill()


class _Elsewhere(Exception):
    """Set-up did not pass on the ranks, so that there is no call."""
