"""What the fixtures `drift_check` and `smoke_check` give to a test."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pytest_multihost_env.check.contract import satisfied, unpinned
from pytest_multihost_env.check.drift import compare
from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.outcome import DEFAULT, Findings, Policy
from pytest_multihost_env.check.requirements import parse, read
from pytest_multihost_env.check.smoke import smoke
from pytest_multihost_env.check.values import Answers, request, understood
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Completed
from pytest_multihost_env.table import render

_NAME = re.compile(r"\w+([.-]+\w+)*")

Run = Callable[[Mapping[str, Any]], Mapping[str, Completed]]
"""Has every host of the job answer one request (`check.values.command`); every host must be in what it returns."""


class DriftCheck:
    """Asserts that hosts have the same environment, or the one that is written down.

    Args:
        run: Asks the hosts.
        policy: What counts as a difference.
        root: What the names of files are relative to; the current directory when None.
    """

    def __init__(self, run: Run, *, policy: Policy = DEFAULT, root: Path | None = None) -> None:
        self._run = run
        self._policy = policy
        self._root = root

    def assert_same(self, *packages: str) -> None:
        """Fail when hosts differ in these packages, or in any distribution when none is named.

        Named ones are imported too, so that what an import gives and what it maps are compared as well as metadata.

        Args:
            packages: Names of distributions or of modules.

        Raises:
            UsageProblem: There is nothing to compare, or a name is none.
        """
        __tracebackhide__ = True
        for name in packages:
            if not _NAME.fullmatch(name):
                raise UsageProblem(
                    f"{name!r} is not a package's name",
                    hint="name a distribution or a module; versions are for assert_satisfies",
                )
        answers = _ask(self._run, request(packages))
        _settle("drift", compare(answers, packages=packages or None, policy=self._policy))

    def assert_satisfies(self, *requirements: str) -> None:
        """Fail when a host does not have what the requirements ask for, or imports something else.

        Args:
            requirements: As in a requirements file (PEP 508), with or without a marker.

        Raises:
            UsageProblem: One cannot be read, or nothing was checked.
        """
        __tracebackhide__ = True
        if not requirements:
            _nothing()
        wants = [parse(text, "assert_satisfies") for text in requirements]
        answers = _ask(self._run, request([w.requirement.name for w in wants]))
        _settle("requirements", satisfied(answers, wants, policy=self._policy, imported=True))

    def assert_matches(self, *files: str | Path) -> None:
        """Fail when a host does not have what the files ask for.  Metadata only: nothing is imported.

        Args:
            files: Requirements files (`.txt`, `.in`) or `pyproject.toml`, of which `project.dependencies` counts.
                A conda `environment.yml` is not supported yet.

        Raises:
            UsageProblem: A file cannot be read or is of another kind, or nothing was checked.
        """
        __tracebackhide__ = True
        wants = [want for name in files for want in read((self._root or Path.cwd()) / name)]
        if not wants:
            _nothing()
        for sentence in unpinned(wants):
            warnings.warn(sentence, UserWarning, stacklevel=2)
        answers = _ask(self._run, request([w.requirement.name for w in wants], layers=["declared"]))
        _settle("requirements", satisfied(answers, wants, policy=self._policy))


class SmokeCheck:
    """Asserts that hosts can import modules."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def assert_imports(self, *modules: str) -> None:
        """Fail unless every host answered and reports every module as imported.

        Raises:
            UsageProblem: No module is named, a name is none, or there is no host.
        """
        __tracebackhide__ = True
        if not modules:
            _nothing()
        for name in modules:
            if not all(part.isidentifier() for part in name.split(".")):
                raise UsageProblem(f"{name!r} is not a module's name", hint="name it as in an import")
        answers = _ask(self._run, request(imports=modules))
        _settle("imports", smoke(answers, modules))


def _nothing() -> NoReturn:
    raise UsageProblem("nothing was named to check, so nothing was checked", hint="name what is to be checked")


def _ask(run: Run, wanted: Mapping[str, Any]) -> Answers:
    return {host: understood(completed) for host, completed in run(wanted).items()}


def explain(what: str, findings: Findings) -> str:
    """Return the text of a failure: the table, a sentence for each difference, what else is known, the remedy."""
    count = len(findings.differences)
    parts = [
        f"{what}: {count} {'thing is' if count == 1 else 'things are'} wrong over {fold(findings.hosts)}",
        render(findings.table),
        "\n".join(findings.sentences),
        "\n".join(f"note: {note}" for note in findings.notes),
        "\n".join(f"remedy: {line}" for line in findings.remedy.splitlines()),
    ]
    return "\n\n".join(part for part in parts if part)


def _settle(what: str, findings: Findings) -> None:
    __tracebackhide__ = True
    if not findings.passed:
        import pytest  # a check outside a test does not need it

        pytest.fail(explain(what, findings), pytrace=False)
