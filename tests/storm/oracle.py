"""Whether an environment that somebody may use is complete: against its source, and against its own manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pytest_multihost_env import provision
from pytest_multihost_env.errors import MultihostError

FINISHED = "finished"
"""What the last step of a tiny build leaves (`tests.integration.tiny.finish`)."""


def lacks(env: Path, source: Path | None) -> list[str]:
    """Return what is wrong with `env`, which stands: nothing, if it may be used.

    Args:
        env: The environment.
        source: The tiny source that it is a copy of; None: only the manifest is looked at.
    """
    try:
        found = [] if source is None else [*_differences(env, source)]
        if env.parent.name != "att":
            return found  # not one of ours: it has no manifest
        verified = provision.verify(env, prove=lambda _env, _source: "not asked")
    except (OSError, MultihostError) as error:
        return [f"{type(error).__name__}: {error}"]
    if not verified.digest_ok:
        found.append("its manifest is not the one that was published")
    for what in ("differing", "missing", "extra"):
        found += [f"{what}: {name}" for name in getattr(verified, what)]
    if verified.relocated:
        found.append(f"made for {verified.relocated}")
    return found


def _differences(env: Path, source: Path) -> Iterator[str]:
    listings: dict[Path, frozenset[str]] = {}
    for path in (*sorted(source.rglob("*")), source / FINISHED):
        copy = env / path.relative_to(source)
        if copy.parent not in listings:
            listings[copy.parent] = frozenset(name.name for name in copy.parent.iterdir())
        if copy.name not in listings[copy.parent]:  # never asked for by name: that plants a negative entry
            yield f"missing: {copy.relative_to(env)}"
        elif path.is_file() and not path.is_symlink() and copy.read_bytes() != path.read_bytes():
            yield f"other content: {copy.relative_to(env)}"
