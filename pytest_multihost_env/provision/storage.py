"""Looks how long a call to the storage takes, and decides by that who copies."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from pathlib import Path

from pytest_multihost_env.provision.copying.jobs import Job, Report, Setup
from pytest_multihost_env.provision.crew import Alone, Crew, Processes, Skip, Threads

PORTION = 64
"""Files of one directory in one job."""

_SEATS = 16
"""Threads: more do not help, since they share one interpreter."""

_PORTION = 8
"""Files of one directory in one thread's job: each takes long."""

_WAITS = 50e-6
_OFTEN = 0.3
"""From how many seconds off the processor for each call, and from what share of the calls that give it away, they wait."""

_CALLS = 100
_PATIENCE = 0.05
"""How many calls are looked at, or for how many seconds."""

_FEW = 1000
_LITTLE = 64 << 20
"""Names and bytes that are copied in the time that it takes to start a process."""

_PROCESSES = 8
"""At most: measured with two only, and what many do in one file system's journal they do after each other."""


class Probe:
    """Copies alone and measures meanwhile, so that the look at the storage costs nothing.  A crew of one."""

    seats = 1

    def __init__(self, setup: Setup, skip: Skip | None) -> None:
        self._setup = setup
        self._skip = skip
        self._alone = Alone(setup._replace(portion=_PORTION), skip)
        self._began = time.monotonic()
        self._calls = self._switches = self._names = self._size = 0
        self._waited = 0.0

    @property
    def knows(self) -> bool:
        """Whether it is known who should go on, and worth it."""
        if self._calls < _CALLS and time.monotonic() - self._began < _PATIENCE:
            return False
        return self._waits or self._names >= _FEW or self._size >= _LITTLE

    @property
    def _waits(self) -> bool:
        """Whether calls wait for somebody.

        Time alone does not tell: on a busy machine others have the processor for most of it.  Who waits gives the
        processor away, though, and the kernel counts that (getrusage(2), `ru_nvcsw`).
        """
        calls = max(1, self._calls)
        return self._switches / calls > _OFTEN and self._waited / calls > _WAITS

    def give(self, job: Job) -> None:
        """Keep the job."""
        self._alone.give(job)

    def take(self) -> Report:
        """Do the job."""
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_THREAD)
        report = self._alone.take()
        after = resource.getrusage(resource.RUSAGE_THREAD)
        worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._waited += time.perf_counter() - began - worked
        self._switches += after.ru_nvcsw - before.ru_nvcsw
        self._calls += 4 * len(report.made) + 3 * report.files + 4 * report.links
        self._names += report.names
        self._size += report.size
        return report

    def crew(self) -> Crew:
        """Return who shall go on."""
        if self._waits:
            return Threads(self._setup._replace(portion=_PORTION), self._skip, _SEATS)
        processes = min(_PROCESSES, len(os.sched_getaffinity(0)))
        if self._skip is None and processes > 1 and sys.executable:
            with contextlib.suppress(OSError):  # a limit on processes, mostly: one is enough
                return Processes(self._setup, processes)
        return self._alone

    def end(self) -> None:
        """Do nothing: there is nobody else."""


def umask() -> int:
    """Return this process's umask without changing it, as os.umask() would for all threads (proc(5), Linux 4.7)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777
