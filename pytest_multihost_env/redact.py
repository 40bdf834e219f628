"""Hides secrets in text, piece by piece.  Standard library only: ranks use it too.

Replacing the whole value is not enough.  pytest shortens what it prints in the middle, so that long pieces of a secret
stay; and a value is printed as it is, quoted, escaped, encoded.  So what is looked for is any `PIECE` characters in a
row that stand in any of these forms.
"""

from __future__ import annotations

import base64
import html
import json
import shlex
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any, Final

PIECE: Final = 8
"""As many characters of a secret in a row are never shown; fewer may be, since they occur in ordinary text."""
LONGEST: Final = 16 << 10
"""Characters of the longest secret: all of its pieces in all forms are kept in memory."""
HIDDEN: Final = "***"

_STEP: Final = 4
_LOOK: Final = PIECE - _STEP + 1


def forms(secret: str) -> set[str]:
    """Return the ways in which programs write `secret`: as it is, escaped, quoted, percent-encoded, hex and Base64."""
    data = secret.encode("utf-8", "surrogateescape")
    found = {secret}
    for _ in range(2):  # what is escaped may be shown escaped again: the repr of a repr, JSON in JSON
        found |= {escaped for text in found for escaped in _escaped(text)}
    found |= {repr(data)[2:-1], shlex.quote(secret), urllib.parse.quote_plus(data)}
    for safe in ("", "/"):
        quoted = urllib.parse.quote(data, safe=safe)
        found |= {quoted, quoted.lower() if "%" in quoted else quoted}
    found |= {data.hex(), data.hex().upper()}
    return found | set(_base64(data))


def _escaped(text: str) -> Iterator[str]:
    yield repr(text)[1:-1]
    yield ascii(text)[1:-1]
    yield repr(text + "'\"")[1:-4]  # with both quotes in it, the single ones are escaped
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield html.escape(text)


def _base64(data: bytes) -> Iterator[str]:
    """Yield the Base64 of `data` wherever it begins in what is encoded, without the letter that it shares there."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        own = text[before + 1 if before else 0 :]
        yield own
        yield own.replace("+", "-").replace("/", "_")


class Redactor:
    """Callable: returns a text without the secrets that it knows.

    Args:
        secrets: Their values; one with fewer than `PIECE` characters cannot be hidden and is passed over.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._pieces: set[str] = set()
        self._looks: set[str] = set()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these as well from now on."""
        texts = {form for secret in set(secrets) if len(secret) >= PIECE for form in forms(secret[:])}
        self._pieces |= {text[at : at + PIECE] for text in texts for at in range(len(text) - PIECE + 1)}
        self._looks |= {piece[at : at + _LOOK] for piece in self._pieces for at in range(_STEP)}

    def __bool__(self) -> bool:
        """Whether it knows any secret."""
        return bool(self._pieces)

    def __call__(self, text: str) -> str:
        """Return `text` with `***` for every stretch that is made of pieces of secrets."""
        if not self._pieces:
            return text
        # Around a stretch that was taken out, what is left may come together to a piece.  Each round is shorter.
        while spans := list(self._spans(text)):
            parts = []
            end = 0
            for start, stop in spans:
                parts += [text[end:start], HIDDEN]
                end = stop
            text = "".join([*parts, text[end:]])
        return text

    def inside(self, value: Any) -> Any:
        """Return `value` with every text in its lists, tuples and dicts redacted."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self.inside(key): self.inside(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self.inside(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def name(self, value: object) -> str | None:
        """Return what a value that has a secret in it may be called; None for any other value."""
        text = value if isinstance(value, str) else ascii(value)[2:-1] if isinstance(value, bytes) else ""
        clean = self(text)
        return clean if clean != text else None

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of each stretch that is to be taken out, from left to right."""
        start = stop = -1
        for at in self._hits(text):
            if at > stop:
                if stop > start:
                    yield start, stop
                start = at
            stop = at + PIECE
        if stop > start:
            yield start, stop

    def _hits(self, text: str) -> Iterator[int]:
        """Yield where a piece begins.  Every fourth place is looked at: one of any `PIECE` letters begins there."""
        looks, pieces = self._looks, self._pieces
        seen = -1
        for look in range(0, len(text) - _LOOK + 1, _STEP):
            if text[look : look + _LOOK] in looks:
                for at in range(max(seen + 1, look - _STEP + 1, 0), look + 1):
                    if text[at : at + PIECE] in pieces:
                        yield at
                seen = look
