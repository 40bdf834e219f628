"""Shows how far a long piece of work has come: a bar for a person at a terminal, now and then a line in a log.

What is quick shows nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

BAR_AFTER = 1.0
LINE_AFTER = 2.0
"""Seconds of work before anything is shown."""

_REFRESH = 0.2
_APART = 10.0
_QUARTER_APART = 3.0
"""Seconds between two lines; less when a quarter more is done."""


class Meter:
    """A `protocols.Progress` that only remembers; what is shown is read from it by another thread."""

    def __init__(self) -> None:
        self.stage = ""
        self.files = self.size = 0
        self.all_files: int | None = None
        self.all_size: int | None = None

    def begin(self, stage: str, files: int | None = None, size: int | None = None) -> None:
        """Begin a stage at nothing."""
        self.files = self.size = 0
        self.all_files, self.all_size = files, size
        self.stage = stage

    def advance(self, files: int, size: int) -> None:
        """Count what is done."""
        self.files += files
        self.size += size

    def end(self) -> None:
        """Be between two stages."""
        self.stage = ""

    @property
    def share(self) -> float | None:
        """How much of the stage is done, 0 to 1; None when nobody knows.

        Files and bytes count alike: the time for many small files goes with their number, for large ones with size.
        """
        shares = [done / whole for done, whole in ((self.files, self.all_files), (self.size, self.all_size)) if whole]
        return min(1.0, sum(shares) / len(shares)) if shares else None

    def told(self) -> str:
        """Return how much is done, "12,000 of 41,229 files, 0.4 of 1.4 GB"; "" when nothing is counted."""
        parts = []
        if self.files:
            parts.append(f"{self.files:,}" + _of(self.files, self.all_files, 1, 0) + " files")
        if self.size:
            whole = max(self.size, self.all_size or 0)
            unit, scale, places = ("GB", 1e9, 1) if whole >= 1e9 else ("MB", 1e6, 0) if whole >= 1e6 else ("kB", 1e3, 0)
            parts.append(f"{self.size / scale:,.{places}f}" + _of(self.size, self.all_size, scale, places) + f" {unit}")
        return ", ".join(parts)


def _of(done: int, whole: int | None, scale: float, places: int) -> str:
    return f" of {max(done, whole) / scale:,.{places}f}" if whole else ""


class Display(Protocol):
    """Shows a meter; both are called by one thread."""

    def show(self, meter: Meter) -> None:
        """Show how far it is, if it is time to; called a few times in a second while the work goes on."""
        ...

    def close(self) -> None:
        """Take away what should not stay."""
        ...


class Lines:
    """Sparse lines for a log.

    Args:
        title: What is made, for the first line.
        say: Writes a line.
        clock: Tells seconds.
    """

    def __init__(self, title: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._say = say
        self._clock = clock
        self._began = clock()
        self._last: float | None = None
        self._quarter: tuple[str, int] = ("", 0)

    def show(self, meter: Meter) -> None:
        """Write a line when it is time for one."""
        now = self._clock()
        quarter = meter.stage, int((meter.share or 0.0) * 4)
        if not meter.stage or now - self._began < LINE_AFTER:
            return
        if self._last is not None:
            apart = _APART if quarter == self._quarter else _QUARTER_APART
            if now - self._last < apart:
                return
        told = meter.told()
        text = f"{meter.stage}: {told}" if told else meter.stage
        self._say(text if self._last is not None else f"{self._title}; {text}")
        self._last, self._quarter = now, quarter

    def close(self) -> None:
        """Do nothing: lines stay."""


class Bar:
    """A bar on standard error that goes away when the work is done; what is made stays, as a line."""

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self._title = title
        self._say = say
        self._began = time.monotonic()
        self._bar: RichProgress | None = None

    def show(self, meter: Meter) -> None:
        """Draw the bar, first when the work has taken a while."""
        if not meter.stage or time.monotonic() - self._began < BAR_AFTER:
            return
        if self._bar is None:
            self._say(self._title)
            self._bar = _bar()
            self._bar.start()
        share = meter.share
        self._bar.update(
            self._bar.task_ids[0],
            description=meter.stage,
            total=None if share is None else 1.0,
            completed=share or 0.0,
            told=meter.told(),
        )
        self._bar.refresh()

    def close(self) -> None:
        """Wipe the bar off."""
        if self._bar is not None:
            self._bar.stop()


def _bar() -> RichProgress:
    from rich.console import Console  # only who waits pays for rich
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # Its console writes to whatever standard error is; other text there appears above the bar.
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
    )
    bar.add_task("", total=None, told="")
    return bar


@contextlib.contextmanager
def shown(title: str, say: Callable[[str], None]) -> Iterator[Meter]:
    """Show, while the block runs, what it tells the meter.

    Args:
        title: What is made.
        say: Writes a line to standard error.
    """
    meter = Meter()
    terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    display: Display = Bar(title, say) if terminal else Lines(title, say)
    over = threading.Event()

    def watch() -> None:
        with contextlib.suppress(OSError):  # standard error is gone: that is no reason to stop the work
            while not over.wait(_REFRESH):
                display.show(meter)
            display.close()

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield meter
    finally:
        over.set()
        watcher.join()
