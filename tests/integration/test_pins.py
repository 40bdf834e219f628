"""What is in use is not taken away, whoever comes, goes or dies between any two steps; what is not, is."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from pytest_multihost_env import files, provision
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import actor, callers, failures, garbage, pins, publish
from pytest_multihost_env.provision.publish import DOOMED, READY, Doomed
from tests.integration.tiny import TinyBuilder, finish, make_source

HOUR, DAY = 3600.0, 86400.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes die here, machines do not: what the disk has does not matter, and waiting for it takes long."""
    monkeypatch.setattr(files, "sync_tree", lambda path: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def source(special: Path) -> Path:
    return make_source(special / "source")


@pytest.fixture
def target(special: Path) -> Path:
    return special / "shared" / "python_env"


def quiet(text: str) -> None:
    pass


def ensure(source: Path, target: Path, *, user: actor.Actor | None = None, **more: object) -> Generation:
    request = provision.ProvisionRequest(source, target, **more)
    return provision.ensure(request, notify=quiet, recipe=provision.Recipe(TinyBuilder(), finish), user=user)


def held(made: Generation) -> list[pins.Found]:
    return pins.found(publish.slot_of(made.path), files.server_time(made.path.parent))


def gone() -> actor.Actor:
    """A process of this host that has ended."""
    return dataclasses.replace(actor.myself(), started="1")


def elsewhere() -> actor.Actor:
    return dataclasses.replace(actor.myself(), host="n7", boot="another", pid=4711)


def pinned_by(made: Generation, user: actor.Actor, *, age: float = 0.0, beats: bool = True) -> Path:
    pin = pins.hold(publish.slot_of(made.path), user, quiet, beats=beats)
    assert pin is not None
    before = time.time() - age
    os.utime(pin.path, (before, before))
    return pin.path


def gc(target: Path, **wish: object) -> dict[str, garbage.Item]:
    return {str(item.path): item for item in garbage.collect(target, garbage.Wish(**wish))}


def test_the_user_stays_pinned_and_nobody_else(source: Path, target: Path) -> None:
    made = ensure(source, target)
    assert held(made) == []
    ensure(source, target, user=actor.myself())
    (pin,) = held(made)
    assert pin.lives
    assert pin.user is not None
    assert pin.user.pid == os.getpid()
    assert pin.path.name.split(".")[2:4] == [str(os.getpid()), actor.myself().started]
    (mine,) = pins.stay(made.path, quiet)
    assert mine.path == pin.path
    mine.release()
    assert held(made) == []


def test_a_process_without_a_pin_makes_one(source: Path, target: Path) -> None:
    made = ensure(source, target)
    (pin,) = pins.stay(made.path, quiet)
    assert [found.path for found in held(made)] == [pin.path]


def test_a_failed_swap_of_the_target_leaves_no_pin(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ensure(source, target)
    target.unlink()
    target.mkdir()
    with pytest.raises(UsageProblem):
        ensure(source, target, user=actor.myself())
    target.rmdir()

    def refuse(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "swap_link", refuse)
    with pytest.raises(NotReady, match="cannot be made to point"):
        ensure(source, target, user=actor.myself())
    assert held(made) == []


def test_gc_keeps_the_newest_the_used_and_where_the_target_leads(source: Path, target: Path) -> None:
    first = ensure(source, target, user=actor.myself())
    second = ensure(source, target, force=True)
    third = ensure(source, target, force=True)
    fourth = ensure(source, target, force=True)
    publish.point(publish.slot_of(third.path).place, third.path)
    planned = gc(target, dry_run=True)
    assert [planned[str(made.path)].kept for made in (first, second, third, fourth)] == [True, False, True, True]
    assert all(made.path.exists() for made in (first, second, third, fourth))
    done = gc(target)
    assert not second.path.exists()
    assert done[str(second.path)].size > 0
    assert f"in use by host {os.uname().nodename}, pid {os.getpid()}" in done[str(first.path)].why
    assert done[str(third.path)].why == "python_env leads to it"
    assert done[str(fourth.path)].why == "the newest"
    for made in (first, third, fourth):
        assert provision.verify(made.path, prove=lambda env, source: "fine")
    for pin in pins.stay(first.path, quiet):
        pin.release()
    assert not gc(target)[str(first.path)].kept
    assert str(first.path) not in gc(target), "what is gone is not told again"


def test_age_and_number_decide_what_stays(source: Path, target: Path) -> None:
    made = [ensure(source, target, force=bool(n)) for n in range(4)]
    for days, generation in enumerate(reversed(made)):
        ready = generation.path.parent.parent / READY
        before = time.time() - days * DAY
        os.utime(ready, (before, before), follow_symlinks=False)
    done = gc(target, keep=2, older_than=2.5 * DAY)
    assert [generation.path.exists() for generation in made] == [False, True, True, True]
    assert done[str(made[1].path)].why == "not old enough"
    gc(target, keep=0)
    assert [generation.path.exists() for generation in made] == [False, False, False, True], "the target leads there"


@pytest.mark.parametrize(
    ("beats", "age", "lives"),
    [(True, 23 * HOUR, True), (True, 25 * HOUR, False), (False, 6 * DAY, True), (False, 8 * DAY, False)],
)
def test_a_pin_from_another_host_counts_for_its_time(
    source: Path, target: Path, beats: bool, age: float, lives: bool
) -> None:
    made = ensure(source, target)
    ensure(source, target, force=True)
    pinned_by(made, elsewhere(), age=age, beats=beats)
    gc(target)
    assert made.path.exists() == lives


def test_a_pin_of_an_ended_process_of_this_host_counts_nothing(source: Path, target: Path) -> None:
    made = ensure(source, target)
    pin = pinned_by(made, gone())
    ensure(source, target, force=True)
    gc(target)
    assert not made.path.exists()
    assert not pin.exists()


def test_gc_clears_dead_pins_of_what_stays_but_not_silent_ones(source: Path, target: Path) -> None:
    made = ensure(source, target)
    dead, silent = pinned_by(made, gone()), pinned_by(made, elsewhere(), age=25 * HOUR)
    ancient = pinned_by(made, elsewhere(), age=8 * DAY)
    gc(target)
    assert (dead.exists(), silent.exists(), ancient.exists()) == (False, True, False)


def test_a_pin_that_says_nothing_counts_for_long(source: Path, target: Path) -> None:
    made = ensure(source, target)
    ensure(source, target, force=True)
    pin = made.path.parent.parent / "pins" / "n1.x.1.1"
    pin.write_bytes(b"")
    assert "somebody (n1.x.1.1)" in gc(target)[str(made.path)].why
    os.utime(pin, (0, 0))
    gc(target)
    assert not made.path.exists()


def test_a_pin_that_is_a_pipe_hangs_nobody(source: Path, target: Path) -> None:
    made = ensure(source, target)
    ensure(source, target, force=True)
    os.mkfifo(made.path.parent.parent / "pins" / "n1.x.1.1")
    assert gc(target)[str(made.path)].kept


def test_a_doomed_environment_is_never_used_again_and_its_number_neither(source: Path, target: Path) -> None:
    first = ensure(source, target)
    files.publish_once(publish.slot_of(first.path).pins / DOOMED, b"{}")
    second = ensure(source, target)
    assert second.path != first.path
    assert publish.slot_of(second.path).name == f"{second.key}.1"
    gc(target)
    assert not first.path.exists()
    files.publish_once(publish.slot_of(second.path).pins / DOOMED, b"{}")
    target.unlink()
    gc(target)
    assert not second.path.exists()
    assert publish.slot_of(ensure(source, target).path).name == f"{second.key}.2"


def test_whoever_runs_inside_what_is_doomed_is_told(source: Path, target: Path) -> None:
    made = ensure(source, target)
    files.publish_once(publish.slot_of(made.path).pins / DOOMED, b"{}")
    with pytest.raises(NotReady, match="is being taken away"):
        pins.stay(made.path, quiet)


def test_a_gc_that_comes_between_look_and_pin_sends_the_reader_elsewhere(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure(source, target)
    real, came = pins.hold, []

    def hold(slot: publish.Slot, *args: object, **more: object) -> pins.Pin | None:
        if not came:
            came.append(slot)
            target.unlink()
            gc(target, keep=0)
        return real(slot, *args, **more)

    monkeypatch.setattr(pins, "hold", hold)
    second = ensure(source, target)
    assert came[0].path == first.path.parent.parent
    assert not first.path.exists()
    assert second.path.exists()
    assert not second.reused
    assert target.samefile(second.path)


def test_a_reader_that_comes_between_the_look_of_gc_and_doom_is_left_alone(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure(source, target)
    second = ensure(source, target, force=True)
    real = files.publish_once

    def publish_once(path: Path, data: bytes) -> bytes:
        if path.name == DOOMED:
            assert pins.hold(publish.slot_of(first.path), elsewhere(), quiet) is not None
        return real(path, data)

    monkeypatch.setattr(files, "publish_once", publish_once)
    item = gc(target)[str(first.path)]
    assert item.kept
    assert item.why.startswith("goes as soon as it is free: in use by host n7, pid 4711")
    assert provision.verify(first.path, prove=lambda env, source: "fine")
    monkeypatch.undo()
    assert gc(target)[str(first.path)].kept, "a later one waits for it too"
    for pin in held(first):
        pin.path.unlink()
    assert not gc(target)[str(first.path)].kept
    assert not first.path.exists()
    assert second.path.exists()


def test_a_builder_that_was_taken_for_dead_uses_another(source: Path, target: Path, special: Path) -> None:
    """It finishes in a slot that was doomed meanwhile, finds that out from its own pin, and makes another."""
    done: list[str] = []

    class Late(TinyBuilder):
        def build(self, source: Path, destination: Path, work: object) -> None:
            super().build(source, destination, work)
            if not done:
                done.append(str(destination))
                files.publish_once(publish.slot_of(destination).pins / DOOMED, b"{}")

    request = provision.ProvisionRequest(source, target)
    made = provision.ensure(request, notify=quiet, recipe=provision.Recipe(Late(), finish))
    assert str(made.path) != done[0]
    gc(target)
    assert not Path(done[0]).exists()
    assert made.path.exists()


STEPS = ("open", "os.link", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.listdir")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_gc_that_dies_at_any_step_leaves_what_stands_whole_and_the_next_ends_its_work(
    special: Path, source: Path
) -> None:
    step, deaths = 0, 0
    while True:
        target = special / f"shared {step}" / "python_env"
        old = ensure(source, target)
        used = ensure(source, target, force=True)
        pinned_by(used, elsewhere())
        new = ensure(source, target, force=True)
        code = _in_child(lambda t=target: gc(t), dies_before=step)
        for made in (used, new):
            assert provision.verify(made.path, prove=lambda env, source: "fine"), f"after step {step}"
        if old.path.exists() and not publish.slot_of(old.path).is_doomed():
            assert provision.verify(old.path, prove=lambda env, source: "fine"), f"after step {step}"
        gc(target)
        assert not old.path.exists()
        assert ensure(source, target).path == new.path
        if code == 0:
            break
        deaths += 1
        step += 3
    assert deaths > 10


def _in_child(call: object, *, dies_before: int) -> int:
    child = os.fork()
    if child == 0:
        left = [dies_before]

        def count(event: str, _args: tuple[object, ...]) -> None:
            if event in STEPS:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), 9)

        code = 1
        try:
            sys.addaudithook(count)
            call()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_two_gcs_at_once_remove_the_same(source: Path, target: Path) -> None:
    old = [ensure(source, target, force=bool(n)) for n in range(6)]
    new = ensure(source, target, force=True)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            gc(target)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not any(made.path.exists() for made in old)
    assert provision.verify(new.path, prove=lambda env, source: "fine")


READER = """
import os, random, sys, time
from pathlib import Path
from pytest_multihost_env import files, provision
from pytest_multihost_env.provision import actor
from pytest_multihost_env.provision.pins import stay
from tests.integration.tiny import TinyBuilder, finish

files.sync_tree = os.fsync = lambda what: None  # as in `_quick`
source, target, rounds, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
chance = random.Random(seed)
lost = 0
for n in range(rounds):
    request = provision.ProvisionRequest(source, target, force=chance.random() < 0.4, ttl=2, beat=0.4)
    recipe = provision.Recipe(TinyBuilder(), finish)
    made = provision.ensure(request, notify=lambda text: None, recipe=recipe, user=actor.myself())
    for look in range(4):
        try:
            whole = (made.path / "lib" / "pkg 7" / "__init__.py").read_text() == "value = 7\\n" and made.python.exists()
        except OSError:
            whole = False
        lost += not whole
        time.sleep(chance.uniform(0, 0.01))
    for pin in stay(made.path, print):
        pin.release()
print(lost)
"""


def test_gc_against_readers(source: Path, target: Path) -> None:
    """L12, at a reduced count: rounds of readers that pin and builders that replace, against a gc that never rests."""
    ensure(source, target)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(source), str(target), "15", str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for seed in range(3)
    ]
    removed = 0
    try:
        while any(reader.poll() is None for reader in readers):
            with contextlib.suppress(UsageProblem):
                removed += sum(not item.kept for item in garbage.collect(target, garbage.Wish(keep=0)))
            time.sleep(0.005)
        assert [reader.stdout.read().strip() for reader in readers] == ["0", "0", "0"]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    assert removed > 3


def test_the_beat_is_the_files_own_time(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ensure(source, target)
    (pin,) = pins.stay(made.path, quiet)
    os.utime(pin.path, (0, 0))
    pin.beat()
    assert pin.path.stat().st_mtime == 0, "not every time"
    monkeypatch.setattr(pins, "BEAT", 0.0)
    pin.beat()
    assert pin.path.stat().st_mtime > 0
    pin.release()
    pin.beat()
    assert not pin.path.exists()


def test_the_shell_is_found_behind_a_substitution_and_a_wrapper(special: Path) -> None:
    """The shell itself, not the child that it makes for `$(…)`, nor a program between the two."""
    program = "from pytest_multihost_env.provision import callers; print(callers.shell().pid)"
    for shell in ("sh", "bash"):
        for wrapper in ('"$1" -c "$2"', '(:; (:; "$1" -c "$2"); :); :', 'env env "$1" -c "$2"; :'):
            text = f'echo $$ "$( {wrapper} )"'
            done = subprocess.run(
                [shell, "-c", text, shell, sys.executable, program], capture_output=True, text=True, check=True
            )
            mine, found = done.stdout.split()
            assert mine == found, (shell, wrapper)
    script = special / "ci.sh"
    script.write_text(f'#!/bin/bash\necho $$ "$("{sys.executable}" -c "{program}")"\n')
    script.chmod(0o755)
    mine, found = subprocess.run([script], capture_output=True, text=True, check=True).stdout.split()
    assert mine == found
    assert callers.shell().pid != os.getpid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_store_that_cannot_be_written_to_is_used_with_a_sentence(source: Path) -> None:
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        made = ensure(source, Path(base) / "python_env")
        slot, said = publish.slot_of(made.path), []
        os.seteuid(65534)
        try:
            assert pins.hold(slot, actor.myself(), said.append) is None
        finally:
            os.seteuid(0)
        assert files.names(slot.pins) == frozenset()
    assert "cannot be pinned (Permission denied)" in said[0]


def test_a_dead_builders_remains_go_and_a_living_ones_stay(source: Path, target: Path) -> None:
    made = ensure(source, target)
    slot = publish.slot_of(made.path)
    for builder in (actor.myself(), gone(), elsewhere()):
        attempt = slot.begin(builder, 1)
        attempt.mkdir()
        (attempt / "file").write_text("x" * 1000)
    dead, silent = (
        next(p for p in slot.attempts.glob("*.json") if f'"{key}":"{value}"' in p.read_text())
        for key, value in (("started", "1"), ("host", "n7"))
    )
    done = gc(target)
    assert done[str(dead.with_suffix(""))].size == 1000
    assert [name for name in sorted(files.names(slot.attempts)) if name.endswith(".json")] == sorted(
        p.name for p in slot.attempts.glob("*.json")
    )
    assert not dead.exists()
    assert silent.exists()
    for path in (silent, *slot.lease.iterdir()):
        os.utime(path, (0, 0))
    gc(target)
    assert not silent.exists()
    assert len(list(slot.attempts.glob("*.json"))) == 2


@pytest.mark.parametrize("how", ["of another version", "unreadable for a moment"])
def test_gc_touches_nothing_beside_a_record_that_it_cannot_read(
    source: Path, target: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ensure(source, target)
    slot = publish.slot_of(made.path)
    record = slot.attempts / f"{made.path.name}.json"
    ended = json.loads(record.read_bytes()) | {"builder": dataclasses.asdict(gone())}
    files.replace_file(record, json.dumps(ended).encode())
    if how == "of another version":
        files.replace_file(slot.path / READY, b"{}")
    else:
        read = files.read_record

        def fails(path: Path) -> files.Record:
            if path.name == READY:
                raise OSError(errno.EIO, "Input/output error", str(path))
            return read(path)

        monkeypatch.setattr(files, "read_record", fails)
    items = gc(target)
    assert [item.kept for item in items.values()] == [True]
    assert "cannot be read" in items[str(slot.attempts)].why
    assert made.path.is_dir()
    assert record.is_file()


def test_a_slot_that_nobody_finishes_is_doomed_and_its_failures_go(source: Path, target: Path) -> None:
    made = ensure(source, target)
    slot = publish.slot(made.path and publish.slot_of(made.path).place, "feed", 0)
    slot.make()
    attempt = slot.begin(gone(), 1)
    attempt.mkdir()
    failures.record(slot.path, attempt, NotReady("no wheel"), gone(), repeats=True)
    planned = gc(target, dry_run=True)
    assert planned[str(slot.attempts)].why == "its builder has ended"
    assert not slot.is_doomed()
    gc(target)
    assert slot.is_doomed()
    assert files.names(slot.attempts) == frozenset()
    assert slot.failures() == frozenset()
    with pytest.raises(Doomed):
        pins.hold(slot, actor.myself(), quiet)


def test_what_force_put_aside_goes_only_when_asked(source: Path, special: Path) -> None:
    theirs = make_source(special / "env")
    (theirs / "link").symlink_to(source)
    ensure(source, theirs, force=True)
    (aside,) = (special / ".env.d").glob("replaced-*")
    assert gc(special / "env")[str(aside)].kept
    assert aside.exists()
    assert not gc(special / "env", replaced=True)[str(aside)].kept
    assert not aside.exists()
    assert (source / "pyvenv.cfg").exists()


def test_gc_follows_no_link_and_leaves_what_is_not_ours(source: Path, target: Path, special: Path) -> None:
    ensure(source, target)
    precious = special / "precious"
    (precious / "att").mkdir(parents=True)
    (precious / "att" / "file").write_text("x")
    store = target.parent / ".python_env.d" / "v1"
    (store / "feed").symlink_to(precious)
    (store / "no slot").mkdir()
    old = ensure(source, target, force=True)
    (old.path / "lib" / "link").symlink_to(precious)
    ensure(source, target, force=True)
    gc(target)
    assert not old.path.exists()
    assert (precious / "att" / "file").read_text() == "x"
    assert (store / "no slot").is_dir()


def test_without_a_store_gc_says_so(special: Path) -> None:
    for target in (special / "env", special / "no" / "env"):
        with pytest.raises(UsageProblem, match="no environment was made for"):
            gc(target)


def test_the_command_tells_what_stays_and_what_went(source: Path, target: Path) -> None:
    old = ensure(source, target)
    ensure(source, target, force=True)
    command = [sys.executable, "-m", "pytest_multihost_env.cli", "gc", str(target)]
    planned = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    assert "would go" in planned.stdout
    assert old.path.exists()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    assert record["freed"] > 0
    assert [(item["what"], item["kept"]) for item in record["items"]] == [("environment", True), ("environment", False)]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "kept   the newest;" in again.stdout
    bad = subprocess.run([*command, "--older-than", "soon"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert "7d" in bad.stderr
