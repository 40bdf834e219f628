"""The lease: one holder at a time, taken over from the dead at once and from the silent in time, never sooner."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_multihost_env import files
from pytest_multihost_env.provision import actor
from pytest_multihost_env.provision.lease import Lease
from tests.testbed.fixtures import skip_or_fail


def _until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _forge(directory: Path, holder: actor.Actor, *, number: int = 1, beat: str = "1") -> Path:
    claim = {"token": "feed", "holder": dataclasses.asdict(holder)}
    (directory / f"c{number:08d}").write_text(json.dumps(claim))
    (directory / "hfeed").write_text(beat)
    return directory / "hfeed"


@pytest.fixture
def elsewhere() -> actor.Actor:
    return dataclasses.replace(actor.myself(), host="n7", boot="another", pid=4711)


def test_one_holds_and_the_next_gets_it_back(special: Path) -> None:
    first, second = Lease(special, ttl=20, beat=5), Lease(special, ttl=20, beat=5)
    assert first.try_claim()
    assert not second.try_claim()
    assert second.look().holder.pid == os.getpid()
    first.release()
    assert second.look().free
    assert second.try_claim()
    assert (first.number, second.number) == (1, 2)
    second.release()
    assert not [name for name in files.names(special) if name.startswith("h")]


def test_the_holder_on_this_host_that_is_gone_is_replaced_at_once(special: Path) -> None:
    """Row 16."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    _forge(special, dataclasses.replace(actor.myself(), pid=ended.pid))
    lease = Lease(special, ttl=1e6, beat=5)
    assert lease.try_claim()
    lease.release()


def test_a_later_process_with_the_same_number_is_not_the_holder(special: Path) -> None:
    """Row 16, with the number given to another process since."""
    _forge(special, dataclasses.replace(actor.myself(), started="1"))
    lease = Lease(special, ttl=1e6, beat=5)
    assert lease.try_claim()
    lease.release()


def test_a_holder_whom_proc_hides_is_not_taken_for_dead(special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's process, where /proc is mounted with hidepid: kill(2) still knows it."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    holder = dataclasses.replace(actor.myself(), pid=2**22 - 1)
    assert holder.is_gone()
    monkeypatch.setattr(os, "kill", refuse)
    assert not holder.is_gone()


@pytest.mark.parametrize(
    "where",
    [
        ["unshare", "--time", "--boottime", "5000", "--fork"],
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"],
    ],
    ids=["another time namespace", "no /proc"],
)
def test_who_cannot_see_a_process_does_not_take_it_for_dead(where: list[str]) -> None:
    """Its start is shown as another, or not at all: then only its silence tells."""
    if subprocess.run([*where, "true"], capture_output=True).returncode != 0:
        skip_or_fail(f"cannot be made here: {where[1]}")
    look = (
        "import json, sys; from pytest_multihost_env.provision import actor;"
        "one = actor.parse(json.loads(sys.argv[1])); print(one.is_near(), one.is_gone(), actor.myself().is_gone())"
    )
    argv = [*where, sys.executable, "-c", look, json.dumps(dataclasses.asdict(actor.myself()))]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["False"] * 3, "")


def test_a_living_holder_on_this_host_keeps_it(special: Path) -> None:
    _forge(special, actor.myself())
    assert not Lease(special, ttl=1e6, beat=5).try_claim()


def test_another_hosts_holder_keeps_it_while_it_beats_and_loses_it_when_silent(
    special: Path, elsewhere: actor.Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 17: not before its time, by the watcher's own clock."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    beats = _forge(special, elsewhere)
    lease = Lease(special, ttl=20, beat=5)
    for beat in range(5):
        beats.write_text(f"beat {beat}")
        assert not lease.try_claim()
        now += 19
    assert not lease.try_claim()
    now += 2
    assert lease.try_claim()
    assert lease.number == 2
    lease.release()


def test_the_holders_clock_means_nothing(special: Path, elsewhere: actor.Actor) -> None:
    beats = _forge(special, elsewhere)
    os.utime(beats, (0, 0))
    os.utime(special / "c00000001", (0, 0))
    assert not Lease(special, ttl=20, beat=5).try_claim()


def test_a_claim_that_says_nothing_counts_as_silent(special: Path) -> None:
    (special / "c00000003").write_bytes(b"\xff{")
    assert not Lease(special, ttl=20, beat=5).try_claim()
    lease = Lease(special, ttl=0, beat=5)
    assert lease.try_claim()
    assert lease.number == 4
    lease.release()


def test_one_failed_beat_is_nothing(special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 18."""
    lease = Lease(special, ttl=30, beat=0.02)
    assert lease.try_claim()
    real, failed = os.fsync, []

    def fsync(fd: int) -> None:
        if len(failed) < 2:
            failed.append(fd)
            raise OSError(errno.ESTALE, "stale")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert _until(lambda: len(failed) == 2)
    before = lease.look().beat
    assert _until(lambda: lease.look().beat != before)
    assert not lease.lost.is_set()
    lease.release()


def test_those_who_wait_hear_what_the_holder_is_doing(special: Path) -> None:
    """Row 14, and what is known beyond it."""
    holder, waiter = Lease(special, ttl=30, beat=0.02), Lease(special, ttl=30, beat=5)
    holder.doing = "copying\x1b[2J and much more than there is room for in a beat of this lease"
    assert holder.try_claim()
    assert waiter.look().doing == "copying?[2J and much more than there is room for"[:47]
    holder.doing = "proving"
    assert _until(lambda: waiter.look().doing == "proving")
    holder.release()


def test_a_holder_learns_that_it_was_replaced(special: Path, elsewhere: actor.Actor) -> None:
    lease = Lease(special, ttl=30, beat=0.02)
    assert lease.try_claim()
    _forge(special, elsewhere, number=2)
    assert lease.lost.wait(20)
    lease.release()


def test_a_holder_whose_beats_fail_for_long_knows_that_it_lost(special: Path) -> None:
    lease = Lease(special, ttl=0.2, beat=0.02)
    assert lease.try_claim()
    for name in files.names(special):
        (special / name).unlink()
    assert lease.lost.wait(20)
    lease.release()


def test_an_actor_survives_its_record() -> None:
    me = actor.myself()
    assert actor.parse(json.loads(json.dumps(dataclasses.asdict(me)))) == me
    assert not me.is_gone()
    for broken in ({}, {**dataclasses.asdict(me), "pid": "1"}, {**dataclasses.asdict(me), "host": 1}):
        with pytest.raises(ValueError, match="process record"):
            actor.parse(broken)
