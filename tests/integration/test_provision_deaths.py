"""A builder that dies between any two steps, and what its successor may and may not clear away."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import pytest

from pytest_multihost_env import files, provision
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import actor
from pytest_multihost_env.provision.lease import Sighting
from pytest_multihost_env.provision.publish import Ready, Slot
from pytest_multihost_env.provision.target import Place
from tests.integration.tiny import TinyBuilder, finish, make_source

STEPS = ("open", "os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.chmod", "os.listdir")


def ensure(source: Path, target: Path) -> Generation:
    request = provision.ProvisionRequest(source, target, ttl=1e6, beat=1e6)
    return provision.ensure(request, notify=lambda text: None, recipe=provision.Recipe(TinyBuilder(), finish))


def dies_at(step: int, source: Path, target: Path) -> bool:
    """Run a builder in a child that is killed before its system call number `step`; return whether it came so far."""
    child = os.fork()
    if child == 0:
        left = [step]

        def count(event: str, _args: tuple[object, ...]) -> None:
            if event in STEPS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            ensure(source, target)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_death_before_any_system_call_leaves_nothing_that_matters(special: Path) -> None:
    source = make_source(special / "source")
    step, reused = 0, 0
    while True:
        target = special / f"shared {step}" / "python_env"
        if not dies_at(step, source, target):
            break
        made = ensure(source, target)
        reused += made.reused
        assert provision.verify(target, prove=lambda env, source: "fine")
        assert files.names(made.path.parent) == {made.path.name, f"{made.path.name}.json"}, f"after step {step}"
        assert {name for name in files.names(made.path.parent.parent) if not name.startswith(".")} == {
            "READY",
            "att",
            "lease",
            "pins",
        }
        step += 11 if step < 70 or reused else 2
    assert step > 70
    assert reused, "no death came after the record was made"


def _attempt(slot: Slot, builder: actor.Actor, lease_number: int) -> Path:
    attempt = slot.begin(builder, lease_number)
    attempt.mkdir()
    (attempt / "file").write_text("x")
    return attempt


def test_only_what_is_surely_dead_is_swept(special: Path) -> None:
    """Row 22."""
    slot = Slot(Place(special / "source", special / "python_env", foreign=False), "key")
    slot.make()
    me = actor.myself()
    there = dataclasses.replace(me, host="n7", boot="another")
    winner = _attempt(slot, me, 5)
    living_here = _attempt(slot, me, 1)
    dead_here = _attempt(slot, dataclasses.replace(me, started="1"), 1)
    current_there = _attempt(slot, there, 5)
    lost_there = _attempt(slot, there, 4)
    without_lease_there = _attempt(slot, there, 0)
    unknown = slot.attempts / "somebody-1-x"
    unknown.mkdir()
    only_announced = slot.begin(dataclasses.replace(me, started="1"), 1)
    ready = Ready(winner.name, "digest", me, os.getuid())
    slot.sweep(ready, Sighting(5, None, None, free=False))
    left = {path for path in slot.attempts.iterdir() if path.suffix != ".json"}
    assert left == {winner, living_here, current_there, without_lease_there, unknown}
    records = {path.stem for path in slot.attempts.glob("*.json")}
    assert records == {path.name for path in left} - {unknown.name}
    assert dead_here.name not in records
    assert lost_there.name not in records
    assert only_announced.name not in records
