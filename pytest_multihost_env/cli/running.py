"""`run`: any program on the ranks of the job, in the environment and with the variables that tests get."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.checking import go_inside
from pytest_multihost_env.cli.looking import JOB, RULES
from pytest_multihost_env.cli.state import State, common, load, settings_options
from pytest_multihost_env.config.table import BY_NAME
from pytest_multihost_env.errors import LaunchFailed

if TYPE_CHECKING:
    from pytest_multihost_env.environ import Redactor
    from pytest_multihost_env.model import Place, Placement
    from pytest_multihost_env.plan import Plan


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("program", nargs=-1, required=True, metavar="-- CMD [ARG]...", type=click.UNPROCESSED)
@click.option(
    "-n",
    "ranks",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many ranks; default: one for each entry of --rank-binding, else one for each slot.",
)
@click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), metavar="S", help="End all ranks after S s.")
@click.option("--no-tags", is_flag=True, help="Do not put [rank@host] in front of each line.")
@click.option(
    "--dry-run", is_flag=True, help="Say where each rank would run, as a command to paste, too; start nothing."
)
@settings_options("venv", "target", *JOB, *RULES)
@common
def run(
    program: tuple[str, ...], *, ranks: int | None, time_limit: float | None, no_tags: bool, dry_run: bool, **given: Any
) -> int:
    """Run a program on ranks: placed, launched and given variables as a test's ranks are.

    The exit code is the program's own: 0 when all ranks ended with 0, else that of the first that did not (128 and
    the number when a signal ended it).  124 at the time limit, 127 when there is no such program, 4 when a host or rank
    was lost, 130 interrupted.
    What ranks write is shown a line at a time.
    """
    from pytest_multihost_env import telling
    from pytest_multihost_env.model import Shape
    from pytest_multihost_env.placement import place
    from pytest_multihost_env.plan import foreseen, make

    settings = load(given)
    if not dry_run:
        go_inside(settings)
    plan = foreseen(settings) if dry_run else make(settings)
    size = ranks or plan.rules.binding.size or plan.allocation.slots
    plan.refuse_unbound(size)
    placement = place(Shape(size), plan.allocation)
    orders = {spot: _order(plan, spot, size, program) for spot in placement.places}
    if dry_run:
        options = [*_own(time_limit, tags=not no_tags), *_given(plan, given)]
        output.result(_foreseen(plan, placement, [*options, "--", *program]))
        return 0
    for line in telling.notices(plan):
        output.notice(line)
    return _run(plan, placement, orders, time_limit, tags=not no_tags)


def _order(plan: Plan, spot: Place, size: int, program: tuple[str, ...]) -> Mapping[str, object]:
    from pytest_multihost_env import environ

    order = plan.rank_env(spot, size).order
    return {"argv": list(program), **order, "keep": list(environ.LAUNCHER_OWNED), "cwd": str(plan.facts.cwd)}


def _run(
    plan: Plan, placement: Placement, orders: Mapping[Place, Mapping[str, object]], limit: float | None, *, tags: bool
) -> int:
    from pytest_multihost_env import asking
    from pytest_multihost_env.gang.programs import MERCY, Programs

    shown = _Lines(plan.redact, tags=tags)
    try:
        job = plan.start(placement)
    except LaunchFailed as error:
        raise asking.why_not(plan, error) from None
    try:
        programs = Programs(job, shown.add)
        code = programs.run(orders.__getitem__, limit)
        why = programs.explain()
    finally:
        job.close(MERCY)
        shown.close()
    if why:
        output.notice(plan.redact(why))
    return code


def _own(limit: float | None, *, tags: bool) -> list[str]:
    config = click.get_current_context().ensure_object(State).config
    words = [f"--config={config.absolute()}"] if config is not None else []
    words += [f"--time-limit={limit:g}"] if limit is not None else []
    return words if tags else [*words, "--no-tags"]


def _given(plan: Plan, given: Mapping[str, Any]) -> list[str]:
    """Return the options that were given, but for those that placed the ranks; a secret by its name only."""
    from pytest_multihost_env.environ import hides

    words = []
    for setting in BY_NAME.values():
        value = given.get(setting.attribute)
        if value in (None, (), False) or setting.name in ("hosts", "hostfile", "launcher"):
            continue
        if value is True:
            words.append(f"--{setting.name}")
            continue
        for text in value if isinstance(value, tuple) else (value,):
            name, equals, content = text.partition("=") if setting.name == "env" else (text, "", "")
            hidden = bool(equals) and (name in plan.settings.declared or hides(name, content))
            words.append(f"--{setting.name}={name if hidden else text}")
    return words


def _foreseen(plan: Plan, placement: Placement, words: list[str]) -> str:
    """Return a table of ranks, and the command that would start them again, from any directory."""
    import shlex

    from pytest_multihost_env.environ import without_login
    from pytest_multihost_env.table import Table, render

    rows = tuple((str(spot.rank), spot.host, str(spot.local_rank)) for spot in placement.places)
    name = plan.program.launcher.name
    caption = f"{len(rows)} ranks with the launcher {name}, in {plan.facts.cwd}"
    table = render(Table(("rank", "host", "local rank"), rows, caption), output.look())
    hosts = ",".join(f"{host.name}:{host.slots}" for host in plan.allocation.hosts)
    command = ["multihost-env", "run", "-n", str(len(rows)), f"--hosts={hosts}", f"--launcher={name}", *words]
    # Before they are quoted: quoting cuts a secret that has quotes into pieces that nobody would know again.
    typed = shlex.join(plan.redact(without_login(word)) for word in command)
    return f"{plan.redact(table)}\n\ncd {shlex.quote(plan.redact(str(plan.facts.cwd)))} && {typed}"


class _Lines:
    """Shows what ranks write, a whole line at a time, so that lines of two ranks never mix and no secret is cut apart."""

    def __init__(self, redact: Redactor, *, tags: bool) -> None:
        self._redact = redact
        self._tags = tags
        self._begun: dict[Place, str] = {}

    def add(self, spot: Place, text: str) -> None:
        """Show the lines that `text` ends; keep the rest."""
        *lines, self._begun[spot] = (self._begun.get(spot, "") + text).split("\n")
        self._write(spot, lines)

    def close(self) -> None:
        """Show what has no end of line."""
        for spot, rest in self._begun.items():
            if rest:
                self._write(spot, [rest])
        self._begun = {}

    def _write(self, spot: Place, lines: list[str]) -> None:
        tag = f"[{spot.rank}@{spot.host}] " if self._tags else ""
        encoding = sys.stdout.encoding or "ascii"
        for line in lines:
            text = f"{tag}{self._redact(line)}\n"
            sys.stdout.write(codecs.decode(text.encode(encoding, "backslashreplace"), encoding))
        sys.stdout.flush()
