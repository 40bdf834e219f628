"""`doctor`: what can be said about a job, and about a directory that its hosts share, before anything runs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.state import Named, as_json, common, load, settings_options
from pytest_multihost_env.errors import UsageProblem

if TYPE_CHECKING:
    from pytest_multihost_env.check.doctor.finding import Report
    from pytest_multihost_env.check.storage.rounds import Measured
    from pytest_multihost_env.plan import Plan

_LONG = 10.0


@click.command()
@click.option(
    "--fs",
    "directory",
    type=Named(path_type=Path, readable=False),  # whether it can be read is a finding
    metavar="DIR",
    help="Look at the file system of this directory from all hosts of the job.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0.1, 600),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Wait at most so long for what another host has made; an NFS client may need 70 s.",
)
@settings_options("target", "group", "owners", "hosts", "hostfile", "launcher", "launcher-args")
@as_json
@common
def doctor(*, directory: Path | None, patience: float, as_json: bool, **given: Any) -> int:
    """Say whether the hosts, the launcher and the target are fit, or with --fs whether a shared directory is.

    With --fs it tries on every host what an environment needs of DIR, and between the hosts how late one sees what
    another has made, and whose locks keep out whom.  Nothing is left behind in DIR.  The exit code is 1 when there is
    an error, and 4 when a host could not be asked.
    """
    from pytest_multihost_env import asking
    from pytest_multihost_env.check.doctor import examine
    from pytest_multihost_env.plan import make

    settings = load(given)
    if math.isnan(patience):
        raise UsageProblem("nan is no time", where="--patience", hint="write seconds, as in --patience 70")
    if directory is not None:
        directory = _usable(Path.cwd() / directory)
    plan = make(settings)
    if directory is None:
        report, measured = examine(asking.case(plan)), None
    else:
        report, measured = _look(plan, directory, patience)
    if as_json:
        output.json(_record(report, measured))
    else:
        output.result(_text(report))
    return report.code


def _usable(directory: Path) -> Path:
    """Return `directory` without `..` and the like; symlinks stay, since every host has its own.

    Raises:
        UsageProblem: It is none.
    """
    directory = Path(os.path.normpath(directory))
    if not directory.is_dir():
        what = "is not a directory" if os.path.lexists(directory) else "does not exist"
        raise UsageProblem(
            f"{directory} {what}",
            where="--fs",
            expected="a directory that all hosts of the job see",
            hint="name one that is there, such as the one in which the target is to be made",
        )
    return directory


def _look(plan: Plan, directory: Path, patience: float) -> tuple[Report, Measured]:
    from pytest_multihost_env import asking
    from pytest_multihost_env.check.doctor.target import trusted
    from pytest_multihost_env.check.storage.judge import judge
    from pytest_multihost_env.check.storage.rounds import FAR, measure

    if patience > _LONG and len(plan.allocation.hosts) > 1:
        output.notice(f"what another host has made is waited for up to {patience:g} s")
    with asking.talk(plan, (str(plan.facts.python), "-P", "-m", FAR, "{channel}")) as talk:
        measured = measure(talk, plan.allocation.names, directory, patience)
    return judge(measured, [trusted(measured.hosts, asking.distrusted(plan, directory))]), measured


def _text(report: Report) -> str:
    from pytest_multihost_env.report import text

    return text.examined(report, output.look())


def _record(report: Report, measured: Measured | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "verdict": report.verdict,
        "passed": report.code == 0,
        "summary": report.summary,
        "hosts": report.hosts,
        "findings": report.findings,
    }
    if measured is not None:
        record |= {"directory": measured.directory, "measured": measured}
    return record
