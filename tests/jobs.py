"""A user's directory on the storage of a testbed, and pytest run in it from the first host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests import suites
from tests.testbed.bed import Testbed


@dataclasses.dataclass
class Job:
    """A directory on shared storage with a suite, and the Python that pytest is started with."""

    bed: Testbed
    runner: Path
    source: Path
    directory: Path
    user: str | None

    def pytest(self, *args: str, env: Mapping[str, str] | None = None) -> suites.Outcome:
        report = self.directory / "junit.xml"
        report.unlink(missing_ok=True)
        done = self.bed.run(
            "n1",
            [self.runner / "bin" / "pytest", f"--multihost-venv={self.source}", f"--junitxml={report}", *args],
            user=self.user,
            cwd=self.directory,
            env=dict(env or {}),
            timeout=200,
        )
        return suites.Outcome(done.returncode, done.stdout + done.stderr, *suites.read(report))


@contextlib.contextmanager
def job(bed: Testbed, runner: Path, source: Path, user: str | None, text: str, name: str = "jöb #2") -> Iterator[Job]:
    directory = bed.shared / f"{user or 'root'} {name}"
    suites.write(directory, text)
    owner = bed.accounts[user or "root"]
    for path in (directory, *directory.rglob("*")):
        os.chown(path, owner.uid, owner.gid)
    try:
        yield Job(bed, runner, source, directory, user)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
