"""Records of builds that failed, so that sixty hosts do not fail one after the other with the same one.

A build that would fail again (the requirements contradict each other, a hash is wrong, a command fails) is not
repeated for a while.  What may be better the next time (no space, no network, an interruption) is tried at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import MultihostError, NotReady, Passing
from pytest_multihost_env.provision import actor
from pytest_multihost_env.provision.actor import Actor

COOL_DOWN = 60.0
"""Seconds for which a build that would fail again is not repeated."""

_FAIL = "FAIL-"
_SLACK = 2.0  # seconds by which times of one file server may seem to run backwards


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a build failed.

    Attributes:
        name: The record's name.
        error: What to tell who did not build.
        repeats: The same build would fail again.
    """

    name: str
    error: NotReady
    repeats: bool


def repeats(error: BaseException) -> bool:
    """Whether a build that ended with `error` would end like that again: it was judged, and not by accident."""
    if not isinstance(error, MultihostError) or isinstance(error, Passing):
        return False
    known: set[int] = set()
    seen: BaseException | None = error
    while seen is not None and id(seen) not in known:  # an error may be its own cause
        if isinstance(seen, OSError):
            return False
        known.add(id(seen))
        seen = seen.__cause__ or seen.__context__
    return True


def record(slot: Path, attempt: Path, error: MultihostError, builder: Actor, *, repeats: bool) -> None:
    """Leave a record of why `attempt` failed, if the file system still takes one."""
    text = {"what": error.what, "where": error.where, "expected": error.expected, "hint": error.hint}
    content = {
        "builder": dataclasses.asdict(builder),
        "at": time.strftime("%H:%M:%S %z"),
        "repeats": repeats,
        "error": {**text, "details": error.details},
    }
    with contextlib.suppress(OSError):
        temporary = slot / f".{attempt.name}"
        files.write_new(temporary, json.dumps(content, separators=(",", ":")).encode("ascii"))
        temporary.rename(slot / f"{_FAIL}{attempt.name}")


def names(listing: frozenset[str]) -> frozenset[str]:
    """Return those names of a slot that are records of failed builds."""
    return frozenset(name for name in listing if name.startswith(_FAIL))


def read(slot: Path, name: str) -> Failure:
    """Return what the record `name`, which was listed, says."""
    try:
        content = json.loads(files.read_record(slot / name).data)
        builder = actor.parse(content["builder"])
        text: Mapping[str, str | None] = content["error"]
        error = NotReady(
            f"the build on {builder} failed at {content['at']}: {text['what']}",
            where=text["where"],
            expected=text["expected"],
            hint=text["hint"],
            details=dict(content["error"]["details"]),
        )
        return Failure(name, error, bool(content["repeats"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Failure(name, NotReady("a build on another host failed", where=str(slot / name)), repeats=False)


def recent(slot: Path, listing: frozenset[str]) -> NotReady | None:
    """Return why not to build now: somebody has just failed with what would fail again."""
    for name in sorted(names(listing)):
        failure = read(slot, name)
        age = _age(slot / name) if failure.repeats else None
        if age is not None and -_SLACK <= age < COOL_DOWN:
            rest = f"it is tried again in {COOL_DOWN - age:.0f} s, or at once with `multihost-env provision --force`"
            failure.error.hint = "; ".join(text for text in (failure.error.hint, rest) if text)
            return failure.error
    return None


def _age(path: Path) -> float | None:
    """Return how many seconds ago `path` was made, by the clock of whoever keeps the files; None when nobody knows.

    Where each host stamps its own files, a clock that is off makes the answer wrong by as much, and the build is
    repeated too early or a little late.
    """
    try:
        made = path.stat().st_mtime
    except OSError:
        return None
    now = files.server_time(path.parent)
    return None if now is None else now - made
