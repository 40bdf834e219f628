"""One raw value of one layer becomes the value of its setting, or an error that names the place."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env.config.table import Kind, Setting
from pytest_multihost_env.errors import UsageProblem

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_EXPECTED: dict[Kind, str] = {
    "str": "a string",
    "path": "a path as a string",
    "paths": "a path, or a list of paths",
    "int": "a whole number of at least 1",
    "seconds": "a positive number of seconds",
    "bool": "true or false",
    "list": "a list of strings",
    "args": "a command line as one string, or a list of strings",
    "commands": 'a list of commands, each a list of strings: [["python", "-m", "compileall", "src"]]',
}
_TOML_NAMES = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "table"}


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a raw value stands.

    Attributes:
        origin: The layer as a person would write it.
        key: What the value is called there.
        base: What a relative path is relative to.
        home: What `~` stands for; None: it is left alone.
        typed: The layer has types of its own (TOML), so that text is not taken for a number.
    """

    origin: str
    key: str
    base: Path
    home: str | None
    typed: bool = False


def type_name(value: object) -> str:
    """Return the name that TOML gives to the type of `value`."""
    return _TOML_NAMES.get(type(value), type(value).__name__)


def convert(setting: Setting, raw: object, source: Source) -> object:
    """Return `raw` as the value that `setting` has.

    Raises:
        UsageProblem: It has the wrong type or is none of the choices.
    """
    value = _CONVERTERS[setting.kind](setting, raw, source)
    if setting.choices:
        for one in value if isinstance(value, tuple) else (value,):
            if one not in setting.choices:
                raise UsageProblem(
                    f"{source.key} cannot be {one!r}",
                    where=source.origin,
                    expected=" or ".join(setting.choices),
                    hint="write one of these",
                )
    return value


def _wrong(setting: Setting, raw: object, source: Source) -> UsageProblem:
    shown = f"text {raw!r}" if isinstance(raw, str) and not source.typed else type_name(raw)
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        shown = f"{type_name(raw)} {raw}"
    return UsageProblem(
        f"{source.key} is of type {shown}" if source.typed else f"{source.key} cannot be {shown}",
        where=source.origin,
        expected=_EXPECTED[setting.kind],
        hint=f"correct {source.key}",
    )


def _text(setting: Setting, raw: object, source: Source) -> str:
    if isinstance(raw, Path):
        raw = str(raw)
    if not isinstance(raw, str):
        raise _wrong(setting, raw, source)
    if not raw.strip() or "\0" in raw:
        raise UsageProblem(
            f"{source.key} is {'empty' if not raw.strip() else 'not text: it contains a NUL'}",
            where=source.origin,
            expected=_EXPECTED[setting.kind],
            hint="give it a value, or leave it out",
        )
    return raw


def _str(setting: Setting, raw: object, source: Source) -> str:
    return _text(setting, raw, source).strip()


def _path(setting: Setting, raw: object, source: Source) -> Path:
    text = _text(setting, raw, source)
    if source.home and (text == "~" or text.startswith("~/")):
        text = source.home + text[1:]
    return source.base / text


def _paths(setting: Setting, raw: object, source: Source) -> tuple[Path, ...]:
    if isinstance(raw, str) and not source.typed:
        raw = [line for line in raw.splitlines() if line.strip()]
    if isinstance(raw, (str, Path)):
        raw = [raw]
    if not isinstance(raw, (list, tuple)):
        raise _wrong(setting, raw, source)
    return tuple(_path(setting, part, source) for part in raw)


def _int(setting: Setting, raw: object, source: Source) -> int:
    if isinstance(raw, str) and not source.typed and re.fullmatch(r"\s*[0-9]{1,9}\s*", raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 1:
        raise _wrong(setting, raw, source)
    return raw


def _seconds(setting: Setting, raw: object, source: Source) -> float:
    number = raw
    if isinstance(raw, str) and not source.typed:
        try:
            number = float(raw)
        except ValueError:
            raise _wrong(setting, raw, source) from None
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise _wrong(setting, raw, source)
    try:
        seconds = float(number)
    except OverflowError:
        raise _wrong(setting, raw, source) from None
    if not math.isfinite(seconds) or seconds <= 0:
        raise _wrong(setting, raw, source)
    return seconds


def _bool(setting: Setting, raw: object, source: Source) -> bool:
    if isinstance(raw, str) and not source.typed:
        word = raw.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    if not isinstance(raw, bool):
        raise _wrong(setting, raw, source)
    return raw


def _list(setting: Setting, raw: object, source: Source) -> tuple[str, ...]:
    if isinstance(raw, str) and not source.typed:
        parts = raw.splitlines() if setting.lines else re.split(r"[\s,]+", raw)
        return tuple(part for part in parts if part.strip())
    if not isinstance(raw, (list, tuple)):
        raise _wrong(setting, raw, source)
    for position, part in enumerate(raw):
        if not isinstance(part, str) or "\0" in part:
            raise UsageProblem(
                f"{source.key}[{position}] is of type {type_name(part)}"
                if not isinstance(part, str)
                else f"{source.key}[{position}] contains a NUL",
                where=source.origin,
                expected="a string",
                hint="put it in quotes",
            )
    if source.typed or setting.lines or setting.kind == "args":
        return tuple(raw)
    return tuple(word for part in raw for word in re.split(r"[\s,]+", part.strip()))


def _commands(setting: Setting, raw: object, source: Source) -> tuple[tuple[str, ...], ...]:
    if not isinstance(raw, list):
        raise _wrong(setting, raw, source)
    commands = []
    for position, command in enumerate(raw):
        here = dataclasses.replace(source, key=f"{source.key}[{position}]")
        if not isinstance(command, list):
            raise _wrong(setting, command, here)
        words = _list(setting, command, here)
        if not words or not words[0].strip():
            raise UsageProblem(
                f"{here.key} names no program", where=source.origin, expected=_EXPECTED["commands"], hint="name one"
            )
        commands.append(words)
    return tuple(commands)


def _args(setting: Setting, raw: object, source: Source) -> tuple[str, ...]:
    if not isinstance(raw, str):
        return _list(setting, raw, source)
    try:
        return tuple(shlex.split(raw))
    except ValueError as error:
        raise UsageProblem(
            f"{source.key} cannot be split into arguments: {error}",
            where=source.origin,
            expected="a command line with closed quotes",
            hint=f"close the quote in {raw!r}",
        ) from None


_CONVERTERS: dict[Kind, Callable[[Setting, object, Source], object]] = {
    "str": _str,
    "path": _path,
    "paths": _paths,
    "int": _int,
    "seconds": _seconds,
    "bool": _bool,
    "list": _list,
    "args": _args,
    "commands": _commands,
}
