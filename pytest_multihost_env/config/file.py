"""The configuration file: `[tool.multihost-env]` of pyproject.toml, or multihost-env.toml, checked key by key."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytest_multihost_env.config.convert import type_name
from pytest_multihost_env.config.settings import Assignment, EnvironmentTable
from pytest_multihost_env.config.table import SETTINGS, Setting
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.names import valid_host, valid_variable

PYPROJECT = "pyproject.toml"
OWN = "multihost-env.toml"
_SECTION = "tool.multihost-env"
_BY_KEY: dict[str, Setting] = {setting.file_key or setting.name: setting for setting in SETTINGS}
_ENVIRONMENT_KEYS = ("pass", "block", "rank-scoped", "local-caches", "lib-first", "unset", "set", "hosts", "ranks")
_CHANGE_KEYS = ("unset", "set")


@dataclasses.dataclass(frozen=True, slots=True)
class FileValue:
    """A raw value of the file, and the name of the file."""

    raw: object
    origin: str


@dataclasses.dataclass(frozen=True, slots=True)
class FileLayer:
    """What the files say: raw values of settings by name, and the tables of variables."""

    values: Mapping[str, FileValue]
    environment: EnvironmentTable


def read(rootdir: Path, config_file: Path | None) -> FileLayer:
    """Return what `config_file` says, or without one what the two files in `rootdir` say together.

    Raises:
        UsageProblem: A file cannot be read, has an unknown key or a wrong type, or both files give the same key.
    """
    paths = [rootdir / PYPROJECT, rootdir / OWN] if config_file is None else [config_file]
    leaves: dict[tuple[str, ...], FileValue] = {}
    for path in paths:
        origin = path.name if path.parent == rootdir else str(path)
        for key, raw in _leaves(_content(path, must_exist=config_file is not None), origin, ()):
            if key in leaves:
                raise UsageProblem(
                    f"{'.'.join(key)} stands in {leaves[key].origin} and in {origin}",
                    where=str(rootdir),
                    expected="each key in one file",
                    hint="remove it from one of the two",
                )
            leaves[key] = FileValue(raw, origin)
    values = {_BY_KEY[".".join(key)].name: value for key, value in leaves.items() if ".".join(key) in _BY_KEY}
    return FileLayer(values, _environment(leaves))


def _content(path: Path, *, must_exist: bool) -> dict[str, object]:
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if must_exist:
            raise UsageProblem(
                "the configuration file does not exist", where=str(path), hint="correct its path"
            ) from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(
            f"the configuration file cannot be read: {error}",
            where=str(path),
            expected="a TOML file in UTF-8",
            hint="correct the file",
        ) from None
    if path.name != PYPROJECT:
        if isinstance(content.get("tool"), dict):
            raise UsageProblem(
                "unknown key tool",
                where=path.name,
                expected=f"the keys of [{_SECTION}] at the top level",
                hint=f"remove the heading [{_SECTION}]",
            )
        return content
    tool = content.get("tool", {})
    section = tool.get("multihost-env", {}) if isinstance(tool, dict) else {}
    return _table(section, path.name, _SECTION)


def _table(value: object, origin: str, key: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong_type(origin, key, value, "a table")
    return value


def _wrong_type(origin: str, key: str, value: object, expected: str) -> UsageProblem:
    return UsageProblem(
        f"{key} is of type {type_name(value)}", where=origin, expected=expected, hint=f"correct {key} in {origin}"
    )


def _unknown(key: str, origin: str, known: Iterable[str]) -> UsageProblem:
    # A setting that stands in a table is also looked for under the name of its option.
    spelt = {name: name for name in known} | {
        setting.name: setting.file_key for setting in SETTINGS if setting.file_key and "." not in key
    }
    best = difflib.get_close_matches(key.replace("_", "-"), spelt, n=1, cutoff=0.4)
    return UsageProblem(
        f"unknown key {key}",
        where=origin,
        expected="a known key",
        hint=f"the nearest known key is {spelt[best[0]]}" if best else "remove it",
    )


def _leaves(
    table: Mapping[str, object], origin: str, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield every dotted key of the file with its raw value; refuse keys that nothing reads."""
    for key, value in table.items():
        path = (*above, key)
        _check_key(path, origin)
        dotted = ".".join(path)
        if _is_table(path):
            yield from _leaves(_table(value, origin, dotted), origin, path)
        else:
            yield path, value


