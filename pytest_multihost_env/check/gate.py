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
    if level not in LEVELS:
        raise UsageProblem(f"{level!r} is no level of checks", expected=", ".join(LEVELS), hint="choose one of these")
    if level == "off":
        return ""
    texts = [_told("imports", _smoke(run))]
    if level in ("drift", "strict"):
        texts.append(_told("drift", _drift(run, STRICTEST if level == "strict" else DEFAULT)))
    return "\n\n".join(filter(None, texts))


def _smoke(run: Run) -> Findings:
    answers = {host: understood(done) for host, done in run(request(imports=_NEEDED)).items()}
    return smoke(answers, _NEEDED)


def _drift(run: Run, policy: Policy) -> Findings:
    answers = {host: understood(done) for host, done in run(request()).items()}
    return compare(answers, policy=policy)


def _told(what: str, findings: Findings) -> str:
    return "" if findings.passed else explain(what, findings)
