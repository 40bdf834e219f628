"""The environment of one rank: layers from the weakest to the strongest, each decision with its reason.

passthrough < managed < caches of the host < identity < secrets of the shell < rank binding's own < .env
< configured (file, then `--multihost-env`) < global_env < host < rank < env_overrides < marker; then chosen paths are made the rank's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pytest_multihost_env.config import Assignment, Item
from pytest_multihost_env.environ.managed import BUILT_IN, identity, managed
from pytest_multihost_env.environ.rules import Rules, Wanted
from pytest_multihost_env.environ.scoped import scoped
from pytest_multihost_env.environ.secrecy import hidden, in_file, withheld
from pytest_multihost_env.environ.special import never_automatic, runs_code
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Place, RankEnv, Secret, Variable
from pytest_multihost_env.names import same_host, valid_variable

MOST_BYTES_OF_ONE: Final = 128 * 1024
"""Linux refuses a longer `NAME=VALUE` with its end (execve(2), MAX_ARG_STRLEN)."""
MOST_BYTES_OF_ALL: Final = 1536 * 1024
"""Less than the 2 MiB that execve(2) grants to arguments and environment together with a stack of 8 MiB."""


def rank_env(
    rules: Rules,
    launch: Mapping[str, str],
    *,
    prefix: Path | None,
    spot: Place,
    size: int,
    marker: Mapping[str, str | None],
) -> RankEnv:
    """Return every variable that a rule speaks about, sorted by name, with the decision and its reason.

    Args:
        rules: What profiles and settings say.
        launch: The environment of the shell that pytest was started in.
        prefix: The provisioned environment, or None: the ranks run the controller's Python.
        spot: The rank and its host.
        size: Number of ranks.
        marker: Variables that the test sets, or (None) has absent.

    Raises:
        UsageProblem: A value is larger than 128 KiB, or all together are larger than 1.5 MiB; a path cannot be made
            the rank's own; or a secret has no value.
    """
    rank = spot.rank
    decided = {variable.name: variable for variable in _automatic(rules, launch)}
    caches = {item.value: _cache(item) for item in rules.caches}
    layers = (
        managed(rules, launch, prefix),
        caches.values(),
        identity(spot, size),
        _secrets(rules, launch),
        (_bound(change, "rank binding") for change in rules.binding.derived.get(rank, ())),
        (_bound(change, ".env") for change in rules.dotenv.entries),
        (_assigned(change, "for all ranks") for change in rules.configured),
        _wanted(rules.wanted, launch, decided),
        (_bound(change, "global_env") for change in rules.binding.everywhere),
        _for_host(rules, spot.host),
        (_assigned(change, f"for rank {rank}") for change in rules.ranks.get(rank, ())),
        (_bound(change, "env_overrides") for change in rules.binding.ranks.get(rank, ())),
        (_bound(Assignment(name, value, "marker"), "env of the test") for name, value in marker.items()),
        scoped(rules.scoped, decided, spot),
    )
    for layer in layers:
        for variable in layer:
            decided[variable.name] = variable
    decided |= {variable.name: variable for variable in _kept(rules, decided)}
    for item in rules.secrets:
        found = decided.get(item.value)
        decided[item.value] = hidden(item, found) if item.value in rules.given else withheld(item)
    # Whoever sets one on purpose has it so.
    left = [one for name, one in caches.items() if decided[name] is one]
    for one in left:
        del decided[one.name]
    _guard_size(decided.values())
    files = dict(_into_files(rules, decided))
    caches_there = {one.name: one.origin for one in left}
    return RankEnv(tuple(decided[name] for name in sorted(decided)), files, caches_there)


def _cache(item: Item) -> Variable:
    return Variable(item.value, None, "SET", "local-caches", item.origin)


def _into_files(rules: Rules, decided: dict[str, Variable]) -> Iterator[tuple[str, Secret]]:
    """Yield what goes into files by the variable of the path; `decided` then says so instead."""
    for name in sorted(rules.in_files):
        one = decided[name]
        if isinstance(one.value, Secret):
            path = f"{name}_FILE"
            yield path, in_file(one.value)
            decided[name] = dataclasses.replace(one, value=None, status="UNSET", rule=f"its file's path is in {path}")
            decided.pop(path, None)


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
                yield Variable(name, None, "BLOCKED", reason, BUILT_IN)
        elif passing and not valid_variable(name):
            yield Variable(name, None, "BLOCKED", "not a variable name", BUILT_IN)
        elif passing:
            text = f"{'name' if passing.text == name else 'prefix'} {passing.text}" if passing.text else "all:"
            yield Variable(name, value, "PASSED", text, passing.origin)


def _assigned(change: Assignment, whom: str) -> Variable:
    if change.value is None:
        return Variable(change.name, None, "UNSET", f"unset {whom}", change.origin)
    return Variable(change.name, change.value, "SET", f"set {whom}", change.origin)


def _bound(change: Assignment, rule: str) -> Variable:
    return Variable(change.name, change.value, "UNSET" if change.value is None else "SET", rule, change.origin)


def _wanted(wanted: Iterable[Wanted], launch: Mapping[str, str], decided: Mapping[str, Variable]) -> Iterator[Variable]:
    for one in wanted:
        if one.value is not None:
            yield Variable(one.name, one.value, "SET", "named with a value", one.origin)
        elif one.name in launch:
            yield Variable(one.name, launch[one.name], "PASSED", "named", one.origin)
        elif one.name not in decided:
            yield Variable(one.name, None, "UNSET", "named, but not set in the launch shell", one.origin)


def _secrets(rules: Rules, launch: Mapping[str, str]) -> Iterator[Variable]:
    for item in rules.secrets:
        if launch.get(item.value):
            yield Variable(item.value, launch[item.value], "PASSED", "secret", item.origin)


def _kept(rules: Rules, decided: Mapping[str, Variable]) -> Iterator[Variable]:
    """Yield what the `.env` file holds back, unless another layer speaks about it."""
    for one in rules.dotenv.kept:
        if one.name not in decided or decided[one.name].value is None:
            rule = ".env: looks like a secret, and secrets does not name it"
            yield Variable(one.name, None, "BLOCKED", rule, one.origin)


def _for_host(rules: Rules, host: str) -> Iterator[Variable]:
    for name, changes in rules.hosts.items():
        if same_host(name, host, rules.host_suffixes):
            for change in changes:
                yield _assigned(change, f"for host {name}")


def _size(name: str, value: str, variable: Variable) -> int:
    try:
        return len(name) + len(value.encode("utf-8", "surrogateescape")) + len("=") + 1
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
