"""Does every host answer, and with the same Python?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping

from pytest_multihost_env.check.doctor.case import Case
from pytest_multihost_env.check.doctor.finding import ERROR, OK, Finding, finding
from pytest_multihost_env.model import Completed

_PROGRAM = "import platform; print(platform.python_version())"


def check(case: Case) -> Iterator[Finding]:
    """Run a trivial program everywhere."""
    answers = case.run((str(case.python), "-c", _PROGRAM))
    good = {host: done.stdout.strip() for host, done in answers.items() if done.error is None and done.code == 0}
    yield reachable({host: _why(done) for host, done in answers.items() if host not in good}, case.hosts)
    if good:
        usual, _ = Counter(good.values()).most_common(1)[0]
        yield finding(
            "python",
            "its Python",
            {host: (OK if version == usual else ERROR, version) for host, version in good.items()},
            f"{{hosts}} runs another Python than the others, which have {usual}",
            f"see that {case.python} is the same there",
        )


def reachable(silent: Mapping[str, str], hosts: tuple[str, ...]) -> Finding:
    """Return which hosts answer; `silent` says of the others why they do not."""
    answers = {host: (ERROR, "no") if host in silent else (OK, "yes") for host in hosts}
    said = "; ".join(f"{host} {_first(why)}" for host, why in silent.items())
    remedy = "bring {hosts} back, or take it out of the job's hosts (--multihost-hosts)"
    found = finding("reachable", "the host answers", answers, said, remedy)
    return dataclasses.replace(found, unreachable=bool(silent))


def _first(why: str) -> str:
    line = why.strip().splitlines()[0] if why.strip() else "gave no reason"
    return line if line.startswith("gave") else f"cannot be asked: {line}"


def _why(done: Completed) -> str:
    if done.error is not None:
        return done.error
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"its Python ended with code {done.code}" + (f": {lines[-1]}" if lines else "")
