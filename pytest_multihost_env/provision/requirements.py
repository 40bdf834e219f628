"""Reads a requirements file and everything that it leads to, so far as it decides what will be installed.

uv reads it too and is the judge of what it means.  Here: what can be refused with its line before anything is made,
and the digest of all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shlex
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem

_INCLUDE = {"-r", "--requirement", "-c", "--constraint"}
_VALUE = {"-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links", "--no-binary", "--only-binary"}
_VALUE |= {"--trusted-host", "--use-feature"}
_FLAG = {"--no-index", "--require-hashes", "--pre", "--prefer-binary"}
_EACH = {"--hash", "--config-settings", "--config-setting", "--global-option"}
_LOCAL = re.compile(r"^(?:file:|\.{0,2}/|~|[^\s@;]+\.(?:whl|zip|tar\.gz|tar\.bz2|tgz)(?:\s|;|$))")
_REMOTE = re.compile(r"^(?:\w+\+)?(?:https?|ssh|git)://")
_LARGEST = 16 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One logical line: where it begins, and its text without comments and breaks."""

    file: Path
    number: int
    text: str

    def problem(self, what: str, hint: str, expected: str | None = None) -> UsageProblem:
        """Return an error that names this line."""
        return UsageProblem(what, where=f"{self.file}:{self.number}", expected=expected, hint=hint)


@dataclasses.dataclass(slots=True)
class Listed:
    """What a requirements file and its includes say.

    Attributes:
        hashed: Some requirement has a hash, so all must have one.
        read: Every file that decides the outcome, with the sha256 of its content, in the order of reading.
    """

    hashed: bool = False
    read: dict[Path, str] = dataclasses.field(default_factory=dict)

    def digest(self, base: Path) -> str:
        """Return a digest of everything; files are named relative to `base`."""
        text = "".join(f"{os.path.relpath(path, base)}\0{digest}\n" for path, digest in self.read.items())
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read(path: Path) -> Listed:
    """Return what the requirements file `path` says.

    Raises:
        UsageProblem: It, or what it includes, cannot be read or cannot be used; file and line are named.
    """
    listed = Listed()
    _read(path.absolute(), listed, None)
    return listed


def check(lines: Sequence[Line]) -> Listed:
    """Return what `lines`, which stand in a file of another kind, say.

    Raises:
        UsageProblem: One cannot be used.
    """
    listed = Listed()
    for line in lines:
        _check(line, listed, include=True)
    return listed


def is_one(path: Path) -> bool:
    """Whether `path`, whatever its name, holds requirements and nothing else; an empty file says nothing."""
    try:
        lines = list(_lines(path, _text(path, None)))
        for line in lines:
            _check(line, Listed(), include=False)
    except UsageProblem:
        return False
    return bool(lines)


def _read(path: Path, listed: Listed, by: Line | None) -> None:
    if path in listed.read:
        return
    text = _text(path, by)
    listed.read[path] = hashlib.sha256(text.encode()).hexdigest()
    for line in _lines(path, text):
        _check(line, listed, include=True)


def _text(path: Path, by: Line | None) -> str:
    where = str(path) if by is None else f"{by.file}:{by.number}"
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageProblem(
            f"{path} cannot be read: {error.strerror}", where=where, hint="correct the path, or make the file"
        ) from None
    try:
        if len(data) > _LARGEST or b"\0" in data:
            raise ValueError
        return data.decode("utf-8-sig")
    except ValueError:
        raise UsageProblem(f"{path} is not text in UTF-8", where=where, hint="save it as UTF-8") from None


def _lines(path: Path, text: str) -> Iterator[Line]:
    pending, begun = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        comment = re.match(r"\s*#", raw) is not None
        body = raw if comment else raw.removesuffix("\\")
        begun = begun or number
        if not comment:
            pending += body if body == raw else f"{body} "
        if body == raw:
            plain = re.sub(r"(^|\s)#.*$", "", pending).strip()
            if plain:
                yield Line(path, begun, plain)
            pending, begun = "", 0
    if pending.strip():
        yield Line(path, begun, pending.strip())


def _check(line: Line, listed: Listed, *, include: bool) -> None:
    if variable := re.search(r"\$\{[A-Z0-9_]+\}", line.text):
        raise line.problem(
            f"{variable[0]} stands for a variable, and a build is given none of yours",
            "put the account of an index into ~/.netrc, and its URL into UV_DEFAULT_INDEX",
        )
    if line.text.startswith("-"):
        _check_option(line, listed, include=include)
        return
    requirement, *options = re.split(r"\s+(?=--[a-z])", line.text)
    for option in options:
        name = re.split(r"[=\s]", option, maxsplit=1)[0]
        if name not in _EACH:
            raise line.problem(f"{name} is no option of a requirement", "remove it", " or ".join(sorted(_EACH)))
        listed.hashed |= name == "--hash"
    _check_requirement(line, requirement, listed, include=include)


def _check_option(line: Line, listed: Listed, *, include: bool) -> None:
    name, value = _option(line)
    if name in {"-e", "--editable"}:
        raise line.problem(
            "an editable requirement is a link to its directory, which other hosts may see differently or not at all",
            "build a wheel of it (`uv build --wheel DIR`) and name that",
        )
    if name in _FLAG and not value:
        listed.hashed |= name == "--require-hashes"
    elif name in _INCLUDE and value:
        if _REMOTE.match(value):
            raise line.problem(f"{value} is not a file", "download it and name the file")
        if include:
            path = line.file.parent / urllib.parse.unquote(value.removeprefix("file://"))
            _read(Path(os.path.normpath(path)), listed, line)
    elif name not in _VALUE or not value:
        known = sorted((*_INCLUDE, *_VALUE, *_FLAG))
        raise line.problem(f"this is no option of a requirements file: {line.text}", "remove it", " ".join(known))


def _option(line: Line) -> tuple[str, str]:
    try:
        words = shlex.split(line.text)
    except ValueError as error:
        raise line.problem(f"it cannot be split into words: {error}", "close the quote") from None
    name, _, value = words[0].partition("=")
    if re.fullmatch(r"-[a-z].+", name) and not name.startswith("--"):
        name, value = name[:2], name[2:] + (f"={value}" if value else "")
    return name, " ".join([value, *words[1:]] if value else words[1:])


def _check_requirement(line: Line, text: str, listed: Listed, *, include: bool) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    place = text
    if not (_LOCAL.match(text) or _REMOTE.match(text)):
        try:
            place = Requirement(text).url or ""
        except InvalidRequirement as error:
            said = str(error).splitlines()[0]
            raise line.problem(
                f"{text!r} is no requirement: {said}", "correct it", "a requirement as in PEP 508: numpy>=2,<3"
            ) from None
    if include and place and not _REMOTE.match(place):
        _check_file(line, place.partition(";")[0].strip(), listed)


def _check_file(line: Line, place: str, listed: Listed) -> None:
    """Note the content of a distribution that is a file; a directory's cannot be told from what a build makes of it."""
    name = urllib.parse.unquote(urllib.parse.urlsplit(place).path) if place.startswith("file:") else place
    path = Path(os.path.normpath(line.file.parent / os.path.expanduser(name)))  # noqa: PTH111
    if path.is_dir():
        raise line.problem(
            f"{place} is a directory, and what is built from one can change without this file",
            "build a wheel of it (`uv build --wheel DIR`) and name that",
        )
    try:
        with path.open("rb") as file:
            listed.read[path] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise line.problem(f"{path} cannot be read: {error.strerror}", "correct the path, or make the file") from None
