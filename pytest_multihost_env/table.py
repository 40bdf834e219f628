"""A table as a value, and its one rendering.  Stages make tables; only rendering needs rich."""

from __future__ import annotations

import dataclasses
import io


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A cell's text.

    `odd` marks what a reader should look at first, in colour and, for all, with `mark`; `mild`: it can wait.
    """

    text: str
    odd: bool = False
    mark: str = "!= "
    mild: bool = False

    @property
    def style(self) -> str:
        """How rich shows it."""
        return ("yellow" if self.mild else "bold red") if self.odd else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under named columns; `caption` is a line below it, or ""."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    caption: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """How text is to look: in colour or not, its width in columns, and the encoding that it must fit into."""

    colour: bool = False
    width: int = 100
    encoding: str = "utf-8"


PLAIN = Look()


def render(table: Table, look: Look = PLAIN) -> str:
    """Return `table` as text without a trailing newline.

    Nothing is cut off: what is too wide is folded.  Odd cells carry their mark, so that they show without colour too.
    """
    from rich import box  # only who shows a table pays for rich
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    plain = not speaks_unicode(look.encoding)
    shown = RichTable(box=box.ASCII2 if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in table.columns:
        shown.add_column(Text(fitted(column, look.encoding)), overflow="fold")
    for row in table.rows:
        cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in row]
        texts = [(cell.mark if cell.odd else "") + fitted(cell.text, look.encoding) for cell in cells]
        shown.add_row(*(Text(text, style=cell.style) for text, cell in zip(texts, cells, strict=True)))
    out = io.StringIO()
    console = Console(
        file=out,
        width=look.width,
        force_terminal=look.colour,
        color_system="standard" if look.colour else None,
        legacy_windows=False,
        highlight=False,
        _environ={},
    )
    console.print(shown)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join([*filter(None, lines), *([fitted(table.caption, look.encoding)] if table.caption else [])])


def fitted(text: str, encoding: str) -> str:
    """Return `text` with control characters, and what `encoding` cannot say, written as escapes.

    Error texts and host names come from elsewhere: they must not move a terminal's cursor.
    """
    visible = "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )
    try:
        return visible.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return visible.encode("ascii", "backslashreplace").decode("ascii")


def speaks_unicode(encoding: str) -> bool:
    """Whether `encoding` has the characters that draw lines."""
    try:
        "─".encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True
