"""The environment of one rank: layers from the weakest to the strongest, each decision with its reason.

passthrough < managed < configured (file, then `--multihost-env`) < global_env < host < rank < env_overrides < marker.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pytest_multihost_env.config import Assignment
from pytest_multihost_env.environ.rules import Rules, Wanted
from pytest_multihost_env.environ.special import never_automatic, runs_code
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import RankEnv, Variable
from pytest_multihost_env.names import same_host, valid_variable

MOST_BYTES_OF_ONE: Final = 128 * 1024
"""Linux refuses a longer `NAME=VALUE` with its end (execve(2), MAX_ARG_STRLEN)."""
MOST_BYTES_OF_ALL: Final = 1536 * 1024
"""Less than the 2 MiB that execve(2) grants to arguments and environment together with a stack of 8 MiB."""

_AS_IN_SHELL: Final = ("LANG", "LANGUAGE", "TZ", "TERM", "PYTHONPATH")
_BUILT_IN: Final = "built-in"


def rank_env(
    rules: Rules,
    launch: Mapping[str, str],
    *,
    prefix: Path | None,
    host: str,
    rank: int,
    marker: Mapping[str, str],
) -> RankEnv:
    """Return every variable that a rule speaks about, sorted by name, with the decision and its reason.

    Args:
        rules: What profiles and settings say.
        launch: The environment of the shell that pytest was started in.
        prefix: The provisioned environment, or None: the ranks run the controller's Python.
        host: Name of the rank's host.
        rank: Number of the rank.
        marker: Variables that the test sets.

    Raises:
        UsageProblem: A value is larger than 128 KiB, or all together are larger than 1.5 MiB.
    """
    decided = {variable.name: variable for variable in _automatic(rules, launch)}
    layers = (
        _managed(launch, prefix),
        _defaults(rules, launch),
        (_bound(change, "rank binding") for change in rules.binding.derived.get(rank, ())),
        (_assigned(change, "for all ranks") for change in rules.configured),
        _wanted(rules.wanted, launch, decided),
        (_bound(change, "global_env") for change in rules.binding.everywhere),
        _for_host(rules, host),
        (_assigned(change, f"for rank {rank}") for change in rules.ranks.get(rank, ())),
        (_bound(change, "env_overrides") for change in rules.binding.ranks.get(rank, ())),
        (Variable(name, value, "SET", "env of the test", "marker") for name, value in marker.items()),
    )
    for layer in layers:
        for variable in layer:
            decided[variable.name] = variable
    _guard_size(decided.values())
    return RankEnv(tuple(decided[name] for name in sorted(decided)))


def _automatic(rules: Rules, launch: Mapping[str, str]) -> Iterator[Variable]:
    for name, value in launch.items():
        passing = rules.passing(name)
        blocking = rules.blocking(name, passing)
        exactly = passing is not None and passing.yours and passing.text == name
        reason = None if exactly else never_automatic(name)
        if blocking:
            yield Variable(name, None, "BLOCKED", f"block {blocking.text}", blocking.origin)
        elif reason:
            # What nobody would have passed is not worth a line, but for what could have done harm.
            if passing or runs_code(name):
                yield Variable(name, None, "BLOCKED", reason, _BUILT_IN)
        elif passing and not valid_variable(name):
            yield Variable(name, None, "BLOCKED", "not a variable name", _BUILT_IN)
        elif passing:
            text = f"{'name' if passing.text == name else 'prefix'} {passing.text}" if passing.text else "all:"
            yield Variable(name, value, "PASSED", text, passing.origin)


def _managed(launch: Mapping[str, str], prefix: Path | None) -> Iterator[Variable]:
    def managed(name: str, value: str, why: str) -> Variable:
        status = "PASSED" if launch.get(name) == value else "SET"
        return Variable(name, value, status, f"managed: {why}", _BUILT_IN)

    if prefix is None:
        yield managed("PATH", _joined(launch.get("PATH", os.defpath)), "as in the launch shell")
        for name in ("VIRTUAL_ENV", "PYTHONNOUSERSITE"):
            if launch.get(name):
                yield managed(name, launch[name], "as in the launch shell")
    else:
        yield managed("PATH", _path(launch, prefix), "the environment's programs first")
        yield managed("VIRTUAL_ENV", str(prefix), "the environment")
        yield managed("PYTHONNOUSERSITE", "1", "nothing from outside the environment")
    for name in ("HOME", "USER"):
        if launch.get(name):
            yield managed(name, launch[name], "as in the launch shell")
    for name in launch:
        if name in _AS_IN_SHELL or name.startswith("LC_"):
            yield managed(name, launch[name], "as in the launch shell")
    # An empty element would mean the current directory (ld.so(8)).
    if libraries := _joined(launch.get("LD_LIBRARY_PATH", "")):
        yield managed("LD_LIBRARY_PATH", libraries, "as in the launch shell, without empty elements")


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


def _assigned(change: Assignment, whom: str) -> Variable:
    if change.value is None:
        return Variable(change.name, None, "UNSET", f"unset {whom}", change.origin)
    return Variable(change.name, change.value, "SET", f"set {whom}", change.origin)


def _bound(change: Assignment, rule: str) -> Variable:
    return Variable(change.name, change.value, "UNSET" if change.value is None else "SET", rule, change.origin)


def _defaults(rules: Rules, launch: Mapping[str, str]) -> Iterator[Variable]:
    """Yield what tt-run sets where the shell has nothing to pass."""
    known = {**launch, "cwd": str(rules.binding.cwd)}
    for name, template, origin in rules.defaults:
        # One that is blocked never comes from the shell, so that it is always the default.
        if launch.get(name) and rules.blocking(name, rules.passing(name)) is None:
            continue
        known[name] = template.format_map(known)
        yield Variable(name, known[name], "SET", "managed: default with a rank binding", origin)


def _wanted(wanted: Iterable[Wanted], launch: Mapping[str, str], decided: Mapping[str, Variable]) -> Iterator[Variable]:
    for one in wanted:
        if one.value is not None:
            yield Variable(one.name, one.value, "SET", "named with a value", one.origin)
        elif one.name in launch:
            yield Variable(one.name, launch[one.name], "PASSED", "named", one.origin)
        elif one.name not in decided:
            yield Variable(one.name, None, "UNSET", "named, but not set in the launch shell", one.origin)


def _for_host(rules: Rules, host: str) -> Iterator[Variable]:
    for name, changes in rules.hosts.items():
        if same_host(name, host):
            for change in changes:
                yield _assigned(change, f"for host {name}")


def _size(name: str, value: str, variable: Variable) -> int:
    try:
        return len(f"{name}={value}".encode("utf-8", "surrogateescape")) + 1
    except UnicodeEncodeError:
        raise UsageProblem(
            f"the value of {name} is not text",
            where=variable.origin,
            expected="characters that can be encoded",
            hint="remove lone surrogates from it",
        ) from None


def _guard_size(variables: Iterable[Variable]) -> None:
    sizes = {one: _size(one.name, one.value, one) for one in variables if one.value is not None}
    if not sizes:
        return
    largest = max(sizes, key=lambda variable: sizes[variable])
    if sizes[largest] > MOST_BYTES_OF_ONE:
        raise UsageProblem(
            f"{largest.name} has {sizes[largest]} bytes, too many for a process to be started with",
            where=f"{largest.rule} ({largest.origin})",
            expected=f"at most {MOST_BYTES_OF_ONE} bytes for one variable",
            hint="put the value into a file and pass its path",
        )
    if sum(sizes.values()) > MOST_BYTES_OF_ALL:
        raise UsageProblem(
            f"the variables of a rank have {sum(sizes.values())} bytes together;"
            f" the largest is {largest.name} with {sizes[largest]}",
            where=f"{largest.rule} ({largest.origin})",
            expected=f"at most {MOST_BYTES_OF_ALL} bytes for all variables",
            hint=f"block {largest.name}, or pass fewer variables",
        )