def _is_table(path: tuple[str, ...]) -> bool:
    match path:
        case ("environment",) | ("environment", "set" | "hosts" | "ranks") | ("environment", "hosts" | "ranks", _):
            return True
        case ("environment", "hosts" | "ranks", _, "set"):
            return True
    return False


def _check_key(path: tuple[str, ...], origin: str) -> None:
    known: tuple[str, ...] | None = None
    match path:
        case (_,):
            known = (*(key for key in _BY_KEY if "." not in key), "environment")
        case ("environment", _):
            known = _ENVIRONMENT_KEYS
        case ("environment", "hosts" | "ranks", _, _):
            known = _CHANGE_KEYS
        case ("environment", "hosts", host) if not valid_host(host):
            raise UsageProblem(f"{host!r} is not a host name", where=f"{origin}: environment.hosts", hint="correct it")
        case ("environment", "ranks", rank) if not (rank.isascii() and rank.isdigit() and rank == str(int(rank))):
            raise UsageProblem(
                f"{rank!r} is not a rank",
                where=f"{origin}: environment.ranks",
                expected="0, 1, 2, ...",
                hint="correct it",
            )
    if known is not None and path[-1] not in known:
        above = "".join(f"{part}." for part in path[:-1])
        raise _unknown(".".join(path), origin, [above + key for key in known])


def _environment(leaves: Mapping[tuple[str, ...], FileValue]) -> EnvironmentTable:
    everywhere: list[Assignment] = []
    hosts: dict[str, list[Assignment]] = {}
    ranks: dict[int, list[Assignment]] = {}
    for path, value in leaves.items():
        match path:
            case ("environment", "unset" | "set", *_):
                everywhere += _assignments(path, value)
            case ("environment", "hosts", host, *_):
                hosts.setdefault(host, []).extend(_assignments(path, value))
            case ("environment", "ranks", rank, *_):
                ranks.setdefault(int(rank), []).extend(_assignments(path, value))
    for changes in (everywhere, *hosts.values(), *ranks.values()):
        _refuse_both(changes)
    return EnvironmentTable(
        tuple(everywhere),
        {host: tuple(changes) for host, changes in hosts.items()},
        {rank: tuple(changes) for rank, changes in ranks.items()},
    )


def _assignments(path: tuple[str, ...], value: FileValue) -> list[Assignment]:
    dotted = ".".join(path)
    if path[-2] == "set":
        if not isinstance(value.raw, str):
            raise _wrong_type(value.origin, dotted, value.raw, "a string, in quotes")
        return [
            Assignment(
                _variable(path[-1], value.origin, dotted), _literal(value.raw, value.origin, dotted), value.origin
            )
        ]
    if not isinstance(value.raw, list):
        raise _wrong_type(value.origin, dotted, value.raw, "an array of variable names")
    changes = []
    for position, name in enumerate(value.raw):
        if not isinstance(name, str):
            raise _wrong_type(value.origin, f"{dotted}[{position}]", name, "a variable name")
        changes.append(Assignment(_variable(name, value.origin, dotted), None, value.origin))
    return changes


def _variable(name: str, origin: str, key: str) -> str:
    if not valid_variable(name):
        raise UsageProblem(
            f"{name!r} is not a variable name",
            where=f"{origin}: {key}",
            expected="letters, digits and _, not beginning with a digit",
            hint="correct the name",
        )
    return name


def _literal(value: str, origin: str, key: str) -> str:
    if "\0" in value:
        raise UsageProblem("the value contains a NUL", where=f"{origin}: {key}", hint="remove it")
    return value


def _refuse_both(changes: list[Assignment]) -> None:
    unset = {change.name for change in changes if change.value is None}
    for change in changes:
        if change.value is not None and change.name in unset:
            raise UsageProblem(f"{change.name} is both set and unset", where=change.origin, hint="keep one of the two")
