"""`check`: whether all hosts of the job have the same environment, and the one that is asked for."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.provisioning import ensured
from pytest_multihost_env.cli.state import PATH, State, as_json, common, load, settings_options
from pytest_multihost_env.errors import UsageProblem

if TYPE_CHECKING:
    from pytest_multihost_env.check.outcome import Findings
    from pytest_multihost_env.check.values import Answers
    from pytest_multihost_env.config import Settings
    from pytest_multihost_env.plan import Plan

_LEVELS = ("smoke", "drift", "strict")


@click.command()
@click.option("--require", multiple=True, metavar="SPEC", help="Each host has this, as in a requirements file.")
@click.option(
    "--manifest",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Each host has what this requirements file or pyproject.toml asks for.",
)
@click.option("--packages", multiple=True, metavar="NAME", help="All hosts have the same of this package.")
@click.option("--imports", multiple=True, metavar="MODULE", help="Each host can import this module.")
@click.option(
    "--level",
    type=click.Choice(_LEVELS),
    help="smoke: each host answers and imports pytest; drift: and all packages are equal; strict: and the kernel is.",
)
@settings_options("venv", "target", "hosts", "hostfile", "launcher", "launcher-args")
@as_json
@common
def check(
    *,
    require: tuple[str, ...],
    manifest: tuple[Path, ...],
    packages: tuple[str, ...],
    imports: tuple[str, ...],
    level: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Check all hosts of the job, in the environment made from --venv, else in this Python.

    Without anything to check it compares all packages of all hosts (--level drift).  NAMEs and MODULEs may be
    divided by commas.  The exit code is 1 when something is wrong, and 4 when a host could not be asked.
    """
    from pytest_multihost_env.plan import make
    from pytest_multihost_env.report.json import plain

    settings = load(given)
    go_inside(settings)
    plan = make(settings)
    wanted = _Wanted(require, manifest, _split(packages), _split(imports), level or _default(settings))
    named = require or manifest or packages or imports
    found = wanted.findings(plan, level=level is not None or not named)
    if as_json:
        output.json(plan.redact.inside(plain(_record(found))))
    else:
        output.result(plan.redact("\n\n".join(_text(what, findings) for what, findings in found)))
    return _code(found)


def _default(settings: Settings) -> str:
    return settings.check if settings.check in _LEVELS else "drift"


def _split(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for value in values for word in value.replace(",", " ").split())


def go_inside(settings: Settings) -> None:
    """Become this very command inside the environment: only its own files are there on every host."""
    if settings.venv is None:
        return
    from pytest_multihost_env import plan, probe
    from pytest_multihost_env.provision import actor, stay

    source, generation = probe.active(os.environ)
    if generation is not None and Path(source) == settings.venv and plan.runs_inside(generation):
        for pin in stay(generation.path, output.notice):
            click.get_current_context().call_on_close(pin.release)
        return
    generation = ensured(settings, user=actor.myself())
    os.environ.update(probe.announce(generation, settings.venv))
    plan.become(
        generation.path,
        ["-P", "-m", "pytest_multihost_env.cli", *click.get_current_context().ensure_object(State).words],
    )


class _Wanted:
    """What is to be checked."""

    def __init__(
        self,
        require: tuple[str, ...],
        manifest: tuple[Path, ...],
        packages: tuple[str, ...],
        imports: tuple[str, ...],
        level: str,
    ) -> None:
        from pytest_multihost_env.check import requirements

        # Everything is read before any host is asked.
        self._wants = [requirements.parse(text, "--require") for text in require]
        self._listed = [want for file in manifest for want in requirements.read(Path.cwd() / file)]
        if manifest and not self._listed:
            raise UsageProblem(
                "the files ask for nothing, so nothing would be checked",
                where=", ".join(map(str, manifest)),
                hint="name a file that lists requirements",
            )
        self._packages = packages
        self._imports = imports
        self._level = level

    def findings(self, plan: Plan, *, level: bool) -> list[tuple[str, Findings]]:
        """Ask all hosts and return what was found, by the kind of check."""
        from pytest_multihost_env.asking import snapshots
        from pytest_multihost_env.check.contract import satisfied
        from pytest_multihost_env.check.drift import compare
        from pytest_multihost_env.check.gate import findings
        from pytest_multihost_env.check.smoke import smoke
        from pytest_multihost_env.check.values import request

        found: list[tuple[str, Findings]] = []
        if level:
            found += findings(self._level, functools.partial(snapshots, plan))
        if self._imports:
            found.append(("imports", smoke(_answers(plan, request(imports=self._imports)), self._imports)))
        if self._packages:
            found.append(("drift", compare(_answers(plan, request(self._packages)), packages=self._packages)))
        if self._wants:
            names = [want.requirement.name for want in self._wants]
            found.append(("requirements", satisfied(_answers(plan, request(names)), self._wants, imported=True)))
        if self._listed:
            names = [want.requirement.name for want in self._listed]
            answers = _answers(plan, request(names, layers=["declared"]))
            found.append(("requirements", satisfied(answers, self._listed)))
        return found


def _answers(plan: Plan, wanted: Mapping[str, Any]) -> Answers:
    from pytest_multihost_env.asking import snapshots
    from pytest_multihost_env.check.values import understood

    return {host: understood(done) for host, done in snapshots(plan, wanted).items()}


def _text(what: str, findings: Findings) -> str:
    from pytest_multihost_env.report import text

    tell = {"imports": text.smoke, "drift": text.drift, "requirements": text.requirements}[what]
    return tell(findings, output.look())


def _record(found: list[tuple[str, Findings]]) -> dict[str, Any]:
    return {
        "passed": all(findings.passed for _, findings in found),
        "hosts": found[0][1].hosts,
        "checks": [
            {
                "check": what,
                "passed": findings.passed,
                "differences": findings.differences,
                "notes": findings.notes,
                "rows": findings.rows,
            }
            for what, findings in found
        ],
    }


def _code(found: list[tuple[str, Findings]]) -> int:
    from pytest_multihost_env.check.outcome import UNREACHABLE

    if any(difference.kind == UNREACHABLE for _, findings in found for difference in findings.differences):
        return 4
    return 0 if all(findings.passed for _, findings in found) else 1
