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


def open_streams() -> None:
    """Open to nowhere what the caller has closed (`>&-`): the next file that is opened would take its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def give_up() -> None:
    """Send to nowhere what standard output does not take, also what is left in the buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def put(text: str) -> None:
    """Write `text`, which is fitted already, to standard output.

    Raises:
        OSError: It does not take it; nothing more is written there.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up()
        raise OSError(error.errno, error.strerror, "standard output") from None


def result(text: str) -> None:
    """Write a result, in the words of the command that runs."""
    from pytest_multihost_env.table import fitted

    text = spoken(text)
    encoding = sys.stdout.encoding or "ascii"
    # Colours are escapes that were put there on purpose, and what they surround is fitted already.
    put((text if "\x1b" in text else fitted(text, encoding)) + "\n")


def json(value: object) -> None:
    """Write a result for machines."""
    from pytest_multihost_env.report.json import to_json

    put(spoken(to_json(value)) + "\n")


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
