"""Runs a small suite with the real pytest, in a process of its own, and reads what JUnit has to say about it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

LIMIT = 100.0


@dataclasses.dataclass(frozen=True, repr=False)
class Outcome:
    """How a suite ended: exit code, what was printed, and each test's outcome by name."""

    code: int
    text: str
    tests: Mapping[str, str]
    messages: Mapping[str, str]

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.text}"


def write(directory: Path, text: str, name: str = "test_suite.py") -> Path:
    """Write one test module, and an ini file that makes `directory` a rootdir of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pytest.ini").touch()
    path = directory / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what pytest and this suite put there."""
    hidden = ("PYTEST_", "MULTIHOST_ENV_", "COV_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    if "PYTEST_CURRENT_TEST" in os.environ:
        # The guards know a process that was left behind by it.
        env["PYTEST_CURRENT_TEST"] = os.environ["PYTEST_CURRENT_TEST"]
    return env | dict(extra or {})


def run(python: Path, directory: Path, *args: str, env: Mapping[str, str] | None = None) -> Outcome:
    """Run pytest of `python` in `directory`."""
    report = directory / "junit.xml"
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *args]
    done = subprocess.run(
        command,
        cwd=directory,
        env=clean_environ(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
        text=True,
        errors="replace",
    )
    return Outcome(done.returncode, done.stdout, *read(report))


def read(report: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return outcome and message of each test by name; a name that JUnit has twice is an error."""
    outcomes: dict[str, str] = {}
    messages: dict[str, str] = {}
    if not report.exists():
        return outcomes, messages
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "")
        assert name not in outcomes or name == "", f"{name} has more than one testcase"
        found = [child for child in case if child.tag in {"failure", "error", "skipped"}]
        outcomes[name] = found[0].tag if found else "passed"
        messages[name] = "\n".join(f"{child.get('message')}\n{child.text or ''}" for child in found)
    return outcomes, messages
