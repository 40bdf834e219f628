"""Shared libraries that packages of an environment take from outside of it, found without importing anything.

An import proves only what it imports.  Here every extension module and library of the environment is asked which
libraries it needs and where it looks for them; the loader itself is asked only about those that are not found inside.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_multihost_env.provision import abi, elf, elffile, mishaps, pyvenv, records
from pytest_multihost_env.provision.elffile import Elf
from pytest_multihost_env.provision.outside import Outside, owner_of
from pytest_multihost_env.provision.paths import Replacer

_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32")


@dataclasses.dataclass(frozen=True, slots=True)
class Foreign:
    """A file of the environment and a library that it takes from outside."""

    file: Path
    name: str
    path: str


def check(env: Path, replacer: Replacer, outside: Outside) -> list[str]:
    """Make search paths that led to the source lead into `env`, and return a sentence on what comes from the system.

    A library in a directory of the system is noted: a cluster's MPI and a desktop's libGL are on every host or on none.
    One that lies elsewhere is on this host by chance, and noted in `outside`, which refuses it or allows it by name.

    Args:
        env: The environment, its interpreter inside.
        replacer: Knows the old paths.
        outside: Notes what lies elsewhere.
    """
    with mishaps.named("reading shared libraries"):
        read = {file: said for file in abi.candidates(env) if (said := elffile.read(file)) is not None}
        for file, said in read.items():
            fresh = _search_path(file, said, [replacer, *_of_base(env)])
            if fresh is not None:
                elf.set_own_path(file, fresh, inherited=bool(said.rpath))
                records.update(env, {file: file.read_bytes()})
                read[file] = elffile.read(file) or said
    system: dict[str, set[str]] = {}
    for one in foreign(env, read):
        top, owner = _owner(env, one.file)
        if one.path.startswith(tuple(f"{prefix}/" for prefix in _SYSTEM)):
            system.setdefault(owner or top.name, set()).add(one.name)
        else:
            outside.add(top, f"{one.file.relative_to(env)} needs {one.path}", one.path, owner=owner)
    return [
        f"{package} takes from each host's system: {', '.join(sorted(names))}"
        for package, names in sorted(system.items())
    ]


def foreign(env: Path, read: Mapping[Path, Elf]) -> Iterator[Foreign]:
    """Yield the libraries that `read`, the ELF files of `env`, take from outside; the host's own family is left out."""
    listings: dict[str, frozenset[str]] = {}
    asked: dict[Path, set[str]] = {}
    for file, said in read.items():
        for name in said.needed:
            if not elf.stays_on_host(name) and not _is_inside(env, file, said, name, listings):
                asked.setdefault(file, set()).add(name)
    top = os.path.realpath(env)
    for file, need in elf.needs(list(asked)).items():
        for name in sorted(asked[file]):
            path = need.found.get(name)  # one that the loader does not find is loaded by somebody else before, or never
            if path and not Path(os.path.realpath(path)).is_relative_to(top) and not elf.stays_on_host(path):
                yield Foreign(file, name, os.path.realpath(path))


def _is_inside(env: Path, file: Path, said: Elf, name: str, listings: dict[str, frozenset[str]]) -> bool:
    """Whether the search path of `file` finds the library in `env`.

    Without a path for itself alone, a library inherits its loader's: the interpreter looks in `py/lib`.
    """
    places = [part for part in (said.runpath or said.rpath).split(":") if part]
    if not said.runpath:
        places.append(str(env / "py" / "lib"))
    for place in places:
        folder = os.path.normpath(_expanded(place, file))
        if Path(folder).is_relative_to(env):
            if folder not in listings:
                listings[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()  # noqa: PTH208, PTH112
            if name in listings[folder]:
                return True
    return False


def _expanded(place: str, file: Path) -> str:
    """Return an entry of a search path with the loader's words replaced (ld.so(8))."""
    return place.replace("$ORIGIN", str(file.parent)).replace("${ORIGIN}", str(file.parent))


def _of_base(env: Path) -> list[Replacer]:
    """Return what leads from the original interpreter's prefix to the copy; modules built with pyenv's search there."""
    base = pyvenv.read(env / "pyvenv.cfg").get("bundled-from", "")
    return [Replacer(env / "py", [Path(base)])] if base and not base.startswith(_SYSTEM) else []


def _search_path(file: Path, said: Elf, replacers: Sequence[Replacer]) -> str | None:
    """Return the search path of `file` with old paths made relative; None when it has none of them."""
    parts = (said.runpath or said.rpath).split(":")
    fresh = []
    for part in parts:
        new = part
        for replacer in replacers:
            new = replacer.path(new)
        if new.startswith("/") and replacers[0].inside(new):
            new = f"$ORIGIN/{os.path.relpath(new, file.parent)}"
        fresh.append(new)
    return ":".join(fresh) if fresh != parts else None


def _owner(env: Path, file: Path) -> tuple[Path, str]:
    """Return what of the environment `file` belongs to, and the distribution that recorded it."""
    top = file
    for site in records.site_directories(env):
        if file.is_relative_to(site):
            top = site / file.relative_to(site).parts[0]
        if owner := owner_of(Path(os.path.relpath(top, site)), site):
            return top, owner
    return top, ""
