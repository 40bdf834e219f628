"""Who does the jobs of a copy: this thread alone, some threads, or some processes.

* Processes where the processor is the limit (a local disk, a tmpfs): Python threads get in each other's way there, since
  a file costs more time in the interpreter than in the kernel.
* Threads where each call waits for a server: the waiting is done at the same time.

The processes are new programs and not forks: the caller has threads (the lease's heart beats in one), and what a fork
of such a process may do is next to nothing (fork(2)).  Starting one takes 20 ms of a processor, forking a pytest 7.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from pytest_multihost_env import process
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import copying
from pytest_multihost_env.provision.copying.entries import Entries
from pytest_multihost_env.provision.copying.jobs import Job, Report, Setup, line, report_of

Skip = Callable[[str], bool]

_HOME = Path(copying.__file__).parent
_PROGRAM = f"import sys; sys.path.append(sys.argv.pop(1)); from {_HOME.name}.worker import main; main()"


class Crew(Protocol):
    """Does jobs.  Whoever made it calls `end`, whatever happened."""

    seats: int
    """How many jobs it can have at the same time."""

    def give(self, job: Job) -> None:
        """Hand it a job; it has fewer than `seats`."""
        ...

    def take(self) -> Report:
        """Wait for one of its jobs and return what came of it.

        Raises:
            NotReady: One who had a job is gone.
        """
        ...

    def end(self) -> None:
        """Stop at once, and return when nobody touches the copy any more."""
        ...


class Alone:
    """This thread does the jobs while it takes them."""

    seats = 1

    def __init__(self, setup: Setup, skip: Skip | None) -> None:
        self._entries = Entries(setup, skip)
        self._job: Job | None = None

    def give(self, job: Job) -> None:
        """Keep the job."""
        self._job = job

    def take(self) -> Report:
        """Do the job that was kept."""
        assert self._job is not None  # noqa: S101 - whoever takes has given
        return self._entries.do(self._job)

    def end(self) -> None:
        """Do nothing: there is nobody else."""


class Threads:
    """Some threads of this process."""

    def __init__(self, setup: Setup, skip: Skip | None, seats: int) -> None:
        self.seats = seats
        self._stop = threading.Event()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Report | BaseException] = queue.SimpleQueue()
        workers = [Entries(setup, skip, self._stop.is_set) for _ in range(seats)]
        self._threads = [
            threading.Thread(target=self._work, args=[entries], name=f"copy-{number}", daemon=True)
            for number, entries in enumerate(workers)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, entries: Entries) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._reports.put(entries.do(job))
            except BaseException as error:  # noqa: BLE001 - raised again by take()
                self._reports.put(error)

    def give(self, job: Job) -> None:
        """Let one of the threads have the job."""
        self._jobs.put(job)

    def take(self) -> Report:
        """Wait for one of the threads."""
        report = self._reports.get()
        if isinstance(report, BaseException):
            raise report
        return report

    def end(self) -> None:
        """Let the threads leave after the file that each is at."""
        self._stop.set()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()


class Processes:
    """Some processes.  Each has one job at a time, so that neither end ever waits for the other to read."""

    def __init__(self, setup: Setup, seats: int) -> None:
        self.seats = seats
        self._all: list[process.Popen] = []
        self._free: list[process.Popen] = []
        self._selector = selectors.DefaultSelector()
        try:
            for _ in range(seats):
                worker = process.start(_command(setup.algorithm), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._all.append(worker)
                self._free.append(worker)
                _send(worker, line(setup._replace(umask=0)))
                self._selector.register(_open(worker.stdout), selectors.EVENT_READ, worker)
        except BaseException:
            self.end()
            raise

    def give(self, job: Job) -> None:
        """Let a free process have the job."""
        _send(self._free.pop(), line(job))

    def take(self) -> Report:
        """Wait for one of the processes."""
        key, _ = self._selector.select()[0]
        worker: process.Popen = key.data
        text = _open(worker.stdout).readline()
        if not text.endswith(b"\n"):
            raise _lost(worker)
        self._free.append(worker)
        return report_of(text)

    def end(self) -> None:
        """Kill the processes and wait until they are gone."""
        for worker in self._all:
            worker.kill()
        for worker in self._all:
            for stream in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):  # what could not be written any more
                    _open(stream).close()
            worker.wait()
        self._selector.close()


def _command(algorithm: str) -> list[str]:
    """Return the command of a worker: a Python without site-packages, which starts twice as fast."""
    modules = []
    if algorithm == "blake3":
        import blake3

        modules.append(str(Path(blake3.__file__).parent.parent))
    return [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, str(_HOME.parent), str(os.getpid()), *modules]


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - it was asked for
    return stream


def _send(worker: process.Popen, text: bytes) -> None:
    try:
        _open(worker.stdin).write(text)
        _open(worker.stdin).flush()
    except BrokenPipeError:
        raise _lost(worker) from None


def _lost(worker: process.Popen) -> NotReady:
    code = worker.wait()
    try:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    except ValueError:
        how = f"was killed by signal {-code}"
    return NotReady(
        f"a process that copied {how} before it was done",
        where=f"pid {worker.pid}",
        expected="every file that the source has",
        hint="see whether the machine has memory to spare (dmesg says whom the kernel killed), and try again",
    )
