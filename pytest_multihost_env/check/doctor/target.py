"""Can an environment be made at the target?  One look, from this machine; `doctor --fs` looks from all hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_multihost_env import filesystem
from pytest_multihost_env.check.doctor.case import Case
from pytest_multihost_env.check.doctor.finding import ERROR, OK, WARNING, Finding, finding
from pytest_multihost_env.errors import MultihostError

ROOM = 2 << 30
"""Bytes that an environment with NumPy, SciPy and an MPI has without effort; one with torch has three times as much."""


def check(case: Case) -> Iterator[Finding]:
    """Look at the nearest directory above the target that is there."""
    where = case.target.parent
    while not where.exists():
        where = where.parent
    verdict, text, sentence, remedy = _look(where)
    yield finding("target", f"the target, {case.target}", dict.fromkeys(case.hosts, (verdict, text)), sentence, remedy)
    yield trusted(case.hosts, case.distrusted(where))


def trusted(hosts: tuple[str, ...], problem: MultihostError | None) -> Finding:
    """Return whether strangers could change what is made there; `problem` says so, as seen from this machine."""
    answers = dict.fromkeys(hosts, (OK, "yes") if problem is None else (ERROR, "no"))
    what, remedy = (problem.what, problem.hint) if problem is not None else ("", "")
    return finding("trusted", "nobody else can write to it", answers, what, remedy or "")


def _look(where: Path) -> tuple[str, str, str, str]:
    mount = filesystem.mount_of(where)
    if not os.access(where, os.W_OK | os.X_OK):
        return ERROR, "cannot be written", f"{where} cannot be written by this user", "name another target"
    if why := filesystem.unfit(where):
        return ERROR, f"no: {mount.kind}", f"{why}: {mount}", "name a target on another file system"
    free = shutil.disk_usage(where).free
    if free < ROOM:
        return WARNING, "little room", f"{mount.point} has only {free >> 20} MiB free", "free some space there"
    return OK, f"on {mount.kind}, {free >> 30} GiB free", "", ""
