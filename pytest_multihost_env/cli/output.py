"""Where text goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from pytest_multihost_env.cli.state import spoken

if TYPE_CHECKING:
    from pytest_multihost_env.table import Look


def look(stream: TextIO | None = None) -> Look:
    """Return the look that suits `stream`, standard output unless given: colour only for a person who wants it."""
    from pytest_multihost_env.report import text

    stream = stream or sys.stdout
    # https://no-color.org: set and not empty, whatever its value
    colour = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return text.look_of(stream, width=shutil.get_terminal_size((100, 24)).columns, colour=colour)


def result(text: str) -> None:
    """Write a result, in the words of the command that runs."""
    from pytest_multihost_env.table import fitted

    text = spoken(text)
    encoding = sys.stdout.encoding or "ascii"
    # Colours are escapes that were put there on purpose, and what they surround is fitted already.
    sys.stdout.write((text if "\x1b" in text else fitted(text, encoding)) + "\n")
    sys.stdout.flush()


def json(value: object) -> None:
    """Write a result for machines."""
    from pytest_multihost_env.report.json import to_json

    sys.stdout.write(spoken(to_json(value)) + "\n")
    sys.stdout.flush()


def notice(text: str) -> None:
    """Tell a person something that is not the result."""
    from pytest_multihost_env.table import fitted

    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"multihost-env: {fitted(text, sys.stderr.encoding or 'ascii')}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def kept_clean() -> Iterator[None]:
    """Send to standard error whatever anybody, also a child process, writes to standard output meanwhile."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
