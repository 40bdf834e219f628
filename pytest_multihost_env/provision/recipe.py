"""What a build consists of: one builder, and the steps that make its tree an environment that moves and is proven."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import OUTSIDE
from pytest_multihost_env.protocols import Builder, TakesPython, Work

if TYPE_CHECKING:
    from pytest_multihost_env.provision.job import ProvisionRequest
    from pytest_multihost_env.provision.outside import Outside
    from pytest_multihost_env.provision.paths import Replacer

Finish = Callable[[Path, Path, Work], tuple[str, ...]]
"""`finish(env, source, work)` completes a built tree in place; returns the distributions that it added."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How to make an environment.

    Attributes:
        builder: Puts the tree there.
        finish: Bundles, relocates, adds, proves; raises `NotReady` when the result is no good.
        options: What else decides the outcome; part of the environment's key.
    """

    builder: Builder
    finish: Finish
    options: tuple[str, ...] = ()


def choose(source: Path, builders: Iterable[Builder]) -> Builder:
    """Return the first builder that can make an environment from `source`.

    Raises:
        UsageProblem: None can; it lists what each said.
    """
    refusals = []
    for builder in builders:
        refusal = builder.refuses(source)
        if refusal is None:
            return builder
        refusals.append((builder.name, refusal))
    if len(refusals) == 1:
        raise UsageProblem(refusals[0][1], where=str(source), hint="make one with `python -m venv`, or name another")
    raise UsageProblem(
        "no builder can make an environment from this source",
        where=str(source),
        expected="\n".join(f"{name}: {refusal}" for name, refusal in refusals),
        hint="name a virtual environment, a packed one, a requirements file, a lock or an environment.yml",
    )


def standard(source: Path, request: ProvisionRequest, builders: Iterable[Builder] | None = None) -> Recipe:
    """Return the recipe for `source`: build, add what `request` asks for, bundle, relocate, prove.

    Args:
        source: What to build from.
        request: What else is wanted.
        builders: Who may build, in the order in which they are asked; None: those of this package.

    Raises:
        UsageProblem: No builder can use `source`, or something else that is wanted cannot be.
    """
    from pytest_multihost_env.provision import remembered, requirements
    from pytest_multihost_env.provision.builders import built_in
    from pytest_multihost_env.provision.outside import plain

    builder = choose(source, built_in() if builders is None else builders)
    if request.python is not None:
        builder = _with_python(builder, request.python, source)
    directory = request.directory or source.parent
    options = (
        *request.overlay,
        remembered.identity(request.overlay),
        *(requirements.read(file).digest(directory) for file in request.requirements),
        *(json.dumps(command) for command in request.setup),
        *(f"allow-outside {name}" for name in sorted(map(plain, request.allow_outside))),
    )
    return Recipe(builder, _finishing(request, directory), options)


def _with_python(builder: Builder, python: str, source: Path) -> Builder:
    if not isinstance(builder, TakesPython):
        raise UsageProblem(
            f"the setting python names {python}, and {source} brings its own",
            where="python",
            hint="leave it out: it is for requirements and lock files",
        )
    return builder.using(python)


def _finishing(request: ProvisionRequest, directory: Path) -> Finish:
    def finish(env: Path, source: Path, work: Work) -> tuple[str, ...]:
        from pytest_multihost_env.provision import abi, bundle, relocate
        from pytest_multihost_env.provision import overlay as adding
        from pytest_multihost_env.provision.outside import Outside

        outside = Outside(request.allow_outside)
        with _stage("finishing", work):
            python = env / "bin" / "python"
            abi.record(env, [*abi.candidates(env), Path(os.path.realpath(python))], work.facts)  # before it is run
            work.notes.extend(bundle.bundle_interpreter(env).notes)
            abi.record(env, abi.candidates(env / "py"), work.facts)
            old = relocate.replacer_for(env, source)
            relocate.relocate(env, source, outside)
        _complete(env, request, directory, work)
        with _stage("finishing", work):
            if request.requirements or request.setup:  # they may have brought anything
                relocate.relocate(env, source, outside)
                abi.record(env, abi.candidates(env), work.facts)
            added = adding.add_missing(env, python, request.overlay)
            _search(env, old, outside, work)
        _prove(env, source, outside, work)
        return added

    return finish


def _search(env: Path, old: Replacer, outside: Outside, work: Work) -> None:
    """Look through the files for what no import would show, mend it, and tell what stays."""
    from pytest_multihost_env.provision import leftovers, libraries

    for note in (*libraries.check(env, old, outside), *leftovers.mend(env, old)):
        work.notes.append(note)
        work.notify(note)
    outside.check()


def _prove(env: Path, source: Path, outside: Outside, work: Work) -> None:
    from pytest_multihost_env.provision import bytecode, hermetic

    if compiled := bytecode.complete(env, work):
        work.notes.append(f"{compiled} modules had no valid bytecode and were compiled")
    with _stage("proving", work):
        proof = hermetic.prove(env, original=source, allowed=outside.paths)
    if proof.in_sight:
        work.notes.append(proof.in_sight)
    _tell(outside, work)


def _tell(outside: Outside, work: Work) -> None:
    """Record what is imported from outside, as allowed, and tell it."""
    if outside.paths:
        work.facts[OUTSIDE] = json.dumps(outside.paths)
    work.notes.extend(outside.notes)
    for note in outside.notes:
        work.notify(note)


def _complete(env: Path, request: ProvisionRequest, directory: Path, work: Work) -> None:
    """Do what `request` wants to be done inside of the environment."""
    from pytest_multihost_env.provision import commands, uv

    for file in request.requirements:
        uv.add(env, file, work)
    commands.run(request.setup, env, directory, work)


@contextlib.contextmanager
def _stage(name: str, work: Work) -> Iterator[None]:
    work.progress.begin(name)
    try:
        yield
    finally:
        work.progress.end()
