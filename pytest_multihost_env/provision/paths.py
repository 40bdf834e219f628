"""Replaces one path by another in text, whole components at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_IN_COMPONENT = r"[^\s/\"'`:;,=<>|&()\[\]{}\\]"
"""A character that continues a component: `/data/env` does not stand in `/data/env2` nor in `/data/env-old`."""


class Replacer:
    """Replaces any of several old prefixes by one new one.

    `/data/env` is found in `"/data/env/bin"` and at the end of a word; neither in `/data/env2` nor in
    `/mnt/data/env`.  The new prefix itself is left alone wherever it stands, so doing it twice changes nothing.

    Args:
        new: The new prefix.
        old: The old ones.
        glued: A path may also follow an option without a break (`-L/data/env/lib`), or a dot at the very beginning
            (a build variable of CPython has one).
    """

    def __init__(self, new: Path, old: Sequence[Path], *, glued: bool = False) -> None:
        self.new = str(new)
        self.old = sorted({str(path) for path in old} - {self.new, "/"}, key=len, reverse=True)
        before = rf"(?<!{_IN_COMPONENT})(?<!/)"
        if glued:
            before = rf"(?:(?<=-[LI])|(?<=-rpath,)|(?<=^\.)|{before})"
        # The new path first: where an old one is its beginning (an environment below its own source), it wins.
        names = "|".join(re.escape(path) for path in (self.new, *self.old))
        self._pattern = re.compile(rf"{before}(?:{names})(?!{_IN_COMPONENT})")
        # Where a new path holds an old one, what begins with the new one is no mention.
        below = self.new if any(self.new.startswith(f"{path}/") for path in self.old) else ""
        old_names = "|".join(re.escape(path) for path in self.old)
        self._mention = re.compile(
            rf"(?:(?<=-[LI])|(?<![\w.-]))(?!{re.escape(below) or '(?!)'})(?:{old_names})(?!{_IN_COMPONENT})"
        )

    def text(self, value: str) -> str:
        """Return `value` with every old path in it replaced."""
        return self._pattern.sub(lambda _: self.new, value) if self.old else value

    def names_old(self, value: str) -> bool:
        """Whether `value` still names an old path, or something below it, in whatever surroundings."""
        return bool(self.old and self._mention.search(value))

    def path(self, value: str) -> str:
        """Return the path `value`, all of it one path, below the new prefix when it was below an old one."""
        for prefix in (self.new, *self.old):
            if value == prefix or value.startswith(prefix + "/"):
                return self.new + value[len(prefix) :]
        return value

    def inside(self, value: str) -> bool:
        """Whether the path `value` is the new prefix or below it."""
        return value == self.new or value.startswith(self.new + "/")
