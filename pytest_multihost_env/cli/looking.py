"""`hosts`, `env`, `plan`: what is known and what would be done; nothing is changed."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.state import as_json, common, load, settings_options
from pytest_multihost_env.errors import UsageProblem

if TYPE_CHECKING:
    from pytest_multihost_env.model import Allocation, Completed, Place

JOB = ("hosts", "hostfile", "launcher", "launcher-args")
RULES = (
    "rank-binding",
    "dotenv",
    "secrets",
    "secret-files",
    "test-secrets",
    "env",
    "pass",
    "block",
    "rank-scoped",
    "local-caches",
    "lib-first",
)
_TRIVIAL = "import platform, sys; print(platform.node(), platform.python_version())"
_REACH_LIMIT = 30.0


@click.command()
@settings_options(*JOB)
@click.option("--reach", is_flag=True, help="Run a trivial command on each host and say which ones answered.")
@as_json
@common
def hosts(*, reach: bool, as_json: bool, **given: Any) -> int:
    """List the hosts of the job, their slots, and who named them.

    With --reach the exit code is 4 when a host gave no answer.
    """
    from pytest_multihost_env.asking import on_every_host
    from pytest_multihost_env.plan import make
    from pytest_multihost_env.report import text

    plan = make(load(given))
    allocation = plan.allocation
    answers: dict[str, Completed] = {}
    if reach:
        answers = on_every_host(plan, (str(plan.facts.python), "-c", _TRIVIAL), "", timeout=_REACH_LIMIT)
    reached = {name: done.code == 0 and done.error is None for name, done in answers.items()}
    if as_json:
        output.json(_hosts_record(allocation, answers, reached))
    elif reach:
        output.result(_reach_text(allocation, answers, reached))
    else:
        output.result(text.hosts(allocation, output.look(), plan.facts.cwd))
    return 0 if all(reached.values()) else 4


def _hosts_record(allocation: Allocation, answers: dict[str, Completed], reached: dict[str, bool]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for host in allocation.hosts:
        row: dict[str, Any] = {"name": host.name, "slots": host.slots, "where": host.where}
        if host.name in answers:
            row |= {"reached": reached[host.name], "answer": _answer(answers[host.name])}
        rows.append(row)
    return {"source": allocation.source, "slots": allocation.slots, "hosts": rows}


def _reach_text(allocation: Allocation, answers: dict[str, Completed], reached: dict[str, bool]) -> str:
    from pytest_multihost_env.table import Cell, Table, render

    rows = tuple(
        (host.name, str(host.slots), Cell(_answer(answers[host.name]), odd=not reached[host.name], mark="NO ANSWER: "))
        for host in allocation.hosts
    )
    count = sum(reached.values())
    caption = f"{count} of {len(rows)} hosts answered; named by: {allocation.source}"
    return render(Table(("host", "slots", "answer"), rows, caption), output.look())


def _answer(done: Completed) -> str:
    if done.error is not None:
        return done.error
    if done.code == 0:
        name, _, version = done.stdout.strip().rpartition(" ")
        return f"{name}, Python {version}"
    said = (done.stderr or done.stdout).strip().splitlines()
    return f"its Python ended with code {done.code}" + (f": {said[-1]}" if said else "")


@click.command()
@click.option("--rank", type=click.IntRange(min=0), metavar="N", help="The rank to ask about; default 0.")
@click.option("--host", metavar="NAME", help="A host to ask about; default: the one that holds the rank.")
@click.option("--explain", is_flag=True, help="Also list what was blocked, and the rule that decided on each name.")
@settings_options("hosts", "hostfile", "venv", "target", *RULES)
@as_json
@common
def env(*, rank: int | None, host: str | None, explain: bool, as_json: bool, **given: Any) -> int:
    """List the variables that a rank receives, and why; values of secrets are shown as ***."""
    from pytest_multihost_env import environ, telling
    from pytest_multihost_env.plan import foreseen
    from pytest_multihost_env.report import text
    from pytest_multihost_env.table import Table, render

    plan = foreseen(load(given))
    size = max(plan.settings.ranks or plan.allocation.slots, (rank or 0) + 1)
    spot = _spot(plan.allocation, rank, host, plan.registry.host_suffixes)
    for line in telling.notices(plan):
        output.notice(line)
    rows = plan.redact.inside(environ.explain(plan.rank_env(spot, size)))
    named = {row[0] for row in rows}
    unspoken = sorted(name for name in plan.facts.environ if name not in named)
    if as_json:
        keys = ("name", "status", "value", "rule", "origin")
        output.json(
            {
                "rank": spot.rank,
                "host": spot.host,
                "variables": [dict(zip(keys, r, strict=True)) for r in rows],
                "not_passed": unspoken,
            }
        )
    elif explain:
        output.result(text.explain(rows, output.look()))
        if unspoken:
            names = textwrap.fill(", ".join(unspoken), 98, initial_indent="  ", subsequent_indent="  ")
            output.result(f"no rule passes these of this shell; --env NAME would:\n{names}")
    else:
        received = tuple((name, value) for name, status, value, _, _ in rows if status in ("SET", "PASSED"))
        caption = f"{len(received)} variables for rank {spot.rank} on {spot.host}; --explain says why"
        output.result(render(Table(("name", "value"), received, caption), output.look()))
    return 0


def _spot(allocation: Allocation, rank: int | None, host: str | None, suffixes: Sequence[str]) -> Place:
    """Return where a rank of a test on all slots runs; with `host`, the place on that host.

    Raises:
        UsageProblem: There is no such rank or host.
    """
    from pytest_multihost_env.model import Shape
    from pytest_multihost_env.names import same_host
    from pytest_multihost_env.placement import place

    places = place(Shape(allocation.slots), allocation).places
    on_host = [spot for spot in places if host is None or same_host(spot.host, host, suffixes)]
    if not on_host:
        raise UsageProblem(
            f"{host} is no host of this job",
            where="--host",
            expected=", ".join(allocation.names[:16]),
            hint="name one of these, or give the job's hosts with --hosts",
        )
    if rank is None:
        return on_host[0]
    if host is not None:
        return dataclasses.replace(on_host[0], rank=rank)
    if rank >= len(places):
        raise UsageProblem(
            f"there is no rank {rank}: the hosts of this job have {len(places)} slots",
            where="--rank",
            expected=f"0 to {len(places) - 1}",
            hint="ask about one of these, or give more slots with --hosts",
        )
    return places[rank]


@click.command()
@settings_options("venv", "target", *JOB, "timeout", "check")
@as_json
@common
def plan(*, as_json: bool, **given: Any) -> int:
    """Say what a run would do: environment, hosts, launcher, command, and who decided on each.  Nothing is done."""
    from pytest_multihost_env import telling
    from pytest_multihost_env.plan import foreseen
    from pytest_multihost_env.report import text

    rows = telling.rows(foreseen(load(given)))
    if as_json:
        output.json([dict(zip(("stage", "value", "decided_by"), row, strict=True)) for row in rows])
    else:
        output.result(text.plan(rows, output.look()))
    return 0
