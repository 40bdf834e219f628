"""What is checked on all hosts before the first test (`--multihost-check`)."""

from __future__ import annotations

import dataclasses

from pytest_multihost_env.check.drift import compare
from pytest_multihost_env.check.fixtures import Run, explain
from pytest_multihost_env.check.outcome import DEFAULT, Findings, Policy
from pytest_multihost_env.check.smoke import smoke
from pytest_multihost_env.check.values import request, understood
from pytest_multihost_env.errors import UsageProblem

LEVELS = ("off", "smoke", "drift", "strict")
_NEEDED = ("pytest",)
STRICTEST = dataclasses.replace(DEFAULT, facts=DEFAULT.facts + DEFAULT.noted, noted=())


def failure(level: str, run: Run) -> str:
    """Return what is wrong with the hosts, or "".

    Args:
        level: `off`: nothing is asked.  `smoke`: every host answers and imports pytest.  `drift`: besides, all
            distributions and the platform are the same.  `strict`: besides, the kernel is.
        run: Asks the hosts.

    Raises:
        UsageProblem: There is no such level, or no host.
    """
    return "\n\n".join(explain(what, found) for what, found in findings(level, run) if not found.passed)


def findings(level: str, run: Run) -> list[tuple[str, Findings]]:
    """Return what the checks of `level` found, each under its name (`imports`, `drift`); good or bad.

    Raises:
        UsageProblem: As in `failure`.
    """
    if level not in LEVELS:
        raise UsageProblem(f"{level!r} is no level of checks", expected=", ".join(LEVELS), hint="choose one of these")
    if level == "off":
        return []
    found = [("imports", _smoke(run))]
    if level in ("drift", "strict"):
        found.append(("drift", _drift(run, STRICTEST if level == "strict" else DEFAULT)))
    return found


def _smoke(run: Run) -> Findings:
    answers = {host: understood(done) for host, done in run(request(imports=_NEEDED)).items()}
    return smoke(answers, _NEEDED)


def _drift(run: Run, policy: Policy) -> Findings:
    answers = {host: understood(done) for host, done in run(request()).items()}
    return compare(answers, policy=policy)
