"""What can be said about a job before it runs: checks that each answer a few questions for every host.

A check is a function from a `Case` to findings, in a file of its own, and a line in `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pytest_multihost_env.check.doctor import hosts, launcher, target
from pytest_multihost_env.check.doctor.case import Case
from pytest_multihost_env.check.doctor.finding import ERROR, Finding, Report

Check = Callable[[Case], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (target.check, launcher.check, hosts.check)
"""Checks that ask the hosts come after the launcher, without which nobody can be asked."""


def examine(case: Case) -> Report:
    """Return what all checks find."""
    findings: list[Finding] = []
    for check in CHECKS:
        findings += check(case)
        if check is launcher.check and findings[-1].verdict == ERROR:
            break
    return Report(case.hosts, tuple(findings), summary(findings))


def summary(findings: Sequence[Finding]) -> str:
    """Return one sentence about all findings."""
    counts = [(sum(one.verdict == verdict for one in findings), verdict) for verdict in (ERROR, "warning")]
    said = ", ".join(f"{count} {verdict}{'s' if count > 1 else ''}" for count, verdict in counts if count)
    return f"found: {said}" if said else "nothing is wrong with what was looked at"
