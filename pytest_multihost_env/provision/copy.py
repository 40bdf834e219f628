"""Copies a tree in one pass: list, look and copy at the same time, by as many workers as the storage can use."""

from __future__ import annotations

import collections
import dataclasses
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import ReadFile
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import digests as hashes
from pytest_multihost_env.provision import mishaps, storage
from pytest_multihost_env.provision.copying.jobs import Job, Report, Setup, Trouble
from pytest_multihost_env.provision.crew import Crew, Skip

Hire = Callable[[Setup, Skip | None], Crew]

_NAME = operator.itemgetter(0)
_BATCH = 16
"""Directories in one job, at most: handing over a job costs as much as copying three files."""


@dataclasses.dataclass(frozen=True, slots=True)
class Copied:
    """What was copied.  `outside` holds the links (relative names) that lead out of the source."""

    files: int
    bytes: int
    links: int
    directories: int
    outside: tuple[str, ...]


def copy_tree(
    source: Path,
    destination: Path,
    *,
    work: Work | None = None,
    digests: bool = False,
    skip: Skip | None = None,
    hire: Hire | None = None,
) -> Copied:
    """Make `destination`, which must not exist, a copy of the directory `source` and return what was copied.

    Kept: permission bits, times to the nanosecond (so bytecode stays valid), links, dotfiles, empty directories.
    Not kept: owner, set-uid and set-gid bits, hard links.  A link whose target lies in the source leads to the same
    place in the copy; one that leads elsewhere still leads there.

    Args:
        source: The directory to copy.
        destination: The name of the copy.
        work: Its progress is told how far the copy is.
        digests: Note in `work.read` what was read: the digest of each file.
        skip: Says, by the name relative to `source`, what to leave out.
        hire: Gets those who copy; None: as the storage needs them.

    Raises:
        NotReady: Something cannot be read, written or copied; what was made of `destination` is then removed.
    """
    _check_places(source, destination)
    work = work or Work()
    with mishaps.named("copying"):
        os.mkdir(destination, 0o700)  # noqa: PTH102 - one that stood there before is not ours to remove
        try:
            return _Copy(_setup(source, destination, digests=digests), work).run(skip, hire)
        except BaseException:
            files.remove_tree(destination)
            raise


def _check_places(source: Path, destination: Path) -> None:
    real = os.path.realpath(source)
    if not os.path.isdir(real):  # noqa: PTH112 - `real` is text on purpose
        raise NotReady(f"{source} is not a directory", where=str(source), hint="name a directory that exists")
    if (os.path.realpath(destination) + "/").startswith(real + "/"):
        raise NotReady(
            f"{destination} lies inside {source}, the directory to copy",
            where=str(destination),
            hint="choose a destination outside it",
        )


def _setup(source: Path, destination: Path, *, digests: bool) -> Setup:
    return Setup(
        source=os.path.abspath(source),  # noqa: PTH100 - links count on the name as given
        real=os.path.realpath(source),
        destination=os.path.abspath(destination),  # noqa: PTH100
        umask=storage.umask(),
        portion=storage.PORTION,
        algorithm=hashes.best() if digests else "",
    )


class _Copy:
    """What is still to do and what was done."""

    def __init__(self, setup: Setup, work: Work) -> None:
        self._setup = setup
        self._work = work
        self._directories = collections.deque([""])
        self._rest: collections.deque[tuple[str, list[str]]] = collections.deque()
        self._made: list[tuple[str, int, int, int]] = []
        self._outside: list[str] = []
        self._files = self._bytes = self._links = 0

    def run(self, skip: Skip | None, hire: Hire | None) -> Copied:
        """Copy everything."""
        crew = self._look(skip) if hire is None else hire(self._setup, skip)
        try:
            self._have_done(crew, lambda: self._job(crew.seats))
            times = self._times()
            self._have_done(crew, lambda: next(times, None))
        finally:
            crew.end()
        for name, mode, _, _ in sorted(
            self._made, key=_NAME, reverse=True
        ):  # children first: who may not enter cannot change
            if mode != mode | 0o700:
                os.chmod(f"{self._setup.destination}/{name}", mode)  # noqa: PTH101
        outside = tuple(sorted(self._outside))
        return Copied(self._files, self._bytes, self._links, len(self._made), outside)

    def _look(self, skip: Skip | None) -> Crew:
        """Copy the first files alone, and return who shall do the rest."""
        probe = storage.Probe(self._setup, skip)
        self._have_done(probe, lambda: None if probe.knows else self._job(1))
        return probe.crew() if self._directories or self._rest else probe

    def _have_done(self, crew: Crew, next_job: Callable[[], Job | None]) -> None:
        """Keep `crew` busy until there is no next job, and none that was given is unfinished."""
        busy = 0
        while True:
            while busy < crew.seats and (job := next_job()) is not None:
                crew.give(job)
                busy += 1
            if not busy:
                return
            self._add(crew.take())
            busy -= 1

    def _job(self, seats: int) -> Job | None:
        """Return what to do next; None: nothing now, but more may be found by those who are at work.

        What is at hand comes before what is still to be listed, so that there is never much of it.  Directories come
        as they are found, and the deep ones last: the largest files lie near the top, and should not be begun last.
        """
        if self._rest:
            return Job([], [self._rest.popleft()], [])
        count = min(_BATCH, len(self._directories) // (2 * seats) or len(self._directories))
        names = [self._directories.popleft() for _ in range(count)]
        return Job(names, [], []) if names else None

    def _times(self) -> Iterator[Job]:
        """Yield the jobs that give directories their times: last, since making anything in one changes them."""
        times = [(name, access, change) for name, _, access, change in self._made]
        for start in range(0, len(times), _BATCH * 4):
            yield Job([], [], times[start : start + _BATCH * 4])

    def _add(self, report: Report) -> None:
        if report.trouble is not None:
            raise _problem(report.trouble)
        if not report.adds_up:
            raise RuntimeError(f"of {report.names} names some were not copied: {vars(report)}")
        self._directories.extend(report.below)
        self._rest.extend((directory, names) for directory, names in report.rest)
        self._made.extend(report.made)
        self._outside.extend(report.outside)
        self._files += report.files
        self._bytes += report.size
        self._links += report.links
        for name, inode, size, changed, digest in report.read:
            self._work.read[name] = ReadFile(inode, size, changed, f"{self._setup.algorithm}:{digest}")
        if report.files:
            self._work.progress.advance(report.files, report.size)


def _problem(trouble: Trouble) -> Exception:
    if not trouble.errno:
        return NotReady(trouble.text, where=trouble.path, hint=trouble.hint)
    return OSError(trouble.errno, trouble.text, trouble.path)
