"""Is there a launcher that can start ranks on these hosts?"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_multihost_env.check.doctor.case import Case
from pytest_multihost_env.check.doctor.finding import ERROR, OK, Finding, finding
from pytest_multihost_env.errors import UsageProblem

_QUESTION = "the launcher of the ranks"


def check(case: Case) -> Iterator[Finding]:
    """Say which launcher there is, or why none is."""
    try:
        name = case.launcher()
    except UsageProblem as problem:
        answers = dict.fromkeys(case.hosts, (ERROR, "none"))
        yield finding("launcher", _QUESTION, answers, problem.what, problem.hint or "")
    else:
        yield finding("launcher", _QUESTION, dict.fromkeys(case.hosts, (OK, name)))
