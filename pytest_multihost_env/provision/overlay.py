"""Adds to an environment the distributions that it lacks, from the environment that runs this process."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import ask, donor

if TYPE_CHECKING:
    from packaging.requirements import Requirement


_FOR_BUILDERS = frozenset({"backports-zstd", "blake3"})
"""What only a process that builds or verifies uses: the environment's Python may be one that it has no wheel for."""
_TO_VERIFY = "blake3"
"""With it an environment can be verified from within; it comes along where the environment's Python can load it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Want:
    """A requirement and who has it."""

    requirement: Requirement
    by: str


def add_missing(env: Path, python: Path, wanted: Sequence[str]) -> tuple[str, ...]:
    """Make the requirements `wanted`, and what they require, importable in `env`; return what was added.

    What `env` has in a version that will do is left alone.  Files are copied from this process's own environment,
    also for a distribution that is installed editable there.

    Args:
        env: The environment, at its final absolute path.
        python: Its interpreter.
        wanted: Requirements (PEP 508), `pytest-multihost-env`.

    Returns:
        `name version` of each distribution that was added, sorted: `("pytest 9.2.0", ...)`.

    Raises:
        NotReady: `env` has a distribution in a version that will not do, or one cannot be copied.
    """
    there = ask.interpreter(python, ["packages"])
    left_out = _FOR_BUILDERS - {_TO_VERIFY} if there["suffix"] == EXTENSION_SUFFIXES[0] else _FOR_BUILDERS
    missing = missing_distributions(there, wanted, left_out)
    added = [donor.copy(missing[name], env, there) for name in sorted(missing)]
    donor.finish(env, python, added)
    return tuple(item.label for item in added)


def identity(wanted: Sequence[str]) -> str:
    """Return a digest that changes when what `add_missing` would copy does: part of a generation's key.

    An installed distribution is known by its version and by what RECORD says of its modules; scripts and metadata are
    written anew in each environment, and pytest inside a generation must find the key that made it.  An editable
    one is known by its files' sizes and times.
    """
    digest = hashlib.sha256()
    here = ask_here()
    for name, dist in sorted(missing_distributions({**here, "distributions": {}}, wanted).items()):
        lines = (dist.read_text("RECORD") or "").splitlines()
        record = "\n".join(sorted(line for line in lines if line.partition(",")[0].endswith((".py", ".so"))))
        digest.update(f"{name}\0{dist.version}\0{record}\0".encode("utf-8", "surrogateescape"))
        for line in donor.editable_stamp(dist):
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def is_editable(wanted: Sequence[str]) -> bool:
    """Return whether any of what `add_missing` would copy is installed editable."""
    found = missing_distributions({**ask_here(), "distributions": {}}, wanted)
    return any(True for dist in found.values() for _ in donor.editable_stamp(dist))


def ask_here() -> dict[str, Any]:
    """Return what this interpreter says about itself, as `ask.interpreter` would."""
    from pytest_multihost_env.provision import inside

    return inside.packages()


def missing_distributions(
    there: Mapping[str, Any], wanted: Sequence[str], left_out: frozenset[str] = _FOR_BUILDERS
) -> dict[str, importlib.metadata.Distribution]:
    """Return, by normalised name, the distributions of this process that `there` lacks for `wanted`, but for those `left_out`.

    Raises:
        NotReady: A version is wrong there or here, or a distribution is missing here.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    present = {canonicalize_name(name): tuple(value) for name, value in there["distributions"].items()}
    missing: dict[str, importlib.metadata.Distribution] = {}
    todo = [Want(Requirement(text), "this run") for text in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        want = todo.pop()
        name = canonicalize_name(want.requirement.name)
        if name in left_out:
            continue
        key = (name, frozenset(want.requirement.extras))
        if name in present:
            version, requires = present[name]
            _check(want, version, where="the environment")
            known = True
        else:
            dist = missing.get(name) or _own(want)
            _check(want, dist.version, where="the Python that runs pytest")
            _check_python(dist, there["marker"])
            missing[name] = dist
            version, requires, known = dist.version, dist.requires or [], False
        if key not in seen:
            seen.add(key)
            todo.extend(_required(name, requires, want.requirement.extras, there["marker"], only_extras=known))
    return missing


def _own(want: Want) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(want.requirement.name)
    except importlib.metadata.PackageNotFoundError:
        raise NotReady(
            f"{want.requirement.name} is installed neither in the environment nor beside this program",
            where=f"required by {want.by}",
            expected=str(want.requirement),
            hint=f"install it into SOURCE: pip install '{want.requirement}'",
        ) from None


def _check(want: Want, version: str, *, where: str) -> None:
    from packaging.version import InvalidVersion

    specifier = want.requirement.specifier
    with contextlib.suppress(InvalidVersion):  # what is no version satisfies no specifier
        if not specifier or specifier.contains(version, prereleases=True):
            return
    raise NotReady(
        f"{where} has {want.requirement.name} {version}, which {want.by} cannot use",
        where=want.requirement.name,
        expected=f"{want.requirement.name}{want.requirement.specifier}",
        hint=f"pip install '{want.requirement.name}{want.requirement.specifier}' in SOURCE",
    )


def _check_python(dist: importlib.metadata.Distribution, marker: Mapping[str, str]) -> None:
    from packaging.specifiers import SpecifierSet

    needed = dist.metadata.json.get("requires_python")
    python = marker["python_full_version"]
    if isinstance(needed, str) and not SpecifierSet(needed).contains(python, prereleases=True):
        raise NotReady(
            f"the environment's Python is {python}, and {dist.name} {dist.version} needs {needed}",
            where=dist.name,
            expected=f"Python {needed}",
            hint=f"make SOURCE with such a Python, or install a version of {dist.name} there that supports {python}",
        )


def _required(
    name: str, requires: Sequence[str], extras: set[str], marker: Mapping[str, str], *, only_extras: bool
) -> Iterator[Want]:
    """Yield what a distribution requires there; of one that is there already, only what the extras add."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            if only_extras:  # another package's old metadata
                continue
            raise NotReady(
                f"{name} requires {text!r}, which is no requirement",
                where=name,
                hint=f"install a newer version of {name}",
            ) from None
        plain = requirement.marker is None or requirement.marker.evaluate({**marker, "extra": ""})
        extra = requirement.marker is not None and any(
            requirement.marker.evaluate({**marker, "extra": extra}) for extra in extras
        )
        if (extra and not plain) or (plain and not only_extras):
            yield Want(requirement, name)
