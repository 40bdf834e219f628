"""Wait for another's build: with jitter, to a deadline, and saying whom for."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision.lease import Lease

FIRST, LONGEST = 0.2, 2.0
"""Seconds between two looks: at the beginning, and after a while."""

REPEAT = 30.0
"""Seconds after which a waiting call says again whom it waits for."""


class Waiting:
    """The pauses of one call that waits for `target`.

    Args:
        target: What is waited for, as the user knows it.
        lease: Says who builds.
        timeout: Seconds until the call gives up.
        notify: Told whom the call waits for.
    """

    def __init__(self, target: Path, lease: Lease, timeout: float, notify: Callable[[str], None]) -> None:
        self._target = target
        self._lease = lease
        self._timeout = timeout
        self._notify = notify
        self._deadline = time.monotonic() + timeout
        self._next_message = 0.0
        self._delay = FIRST

    def pause(self) -> None:
        """Sleep until the next look is due.

        Raises:
            NotReady: The time is over; it names who did not finish.
        """
        builder, doing = self._builder()
        now = time.monotonic()
        if now >= self._deadline:
            raise NotReady(
                f"{self._target} was not ready after {self._timeout:g} s of waiting for {builder}",
                where=str(self._lease.directory),
                hint="see what that process does, end it if it hangs, or wait longer",
            )
        if now >= self._next_message:
            self._notify(f"waiting for {self._target}: {builder} ({doing}last beat {self._lease.silence:.0f} s ago)")
            self._next_message = now + REPEAT
        time.sleep(min(self._delay * random.uniform(0.5, 1.0), self._deadline - now))  # noqa: S311 - spreads load
        self._delay = min(self._delay * 1.5, LONGEST)

    def _builder(self) -> tuple[str, str]:
        """Return who builds, and what that one is doing."""
        with contextlib.suppress(OSError):
            sighting = self._lease.seen()
            if sighting.holder is not None:
                return f"the build on {sighting.holder}", f"{sighting.doing}; " if sighting.doing else ""
        return "another process of this host", ""
