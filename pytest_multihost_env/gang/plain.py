"""Turns what a report holds into values that JSON has, whatever a test has put there.  Standard library only."""

from __future__ import annotations

from typing import Any

TEXT_LIMIT = 1 << 20
DEPTH_LIMIT = 40
_MOST = 1 << 63


def plain(value: object, depth: int = 0) -> Any:
    """Return `value` in terms that JSON has: what it has not becomes text, what is overlong is cut in the middle."""
    if depth > DEPTH_LIMIT:
        return "[... nested too deeply ...]"
    if isinstance(value, dict):
        return {_text(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and -_MOST < value < _MOST):
        return value
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, int):
        return hex(value)[:TEXT_LIMIT]
    try:
        return cut(str(value))
    except Exception as error:  # noqa: BLE001 - somebody's __str__, which may raise anything
        return f"<{type(value).__name__} whose text cannot be had: {type(error).__name__}>"


def cut(text: str) -> str:
    """Return `text`, without its middle when it is longer than `TEXT_LIMIT` characters."""
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2
    return f"{text[:half]}\n[... {len(text) - TEXT_LIMIT} characters left out ...]\n{text[-half:]}"
