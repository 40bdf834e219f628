"""Fail the test that leaves something behind, and say what: cwd, environment, processes, files.

Loaded by the root `conftest.py`; the guards are autouse fixtures, so they are the first of a test's own fixtures to be
set up and the last to be torn down: what `monkeypatch` undoes is undone before they look.  A fixture of wider scope
may keep processes alive, if the test names it as an argument (it is then set up before the guards look).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

GRACE = 3.0
"""Seconds that a process may take to go after the test that started it."""

_OWN_NAMES = ("multihost", ".multihost", "python_env", ".python_env")
_PYTEST_OWN = frozenset({"PYTEST_CURRENT_TEST"})
_STANDARD_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def left_files(root: Path) -> set[str]:
    """Return the entries of `root` and of /dev/shm that carry one of our names."""
    found = set()
    for place in (root, Path("/dev/shm")):
        if place.is_dir():
            found |= {str(entry) for entry in place.iterdir() if entry.name.startswith(_OWN_NAMES)}
    return found


def environ_changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return one phrase for each variable that was added, removed or changed."""
    changes = []
    for name in sorted((before.keys() | after.keys()) - _PYTEST_OWN):
        if name not in after:
            changes.append(f"{name} was removed")
        elif name not in before:
            changes.append(f"{name} was added")
        elif before[name] != after[name]:
            changes.append(f"{name} was changed")
    return changes


def started_by(nodeid: str, basetemp: Path, before: set[int]) -> list[psutil.Process]:
    """Return the processes that came since `before` and belong to the test `nodeid`.

    They are our descendants, and those that lost their parent (a daemon, a rank whose launcher died) but still carry
    the test's name in their environment or its directory in their arguments.
    """
    descendants = {child.pid: child for child in psutil.Process().children(recursive=True)}
    found = []
    for pid in set(psutil.pids()) - before:
        process = descendants.get(pid)
        try:
            candidate = process or psutil.Process(pid)
            if candidate.status() == psutil.STATUS_ZOMBIE and process is None:
                continue
            if (process is not None or _carries(candidate, nodeid, basetemp)) and not _is_standard_helper(candidate):
                found.append(candidate)
        except psutil.Error:
            continue
    return found


def _carries(process: psutil.Process, nodeid: str, basetemp: Path) -> bool:
    if process.environ().get("PYTEST_CURRENT_TEST", "").startswith(f"{nodeid} ("):
        return True
    return any(str(basetemp) in text for text in process.cmdline())


def _is_standard_helper(process: psutil.Process) -> bool:
    return any(name in text for text in process.cmdline() for name in _STANDARD_HELPERS)


def _described(process: psutil.Process) -> str:
    try:
        return f"pid {process.pid} ({' '.join(process.cmdline())[:160] or process.name()})"
    except psutil.Error:
        return f"pid {process.pid}"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compare the process's surroundings before and after the test; put right and report what differs."""
    root, nodeid = request.config.rootpath, request.node.nodeid
    cwd, environ, files, pids = Path.cwd(), dict(os.environ), left_files(root), set(psutil.pids())
    yield
    complaints = [*_cwd_complaint(cwd), *_environ_complaint(environ)]
    complaints += _process_complaint(nodeid, tmp_path_factory.getbasetemp(), pids)
    complaints += [f"it left {path}" for path in sorted(left_files(root) - files)]
    if complaints:
        pytest.fail("this test leaves something behind: " + "; ".join(complaints), pytrace=False)


def _cwd_complaint(before: Path) -> Iterator[str]:
    try:
        now = str(Path.cwd())
    except FileNotFoundError:
        now = "a directory that is gone"
    if now != str(before):
        os.chdir(before)
        yield f"it changed the working directory to {now}"


def _environ_complaint(before: dict[str, str]) -> Iterator[str]:
    changes = environ_changes(before, dict(os.environ))
    if changes:
        for name in os.environ.keys() - before.keys() - _PYTEST_OWN:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if name not in _PYTEST_OWN})
        yield "it changed the environment: " + ", ".join(changes)


def _process_complaint(nodeid: str, basetemp: Path, before: set[int]) -> Iterator[str]:
    _, alive = psutil.wait_procs(started_by(nodeid, basetemp, before), timeout=GRACE)
    names = [_described(process) for process in alive]
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=GRACE)
    if names:
        yield "it left running: " + ", ".join(names)
