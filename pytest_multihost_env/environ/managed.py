"""The managed layer: what a rank needs to run in its environment, and who it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pytest_multihost_env.environ.rules import Rules
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Place, Variable

BUILT_IN: Final = "built-in"
_AS_IN_SHELL: Final = ("LANG", "LANGUAGE", "TZ", "TERM", "PYTHONPATH")


def managed(rules: Rules, launch: Mapping[str, str], prefix: Path | None) -> Iterator[Variable]:
    """Yield the variables that are managed here, a later one instead of an earlier one of the same name.

    Args:
        rules: What profiles and settings say.
        launch: The environment of the shell that pytest was started in.
        prefix: The environment that the ranks run in; None: nobody has provisioned one.

    Raises:
        UsageProblem: The path of the environment cannot stand in PATH.
    """
    yield from _base(launch, prefix)
    defaults = tuple(_defaults(rules, launch))
    yield from defaults
    # An empty element would mean the current directory (ld.so(8)).
    old = _joined(launch.get("LD_LIBRARY_PATH", ""))
    if rules.lib_first and prefix is not None:
        own = str(prefix / "lib")
        following = old or next((one.value or "" for one in defaults if one.name == "LD_LIBRARY_PATH"), "")
        kept = [element for element in following.split(os.pathsep) if element not in ("", own)]
        path = os.pathsep.join([own, *kept])
        yield _as_is(launch, "LD_LIBRARY_PATH", path, "the environment's libraries first")
    elif old:
        yield _as_is(launch, "LD_LIBRARY_PATH", old, "as in the launch shell, without empty elements")


def identity(spot: Place, size: int) -> Iterator[Variable]:
    """Yield who a rank is, under names that every launcher has in common."""
    values = {
        "MULTIHOST_RANK": str(spot.rank),
        "MULTIHOST_LOCAL_RANK": str(spot.local_rank),
        "MULTIHOST_WORLD_SIZE": str(size),
        "MULTIHOST_HOST": spot.host,
    }
    return (Variable(name, value, "SET", "identity of the rank", BUILT_IN) for name, value in values.items())


def _as_is(launch: Mapping[str, str], name: str, value: str, why: str) -> Variable:
    status = "PASSED" if launch.get(name) == value else "SET"
    return Variable(name, value, status, f"managed: {why}", BUILT_IN)


def _base(launch: Mapping[str, str], prefix: Path | None) -> Iterator[Variable]:
    if prefix is None:
        yield _as_is(launch, "PATH", _joined(launch.get("PATH", os.defpath)), "as in the launch shell")
        for name in ("VIRTUAL_ENV", "PYTHONNOUSERSITE"):
            if launch.get(name):
                yield _as_is(launch, name, launch[name], "as in the launch shell")
    else:
        yield _as_is(launch, "PATH", _path(launch, prefix), "the environment's programs first")
        yield _as_is(launch, "VIRTUAL_ENV", str(prefix), "the environment")
        yield _as_is(launch, "PYTHONNOUSERSITE", "1", "nothing from outside the environment")
    for name in ("HOME", "USER"):
        if launch.get(name):
            yield _as_is(launch, name, launch[name], "as in the launch shell")
    for name in launch:
        if name in _AS_IN_SHELL or name.startswith("LC_"):
            yield _as_is(launch, name, launch[name], "as in the launch shell")


def _joined(paths: str) -> str:
    return os.pathsep.join(element for element in paths.split(os.pathsep) if element)


def _path(launch: Mapping[str, str], prefix: Path) -> str:
    if os.pathsep in str(prefix):
        raise UsageProblem(
            "the path of the environment contains a colon, which PATH cannot hold",
            where=str(prefix),
            hint="put it elsewhere with --multihost-target",
        )
    programs = str(prefix / "bin")
    # The environment that the shell had activated is not the one that the ranks run.
    foreign = {programs, str(Path(launch["VIRTUAL_ENV"], "bin"))} if launch.get("VIRTUAL_ENV") else {programs}
    kept = [one for one in launch.get("PATH", os.defpath).split(os.pathsep) if one and one.rstrip("/") not in foreign]
    return os.pathsep.join([programs, *kept])


def _defaults(rules: Rules, launch: Mapping[str, str]) -> Iterator[Variable]:
    """Yield what tt-run sets where the shell has nothing to pass."""
    known = {**launch, "cwd": str(rules.binding.cwd)}
    for name, template, origin in rules.defaults:
        # One that is blocked never comes from the shell, so that it is always the default.
        if launch.get(name) and rules.blocking(name, rules.passing(name)) is None:
            continue
        known[name] = template.format_map(known)
        yield Variable(name, known[name], "SET", "managed: default with a rank binding", origin)
