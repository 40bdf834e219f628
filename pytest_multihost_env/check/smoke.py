"""Whether every host imports every module.  Pure: answers in, findings out."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_multihost_env.check.drift import Comparison
from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.outcome import DEFAULT, MISSING, NOT_RUN, Findings, Row
from pytest_multihost_env.check.values import Answers
from pytest_multihost_env.errors import UsageProblem


def smoke(answers: Answers, modules: Sequence[str]) -> Findings:
    """Say which host cannot import which module.

    Raises:
        UsageProblem: There is no host or no module to try: that is never a pass.
    """
    if not answers:
        raise UsageProblem("no host was checked", hint="name the hosts of the job (--multihost-hosts)")
    if not modules:
        raise UsageProblem("no module was checked", hint="name at least one module to import")
    comparison = Comparison(answers, DEFAULT)
    comparison.silence()
    for module in dict.fromkeys(modules):
        _imports(comparison, module)
    return comparison.report(brief=False)


def _imports(comparison: Comparison, module: str) -> None:
    values: dict[str, str | None] = {}
    failures: dict[tuple[str, str], list[str]] = {}
    for host, snapshot in comparison.snapshots.items():
        result = snapshot.modules.get(module)
        if result is None:
            values[host] = "not run"
            failures.setdefault((NOT_RUN, "did not try to import it"), []).append(host)
        elif result.error is not None:
            values[host] = result.error
            failures.setdefault((MISSING, f"cannot import it: {result.error}"), []).append(host)
            lines = [line for line in result.output.splitlines() if line.strip()]
            comparison.notes.extend(f"{host}: while importing {module}: {line}" for line in lines[-3:])
        else:
            values[host] = "ok"
    comparison.rows.append(Row(module, "imported", values))
    for (kind, text), hosts in failures.items():
        comparison.add(kind, module, "imported", hosts, f"{module}: {fold(hosts)} {text}")
