"""Values of variables that launchers, shells and files get wrong."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st


def awkward() -> list[str]:
    """Return 200 values that hypothesis makes up, and those that broke somebody's launcher once."""
    known = [
        "a b",
        "a,b",
        "a=b=c",
        "'",
        '"',
        "\\",
        "$HOME",
        "$(x)",
        "`x`",
        ";",
        "&",
        "a\nb",
        "\n",
        "\t",
        " ",
        "",
        "ü€𝄞",
        "%s",
    ]
    found = [*known, "x" * 100_000, "\udcff\udc80", "*", "~", "!x", "#", "--", "-x", "\x1b[31m", "\r", "\x7f", "\u2028"]

    @hypothesis.settings(max_examples=200, database=None, derandomize=True)
    @hypothesis.given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
    def collect(value: str) -> None:
        found.append(value)

    collect()
    return found
