"""Deliberate mistakes, to see that the storms notice them.

python -m tests.storm.mutants NAME SOURCE TARGET …      a provisioner (`tests.storm.provisioner`) that makes one
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import garbage, pins
from pytest_multihost_env.provision.actor import Actor
from pytest_multihost_env.provision.publish import READY, Ready, Slot
from tests.integration import tiny
from tests.storm import seed

MUTANTS: dict[str, Callable[[], None]] = {}


def apply(name: str) -> None:
    """Make the mistake `name` in this process; "" is none."""
    if name:
        MUTANTS[name]()


def _mutant(function: Callable[[], None]) -> Callable[[], None]:
    MUTANTS[function.__name__] = function
    return function


@_mutant
def replaces() -> None:
    """The record is renamed into place, over another that may stand there."""
    real = files._link_new

    def link_new(temporary: Path, path: Path, data: bytes) -> None:
        if path.name == READY:
            temporary.rename(path)
        else:
            real(temporary, path, data)

    files._link_new = link_new


@_mutant
def publishes_early() -> None:
    """The last step of the build comes after publishing, in place, as in the script that this package replaces."""
    real_publish, real_finish = Slot.publish, tiny.finish
    pending: list[Callable[[], object]] = []

    def finish(env: Path, source: Path, work: Work) -> tuple[str, ...]:
        pending.append(lambda: real_finish(env, source, work))
        return ()

    def publish(self: Slot, attempt: Path, digest: str, builder: Actor) -> Ready:
        ready = real_publish(self, attempt, digest, builder)
        time.sleep(0.1)
        while pending:
            pending.pop()()
        return ready

    tiny.finish = finish
    Slot.publish = publish  # type: ignore[method-assign]


@_mutant
def polls_by_name() -> None:
    """Whether the record stands is asked by its name, again and again, instead of by a listing."""
    real = Slot.names

    def names(self: Slot) -> frozenset[str]:
        found = real(self)
        if "att" not in found:
            return found
        return found - {READY} | ({READY} if os.path.lexists(self.path / READY) else set())

    Slot.names = names  # type: ignore[method-assign]


@_mutant
def believes_the_reply() -> None:
    """A link that reports failure is taken for one that was not made, and what it published is thrown away."""

    def link_new(temporary: Path, path: Path, data: bytes) -> None:
        os.link(temporary, path)

    files._link_new = link_new
    sys.modules["pytest_multihost_env.provision.build"]._may_stand = lambda slot, attempt: False  # type: ignore[attr-defined]


@_mutant
def trusts_the_cache() -> None:
    """The tree is not on the disk when the record is."""
    files.sync_tree = lambda path: None


@_mutant
def pins_without_looking() -> None:
    """Whoever uses an environment makes a pin, and does not look whether a gc came first."""
    real = pins._write

    def hold(slot: Slot, user: Actor, notify: Callable[[str], None], *, beats: bool = True) -> pins.Pin:
        pin = pins.Pin(slot.pins / f"{pins._prefix(user)}.{time.monotonic_ns()}")
        real(pin.path, json.dumps({"user": dataclasses.asdict(user), "beats": beats}).encode())
        return pin

    pins.hold = hold


@_mutant
def dooms_without_looking() -> None:
    """A gc that has doomed an environment does not look again whether somebody holds it by now."""
    real = garbage._Collector._held

    def held(self: garbage._Collector, slot: Slot) -> list[str]:
        return [] if slot.is_doomed() else real(self, slot)

    garbage._Collector._held = held  # type: ignore[method-assign]


@_mutant
def flock_copy_move() -> None:
    """The whole protocol is another: a lock, a copy, a rename, and the rest in place."""
    tiny.main = seed.main


if __name__ == "__main__":
    from tests.storm import provisioner

    apply(sys.argv[1])
    sys.exit(provisioner.main(sys.argv[2:]))
