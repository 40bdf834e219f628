"""The warm gangs of one controller: one for each shape, replaced when broken, and not too many at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pytest_multihost_env.errors import LaunchFailed
from pytest_multihost_env.gang.gang import Gang
from pytest_multihost_env.model import Shape

RECYCLE = 500
"""Tests after which a gang is replaced.  MPICH has 2048 communicator contexts, and each test takes one for good."""

ATTEMPTS = 2
"""A shape that could not be started this often is not tried again: a start may take a minute to fail."""


class Pool:
    """Gangs by shape, least recently used first.

    Args:
        start: Starts a gang that is ready to run tests.
        warm_ranks: At most this many ranks are kept warm at the same time, the gang in use not counted.
    """

    def __init__(self, start: Callable[[Shape], Gang], warm_ranks: int) -> None:
        self._start = start
        self._warm_ranks = warm_ranks
        self._gangs: dict[Shape, Gang] = {}
        self._failures: dict[Shape, list[LaunchFailed]] = {}
        self.problems: list[str] = []
        self.restarts: list[str] = []

    @contextlib.contextmanager
    def lease(self, shape: Shape, *, fresh: bool) -> Iterator[Gang]:
        """Give a gang of `shape` for one test; `fresh` gives one that never ran and is never used again.

        The caller says `drop` when the gang is not to be used again.

        Raises:
            LaunchFailed: It cannot be started.
        """
        gang = None if fresh else self._gangs.pop(shape, None)
        if gang is not None and (reason := gang.broken):
            self.restarts.append(reason)
            self.problems.append(reason)
            gang.close()
            gang = None
        if gang is None:
            gang = self._started(shape)
        try:
            yield gang
        except BaseException:
            gang.close()
            raise
        if gang.usable and (fresh or gang.ran >= RECYCLE):
            self.problems += gang.finish()
        elif gang.usable:
            self._gangs[shape] = gang

    def _started(self, shape: Shape) -> Gang:
        """Start a gang, unless that has failed `ATTEMPTS` times in a row: then say so again at once."""
        failures = self._failures.setdefault(shape, [])
        if len(failures) >= ATTEMPTS:
            raise failures[-1]
        self._make_room(shape.ranks)
        try:
            gang = self._start(shape)
        except LaunchFailed as error:
            failures.append(error)
            raise
        failures.clear()
        return gang

    def _make_room(self, ranks: int) -> None:
        while self._gangs and sum(gang.size for gang in self._gangs.values()) + ranks > self._warm_ranks:
            oldest = next(iter(self._gangs))
            self.problems += self._gangs.pop(oldest).finish()

    def forget(self, unwanted: Callable[[Gang], bool]) -> None:
        """End the warm gangs that are unwanted, now."""
        for shape in [shape for shape, gang in self._gangs.items() if unwanted(gang)]:
            self._gangs.pop(shape).close()

    def close(self) -> None:
        """End every gang in good order; what went wrong is added to `problems`."""
        while self._gangs:
            _, gang = self._gangs.popitem()
            try:
                self.problems += gang.finish()
            except BaseException:
                self.kill()
                gang.close()
                raise

    def kill(self) -> None:
        """End every gang now."""
        while self._gangs:
            self._gangs.popitem()[1].close()
