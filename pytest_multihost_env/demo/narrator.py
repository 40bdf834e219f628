"""What the demonstration prints: steps with their times, other programs' output, and the summary."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_multihost_env.table import fitted, speaks_unicode

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pytest_multihost_env.table import Look

INDENT = "    "
MOST = 110
"""Columns: a frame as wide as a large terminal is hard to read."""

_WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}

NEXT = (
    ("the same for your tests", "pytest --multihost-venv=/opt/venv"),
    ("two lines of a CI file", 'eval "$(multihost-env activate /opt/venv ./python_env)"\npython -m pytest'),
    ("a test that hosts are equal", 'def test_same(drift_check): drift_check.assert_same("numpy")'),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """One thing that was shown: whether it held, what it is, what was measured."""

    good: bool
    what: str
    measured: str


class Narrator:
    """Prints, as `look` says, to standard output."""

    def __init__(self, look: Look) -> None:
        from rich.console import Console

        self.look = look
        self._unicode = speaks_unicode(look.encoding)
        self._steps = 0
        self._console = Console(
            file=sys.stdout,
            width=min(look.width, MOST),
            force_terminal=look.colour,
            color_system="standard" if look.colour else None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            _environ={},
        )

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and when it is done say how long it took."""
        self._steps += 1
        self._print(f"{self._steps}. {title}", "bold cyan")
        began = time.monotonic()
        yield
        self._print(f"{INDENT}done in {time.monotonic() - began:.1f} s\n", "dim")

    def say(self, text: str) -> None:
        """Print what a step found; words, and so paths, stay whole."""
        width = min(self.look.width, MOST) - len(INDENT)
        self._print("\n".join(INDENT + line for line in textwrap.wrap(text, width, **_WHOLE_WORDS)), "")

    def code(self, text: str) -> None:
        """Print lines that somebody could type."""
        for line in text.splitlines():
            self._print(f"{INDENT}| {line}".rstrip(), "green")

    def line(self, text: str = "") -> None:
        """Print one line as it is, or an empty one."""
        self._print(text, "")

    def raw(self, text: str) -> None:
        """Print another program's output, or a rendered table, as it came but indented; colours are kept."""
        encoding = self.look.encoding
        for line in text.encode(encoding, "backslashreplace").decode(encoding).splitlines():
            sys.stdout.write(f"{INDENT}{line}".rstrip() + "\n")
        sys.stdout.flush()

    def summary(self, claims: Sequence[Claim], seconds: float) -> None:
        """Print what was shown, in a frame, and what to type next."""
        from rich import box
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        marks = {True: ("\N{CHECK MARK}", "bold green"), False: ("\N{BALLOT X}", "bold red")}
        if not self._unicode:
            marks = {True: ("ok", "bold green"), False: ("NO", "bold red")}
        shown = Table.grid(padding=(0, 2))
        shown.add_column()
        shown.add_column(style="bold")
        shown.add_column()
        for claim in claims:
            mark, style = marks[claim.good]
            measured = Text(fitted(claim.measured, self.look.encoding), "" if claim.good else "red")
            shown.add_row(Text(mark, style), Text(claim.what), measured)
        to_type = Table.grid(padding=(0, 2))
        for why, command in NEXT:
            to_type.add_row(Text(""), Text(why), Text(command, "green"))
        good = all(claim.good for claim in claims)
        title = f"{sum(claim.good for claim in claims)} of {len(claims)} shown, in {seconds:.1f} s"
        body: list[RenderableType] = [shown, Text(""), Text("Next:", "bold"), to_type]
        frame = box.ROUNDED if self._unicode else box.ASCII
        style = "green" if good else "red"
        self._console.print(Panel(Group(*body), title=title, border_style=style, box=frame, padding=(1, 2)))

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(fitted(text, self.look.encoding), style), soft_wrap=True)
        sys.stdout.flush()
