"""What a build consists of: one builder, and the steps that make its tree an environment that moves and is proven."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.protocols import Builder, Work

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
        hint="name a virtual environment",
    )


def standard(source: Path, overlay: Sequence[str], builders: Iterable[Builder] | None = None) -> Recipe:
    """Return the recipe for `source`: build, bundle the interpreter, relocate, add `overlay`, prove.

    Args:
        source: What to build from.
        overlay: Requirements that the environment gets when it lacks them.
        builders: Who may build, in the order in which they are asked; None: those of this package.

    Raises:
        UsageProblem: No builder can use `source`.
    """
    from pytest_multihost_env.provision import overlay as adding
    from pytest_multihost_env.provision.builders import built_in

    builder = choose(source, built_in() if builders is None else builders)
    return Recipe(builder, _finishing(tuple(overlay)), (*overlay, adding.identity(overlay)))


def _finishing(overlay: tuple[str, ...]) -> Finish:
    def finish(env: Path, source: Path, work: Work) -> tuple[str, ...]:
        from pytest_multihost_env.provision import abi, bundle, bytecode, hermetic, relocate
        from pytest_multihost_env.provision import overlay as adding

        work.progress.begin("finishing")
        try:
            python = env / "bin" / "python"
            abi.record(env, [*abi.candidates(env), Path(os.path.realpath(python))], work.facts)  # before it is run
            work.notes.extend(bundle.bundle_interpreter(env).notes)
            abi.record(env, abi.candidates(env / "py"), work.facts)
            relocate.relocate(env, source)
            added = adding.add_missing(env, python, overlay)
        finally:
            work.progress.end()
        if compiled := bytecode.complete(env, work):
            work.notes.append(f"{compiled} modules had no valid bytecode and were compiled")
        work.progress.begin("proving")
        try:
            hermetic.prove(env, original=source)
        finally:
            work.progress.end()
        return added

    return finish
