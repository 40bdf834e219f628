"""Values as JSON that is the same text for the same value."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import PurePath

from pytest_multihost_env.model import Secret

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def to_json(value: object) -> str:
    """Return `value` as JSON with sorted keys, indented by two, in ASCII, without a trailing newline.

    Raises:
        TypeError: Something in it is of a kind that JSON has no counterpart for.
        ValueError: A number is not finite.
    """
    return json.dumps(plain(value), indent=2, sort_keys=True, allow_nan=False)


def plain(value: object) -> Plain:
    """Return `value` in the kinds that JSON knows: a dataclass as an object, a path as text, a set as a sorted list.

    A dataclass's field that is kept out of `repr` is kept out here too, and a secret is `***`.

    Raises:
        TypeError: Something in it is of a kind that JSON has no counterpart for.
    """
    match value:
        case enum.Enum():
            return plain(value.value)
        case Secret():
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case PurePath():
            return str(value)
        case Mapping():
            return {_key(key): plain(item) for key, item in value.items()}
        case AbstractSet():
            return sorted((plain(item) for item in value), key=json.dumps)
        case Sequence() if not isinstance(value, (bytes, bytearray, memoryview)):
            return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _key(key: object) -> str:
    if isinstance(key, (str, int, PurePath)) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"a key of type {type(key).__name__} cannot be written as JSON")
