"""Reads what a project says that it needs: requirements files and `pyproject.toml`."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_multihost_env.errors import UsageProblem

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Options about where and how pip finds files: they say nothing about what must be installed.  True: takes a value.
_FINDING = {
    "-i": True,
    "--index-url": True,
    "--extra-index-url": True,
    "-f": True,
    "--find-links": True,
    "--trusted-host": True,
    "--no-binary": True,
    "--only-binary": True,
    "--use-feature": True,
    "--no-index": False,
    "--pre": False,
    "--prefer-binary": False,
    "--require-hashes": False,
}
_INCLUDE = {"-r": False, "--requirement": False, "-c": True, "--constraint": True}
_OPTION = re.compile(r"\s--(hash|config-settings?|global-option|install-option)\b.*", re.DOTALL)
_EGG = re.compile(r"(?P<url>\S+?)#(?:.*&)?egg=(?P<name>[A-Za-z0-9._-]+)\S*")


@dataclasses.dataclass(frozen=True, slots=True)
class Want:
    """One requirement and where it stands.  A constraint counts only where the distribution is installed."""

    requirement: Requirement
    where: str
    constraint: bool = False


def parse(text: str, where: str, *, constraint: bool = False) -> Want:
    """Return one requirement (PEP 508).

    Raises:
        UsageProblem: It is none, or it does not name a distribution.
    """
    from packaging.requirements import InvalidRequirement, Requirement  # loaded only when something is checked

    egg = _EGG.fullmatch(text)
    try:
        return Want(Requirement(f"{egg['name']} @ {egg['url']}" if egg else text), where, constraint)
    except InvalidRequirement as error:
        unnamed = "/" in text or text.startswith(".")
        raise UsageProblem(
            f"{text!r} is not a requirement that can be checked: {str(error).splitlines()[0]}",
            where=where,
            expected="NAME, NAME>=VERSION or NAME @ URL",
            hint="write NAME @ URL, so that it is known what to look for" if unnamed else "correct the line",
        ) from None


def read(path: Path) -> list[Want]:
    """Return what `path` asks for, in its order.

    Raises:
        UsageProblem: The file cannot be read, or is of a kind that is not supported.
    """
    if path.name == "pyproject.toml":
        return _project(path)
    if path.suffix in (".yml", ".yaml"):
        raise UsageProblem(
            f"{path.name}: conda environment files are not supported yet",
            where=str(path),
            expected="a requirements file (.txt, .in) or pyproject.toml",
            hint="list the same packages in a requirements file and check that",
        )
    if path.suffix not in (".txt", ".in"):
        raise UsageProblem(
            f"{path.name} is of a kind that cannot be checked",
            where=str(path),
            expected="a requirements file (.txt, .in) or pyproject.toml",
            hint="export it to a requirements file and check that",
        )
    return list(_file(path, constraint=False, seen=set()))


def _text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageProblem(
            f"{path} cannot be read: {reason}", where=where, hint="correct the path or the file's encoding"
        ) from None


def _project(path: Path) -> list[Want]:
    try:
        project = tomllib.loads(_text(path, str(path))).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise UsageProblem(f"{path.name} is not TOML: {error}", where=str(path), hint="correct the file") from None
    listed = project.get("dependencies")
    if not isinstance(listed, list):
        raise UsageProblem(
            f"{path.name} lists no dependencies",
            where=f"{path}: project.dependencies",
            hint="add the list `dependencies` to [project]",
        )
    return [parse(str(text), f"{path.name}: project.dependencies[{index}]") for index, text in enumerate(listed)]


def _file(path: Path, *, constraint: bool, seen: set[Path], where: str = "") -> Iterator[Want]:
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    for number, line in logical_lines(_text(path, where or str(path))):
        here = f"{path.name}:{number}"
        if not line.startswith("-"):
            yield parse(_OPTION.sub("", line).strip(), here, constraint=constraint)
            continue
        included = _included(line, here)
        if included is not None:
            name, as_constraint = included
            yield from _file(path.parent / name, constraint=constraint or as_constraint, seen=seen, where=here)


def _included(line: str, where: str) -> tuple[str, bool] | None:
    """Return the file that an option line includes and whether as constraints; None when it changes nothing."""
    found = re.fullmatch(r"(--[a-z-]+|-[a-zA-Z])(?:\s*=\s*|\s*)(.*)", line, re.DOTALL)
    option, value = found.groups() if found else (line, "")
    if option in _INCLUDE and value:
        words = shlex.split(value)
        if len(words) == 1 and "://" not in words[0]:
            return words[0], _INCLUDE[option]
        raise UsageProblem(f"{value!r} is not one local file", where=where, hint="include a file by its path")
    if option in _FINDING and bool(value) == _FINDING[option]:
        return None
    raise UsageProblem(
        f"{line!r} cannot be checked",
        where=where,
        expected="a requirement, -r FILE, -c FILE, or an option about indexes",
        hint="write an editable install as its plain NAME" if option in ("-e", "--editable") else "remove the line",
    )


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield `(number of its first line, line)` with continuations joined and comments removed, as pip reads them."""
    start, parts = 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        start = start if parts else number
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            parts.append(line[:-1])
            continue
        parts.append(" " + line if is_comment else line)
        joined = re.sub(r"(^|\s)#.*$", "", "".join(parts)).strip()
        parts = []
        if joined:
            yield start, joined
