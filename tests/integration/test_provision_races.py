"""Several provisioners on several host names: who builds, who waits, what they are told.  `tests/storm` kills them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pytest_multihost_env import files
from pytest_multihost_env.provision import manifest
from pytest_multihost_env.provision.scan import scan
from tests.integration.tiny import make_source

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("n1", "n2", "n3", "n4")
LIMIT = 60.0


def _can_name_hosts() -> bool:
    return subprocess.run(["unshare", "--uts", "hostname", "n1"], capture_output=True).returncode == 0


several_hosts = pytest.mark.skipif(not _can_name_hosts(), reason="needs the right to name hosts (unshare --uts)")


class Crew:
    """Starts provisioners and ends those that are left."""

    def __init__(self, base: Path) -> None:
        self.source, self.target = make_source(base / "source"), base / "shared" / "python_env"
        self.log = base / "log"
        self.members: list[subprocess.Popen[str]] = []

    def start(self, host: str | None = None, *options: str, within: Sequence[str] = ()) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "tests.integration.tiny", str(self.source), str(self.target)]
        argv = [*within, *program, "--log", str(self.log), *options]
        if host is not None:
            argv = ["unshare", "--uts", "sh", "-c", 'hostname "$1"; shift; exec "$@"', "sh", host, *argv]
        member = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self.members.append(member)
        return member

    def noted(self, what: str = "begin") -> list[str]:
        return (
            [line for line in self.log.read_text().splitlines() if line.startswith(what)] if self.log.exists() else []
        )

    def begins(self, count: int = 1) -> None:
        wait_for(lambda: len(self.noted()) >= count)

    @property
    def slot(self) -> Path:
        (slot,) = (self.target.parent / ".python_env.d" / "v1").iterdir()
        return slot

    @property
    def attempts(self) -> list[str]:
        return sorted(path.name for path in (self.slot / "att").iterdir() if path.suffix != ".json")


def answer(member: subprocess.Popen[str]) -> dict[str, object]:
    out, err = member.communicate(timeout=LIMIT)
    assert member.returncode == 0, err
    return json.loads(out)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@pytest.fixture
def crew(special: Path) -> Iterator[Crew]:
    crew = Crew(special)
    yield crew
    for member in crew.members:
        with contextlib.suppress(ProcessLookupError):
            member.kill()
        member.communicate()


class Observer(threading.Thread):
    """Looks again and again; whenever a record stands, everything that its manifest lists has to be there."""

    def __init__(self, store: Path) -> None:
        super().__init__()
        self.store = store
        self.looks = 0
        self.faults: list[str] = []
        self.stood: dict[str, bytes] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.005):
            with contextlib.suppress(FileNotFoundError):
                for slot in self.store.iterdir():
                    if "READY" in files.names(slot):
                        self._check(slot)
            self.looks += 1

    def _check(self, slot: Path) -> None:
        data = (slot / "READY").read_bytes()
        if self.stood.setdefault(slot.name, data) != data:
            self.faults.append("the record changed")
        record = json.loads(data)
        env = slot / "att" / record["attempt"]
        try:
            listed = (env / manifest.NAME).read_bytes()
            if manifest.digest(listed) != record["manifest_sha256"]:
                self.faults.append("the digest is another")
            if list(manifest.parse(listed).entries) != list(scan(env)):
                self.faults.append("the tree is not what the manifest lists")
        except OSError as error:
            self.faults.append(f"half-built: {error}")


@contextlib.contextmanager
def observed(crew: Crew) -> Iterator[Observer]:
    observer = Observer(crew.target.parent / ".python_env.d" / "v1")
    observer.start()
    try:
        yield observer
    finally:
        observer.stop.set()
        observer.join()
    assert not observer.faults
    assert observer.looks


@several_hosts
def test_eight_at_once_on_four_hosts_build_once(crew: Crew) -> None:
    """Rows 7 and 12: one copies, and nobody ever sees half of it."""
    with observed(crew):
        members = [crew.start(HOSTS[n % 4], "--pause", "0.02") for n in range(8)]
        answers = [answer(member) for member in members]
    assert len(crew.noted("begin")) == len(crew.noted("end")) == 1
    assert len({(a["path"], a["digest"]) for a in answers}) == 1
    assert [a["reused"] for a in answers].count(False) == 1
    assert crew.attempts == [Path(str(answers[0]["path"])).name]
    assert crew.target.samefile(str(answers[0]["path"]))


def test_a_killed_builder_on_this_host_is_replaced_at_once(crew: Crew) -> None:
    """Row 16: at once, whatever the time of the lease, and it is said from whom."""
    gate = crew.log.with_name("gate")
    builder = crew.start(None, "--gate", str(gate), "--ttl", "100000")
    crew.begins()
    waiter = crew.start(None, "--ttl", "100000")
    builder.kill()
    _, said = waiter.communicate(timeout=LIMIT)
    assert waiter.returncode == 0, said
    assert f"taking the build over from host {os.uname().nodename}, pid {builder.pid}, since " in said
    assert "which has ended" in said
    assert len(crew.attempts) == 1


@several_hosts
def test_a_stopped_builder_that_comes_back_adopts_what_stands(crew: Crew) -> None:
    gate = crew.log.with_name("gate")
    zombie = crew.start("n1", "--gate", str(gate), "--ttl", "1")
    crew.begins()
    zombie.send_signal(signal.SIGSTOP)
    second = answer(crew.start("n2", "--ttl", "1"))
    gate.write_text("")
    zombie.send_signal(signal.SIGCONT)
    assert answer(zombie)["path"] == second["path"]
    assert second["reused"] is False
    assert crew.attempts == [Path(str(second["path"])).name]


def test_a_stopped_builder_is_replaced_on_its_own_host_too(crew: Crew) -> None:
    """A job that is suspended keeps this host's seat; the lease decides, not the seat.  Row 14: who waits hears of beats."""
    gate = crew.log.with_name("gate")
    suspended = crew.start(None, "--gate", str(gate), "--ttl", "1")
    crew.begins()
    suspended.send_signal(signal.SIGSTOP)
    second = crew.start(None, "--ttl", "1")
    out, said = second.communicate(timeout=LIMIT)
    assert second.returncode == 0, said
    holder = rf"host {re.escape(os.uname().nodename)}, pid {suspended.pid}, since 20\d\d-\S+ \S+"
    assert re.search(rf"waiting for {re.escape(str(crew.target))}: the build on {holder} \(last beat \d+ s ago\)", said)
    assert re.search(rf"taking the build over from {holder}, which has not been heard of for \d+ s", said)
    gate.write_text("")
    suspended.send_signal(signal.SIGCONT)
    assert answer(suspended)["path"] == json.loads(out)["path"]
    assert crew.attempts == [Path(json.loads(out)["path"]).name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_builder_takes_its_tree_away(crew: Crew, number: signal.Signals) -> None:
    """Row 21."""
    builder = crew.start(None, "--gate", str(crew.log.with_name("never")))
    crew.begins()
    builder.send_signal(number)
    builder.communicate(timeout=LIMIT)
    assert builder.returncode == -number
    assert not list((crew.slot / "att").iterdir())
    assert "r00000001" in files.names(crew.slot / "lease")
    assert not crew.target.is_symlink()
    assert answer(crew.start())["reused"] is False


@pytest.mark.parametrize("how", ["deleted", "led elsewhere"])
def test_a_store_that_goes_away_under_who_builds_and_who_waits_is_said(crew: Crew, how: str) -> None:
    real, gate = crew.target.parent.with_name("real"), crew.log.with_name("gate")
    real.mkdir()
    crew.target.parent.symlink_to(real)
    members = [crew.start(None, "--gate", str(gate))]
    crew.begins()
    members.append(crew.start())
    assert members[1].stderr is not None
    assert members[1].stderr.readline().startswith("waiting for ")
    if how == "deleted":
        shutil.rmtree(real / ".python_env.d")
    else:
        crew.target.parent.unlink()
        real.with_name("other").mkdir()
        crew.target.parent.symlink_to("other")
    gate.write_text("")
    for member in members:
        _, said = member.communicate(timeout=LIMIT)
        assert member.returncode == 3
        assert "remedy: somebody took it away meanwhile, or moved it: provision again" in said
        assert "Traceback" not in said
    assert not crew.target.is_symlink()
    made = answer(crew.start())
    assert made["reused"] is False
    assert crew.target.samefile(str(made["path"]))


def test_two_sources_for_one_target_give_each_caller_its_own(crew: Crew) -> None:
    """TARGET leads to one of the two, whole, whoever swapped it last; ranks are told the path and do not go by it."""
    other = make_source(crew.source.with_name("other"))
    (other / "more").write_text("of the other")
    members = []
    for number in range(4):
        crew.source = other if number % 2 else crew.source.with_name("source")
        members.append(crew.start(None, "--pause", "0.01"))
    paths = [Path(str(answer(member)["path"])) for member in members]
    assert [(path / "more").exists() for path in paths] == [False, True] * 2
    assert len(set(paths)) == 2
    assert crew.target.resolve() in {path.resolve() for path in paths}
    assert sorted(path.name for path in crew.target.parent.iterdir()) == [".python_env.d", "python_env"]
    assert len(crew.noted("end")) == 2


@several_hosts
def test_a_host_that_gets_another_name_meanwhile_still_builds(crew: Crew) -> None:
    """Under its new name nobody there sees that the builder lives; its beats say so, and it publishes."""
    gate = crew.log.with_name("gate")
    builder = crew.start("before", "--gate", str(gate), "--ttl", "3")
    crew.begins()
    there = ("nsenter", "--uts", "--target", str(builder.pid))
    subprocess.run([*there, "hostname", "after"], check=True)
    waiter = crew.start(None, "--ttl", "3", within=there)
    assert waiter.stderr is not None
    assert f"the build on host before, pid {builder.pid}, since " in waiter.stderr.readline()
    gate.write_text("")
    assert answer(waiter)["path"] == answer(builder)["path"]
    assert len(crew.noted()) == 1


def test_a_failure_is_told_to_all_and_not_repeated(crew: Crew) -> None:
    """Rows 14 and 30: who waits says for whom; nobody goes on with another Python."""
    gate = crew.log.with_name("gate")
    builder = crew.start(None, "--gate", str(gate), "--fail", "no wheel for numpy")
    crew.begins()
    waiters = [crew.start() for _ in range(3)]
    for waiter in waiters:
        assert waiter.stderr is not None
        assert f"pid {builder.pid}, since " in waiter.stderr.readline()
    gate.write_text("")
    for member in [builder, *waiters]:
        _, err = member.communicate(timeout=LIMIT)
        assert member.returncode == 3
        assert "no wheel for numpy" in err
        assert "remedy: mend it" in err
    assert len(crew.noted()) == 1
    (record,) = crew.target.parent.glob(".python_env.d/v1/*/FAIL-*")
    os.utime(record, (0, 0))  # the minute is over
    assert answer(crew.start())["reused"] is False


def test_waiting_ends_and_names_the_holder(crew: Crew) -> None:
    """Row 15."""
    builder = crew.start(None, "--gate", str(crew.log.with_name("never")))
    crew.begins()
    waiter = crew.start(None, "--timeout", "1")
    _, err = waiter.communicate(timeout=LIMIT)
    assert waiter.returncode == 3
    assert f"not ready after 1 s of waiting for the build on host {os.uname().nodename}, pid {builder.pid}" in err
    assert str(crew.slot / "lease") in err
    assert builder.poll() is None


@several_hosts
def test_without_any_exclusion_one_still_wins(crew: Crew) -> None:
    """Rows 9 and 13: a lease of no time excludes nobody."""
    with observed(crew):
        members = [crew.start(host, "--pause", "0.02", "--ttl", "0") for host in HOSTS]
        answers = [answer(member) for member in members]
    assert len({(a["path"], a["digest"]) for a in answers}) == 1
    assert crew.target.samefile(str(answers[0]["path"]))
