"""What the hosts answered, as values; and the request that they answer."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_multihost_env.model import Command, Completed

_ANSWER = '{"asked"'  # the program sorts its keys, and prints one line


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """What a distribution's metadata says.

    Attributes:
        version: Its version, as written.
        files: Digest over the digests in RECORD; None when there is no RECORD.
        commit: The commit of an install from version control, or None.
        location: The directory that it is installed in.
        hidden: `version in directory` of others of the same name, later on `sys.path`.
    """

    version: str
    files: str | None = None
    commit: str | None = None
    location: str = ""
    hidden: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """What importing a module gave.

    Attributes:
        version: Its `__version__`, or None.
        file: Where it came from; None for a built-in one.
        origin: `environment`, `stdlib`, `builtin`, `editable`, `misplaced` or `outside`.
        error: Why it could not be imported; None when it could.
        output: The end of what it printed; only kept with an error.
        distributions: Who claims to own it.
    """

    version: str | None = None
    file: str | None = None
    origin: str = "environment"
    error: str | None = None
    output: str = ""
    distributions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Library:
    """A shared library that was mapped after the imports, and the modules that mapped it."""

    family: str
    path: str
    build_id: str | None = None
    modules: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its file name and the start of its build id, which together say whether two hosts have the same."""
        name = Path(self.path).name
        return f"{name} ({self.build_id[:8]})" if self.build_id else name


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a host understood by one asked name."""

    distributions: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer of one host.  Names of distributions are in their normal form (PEP 503)."""

    platform: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    markers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variables: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    asked: Mapping[str, Asked] = dataclasses.field(default_factory=dict)
    declared: Mapping[str, Declared] = dataclasses.field(default_factory=dict)
    modules: Mapping[str, Imported] = dataclasses.field(default_factory=dict)
    loaded: tuple[Library, ...] = ()
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Unanswered:
    """A host that gave no usable answer.  `reached` says whether the program ran there at all."""

    reason: str
    reached: bool = False


Answers = Mapping[str, Snapshot | Unanswered]


def request(
    packages: Sequence[str] = (),
    imports: Sequence[str] = (),
    *,
    variables: Sequence[str] = (),
    layers: Sequence[str] = ("declared", "imported", "loaded"),
) -> dict[str, Any]:
    """Return what to ask every host; all distributions, and no imports, when nothing is named."""
    return {
        "packages": list(packages),
        "imports": list(imports),
        "all_packages": not packages and not imports,
        "variables": list(variables),
        "layers": list(layers),
        # With it, hashes of secrets can be compared, but not looked up; without secrets, equal requests stay equal.
        "salt": secrets.token_hex(16) if variables else "",
    }


def command(python: Path, wanted: Mapping[str, object]) -> Command:
    """Return what a host runs to answer the request `wanted` with the interpreter `python`."""
    program = Path(__file__).with_name("snapshot.py")
    return Command(argv=(str(python), "-P", str(program)), stdin=json.dumps(dict(wanted)))


def understood(completed: Completed) -> Snapshot | Unanswered:
    """Return what a host said.  Only a clean end with a whole answer counts as one."""
    if completed.error is not None:
        return Unanswered(completed.error)
    if completed.code != 0:
        return Unanswered(f"the check ended with code {completed.code}{_tail(completed.stderr)}", reached=True)
    # What `sitecustomize` or a `.pth` file prints comes before the program can turn stdout away.
    lines = [line for line in completed.stdout.splitlines() if line.startswith(_ANSWER)]
    if not lines:
        return Unanswered(f"the check printed no answer{_tail(completed.stderr)}", reached=True)
    try:
        return _snapshot(json.loads(lines[-1]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return Unanswered(f"the check's answer is not readable: {type(error).__name__}: {error}", reached=True)


def _tail(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f": {lines[-1]}" if lines else ""


def _snapshot(data: Mapping[str, Any]) -> Snapshot:
    if data["multihost_snapshot"] != 1:
        raise ValueError(f"version {data['multihost_snapshot']!r} of the answer is not known here")
    return Snapshot(
        platform=dict(data["platform"]),
        markers=dict(data["markers"]),
        variables=dict(data["variables"]),
        asked={n: Asked(tuple(a["distributions"]), tuple(a["modules"])) for n, a in data["asked"].items()},
        declared={name: _declared(value) for name, value in data["declared"].items()},
        modules={name: _imported(value) for name, value in data["modules"].items()},
        loaded=tuple(Library(v["family"], v["path"], v["build_id"], tuple(v["modules"])) for v in data["loaded"]),
        problems=tuple(data["problems"]),
    )


def _declared(value: Mapping[str, Any]) -> Declared:
    return Declared(
        version=value["version"],
        files=value["files"],
        commit=value["commit"],
        location=value["location"],
        hidden=tuple(f"{h['version']} in {h['location']}" for h in value["hidden"]),
    )


def _imported(value: Mapping[str, Any]) -> Imported:
    """An import counts as done only when the host says so in as many words."""
    error = None if value["ok"] is True else str(value.get("error") or "no reason given")
    return Imported(
        version=value.get("version"),
        file=value.get("file"),
        origin=value["origin"],
        error=error,
        output=value.get("output", ""),
        distributions=tuple(value["distributions"]),
    )
