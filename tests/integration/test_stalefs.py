"""The file system of the storms is stale and faulty in the ways that it says, and whole otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.testbed.fixtures import skip_or_fail
from tests.testbed.mounts import StaleMounts, why_not

Make = Callable[..., StaleMounts]

PROGRAM = """
import ctypes, fcntl, json, os, socket, sys, time
def hold(path):
    global held
    held = open(path, "w")
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
def exchange(one, other):
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) else 0
def shows_after(path):
    asked = time.monotonic()
    while not os.path.exists(path):
        time.sleep(0.01)
    return time.monotonic() - asked
for line in sys.stdin:
    try:
        print(json.dumps([eval(line), 0]), flush=True)
    except OSError as error:
        print(json.dumps([None, error.errno]), flush=True)
"""


class Host:
    """A process of one host; it evaluates one line after another."""

    def __init__(self, storage: StaleMounts, name: str) -> None:
        argv = storage.command(name, [sys.executable, "-c", PROGRAM])
        self.shared = storage.shared
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, text: str, *names: str) -> Any:
        """Return what `text` gives, with `{}` replaced by paths on the storage; an errno when it fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text.format(*(repr(str(self.shared / name)) for name in names)) + "\n")
        self.process.stdin.flush()
        value, number = json.loads(self.process.stdout.readline())
        return OSError(number, os.strerror(number)) if number else value

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def two(stale_mounts: Make) -> Any:
    storage = stale_mounts("n1", "n2", cache=2.0)
    hosts = [Host(storage, "n1"), Host(storage, "n2")]
    yield storage, *hosts
    for host in hosts:
        host.close()
    assert storage.trouble() == ""


def test_hosts_share_the_files_and_nothing_else(two: tuple[StaleMounts, Host, Host]) -> None:
    storage, one, other = two
    assert (one.ask("socket.gethostname()"), other.ask("socket.gethostname()")) == ("n1", "n2")
    one.ask("open({}, 'w').write('hello')", "file")
    one.ask("os.link({}, {})", "file", "hard")
    one.ask("os.symlink('file', {})", "soft")
    one.ask("os.mkdir({})", "below")
    one.ask("os.utime({}, (5, 6))", "file")
    assert other.ask("sorted(os.listdir({}))", "") == ["below", "file", "hard", "soft"]
    assert other.ask("[open({}).read(), os.readlink({}), os.stat({}).st_mtime]", "hard", "soft", "file") == [
        "hello",
        "file",
        6.0,
    ]
    assert (storage.backing / "file").samefile(storage.backing / "hard")
    assert other.ask("os.rmdir({})", "below") is None
    assert not (storage.backing / "below").exists()


def test_a_lock_ends_at_the_mount(two: tuple[StaleMounts, Host, Host]) -> None:
    _, one, other = two
    assert one.ask("hold({})", "lock") is True
    assert other.ask("hold({})", "lock") is True


def test_a_name_asked_for_too_early_stays_away_and_a_listing_is_current(two: tuple[StaleMounts, Host, Host]) -> None:
    _, one, other = two
    assert other.ask("os.path.exists({})", "late") is False
    one.ask("open({}, 'w').close()", "late")
    assert "late" in other.ask("os.listdir({})", "")
    assert other.ask("os.path.exists({})", "late") is False
    assert other.ask("os.open({}, os.O_CREAT | os.O_EXCL)", "late").errno == 17
    assert 0 < other.ask("shows_after({})", "late") < 30
    assert other.ask("os.path.exists({})", "late") is True
    one.ask("os.unlink({})", "late")
    assert other.ask("os.path.exists({})", "late") is True


def test_an_exchange_is_refused_and_changes_nothing(two: tuple[StaleMounts, Host, Host]) -> None:
    _, one, _ = two
    one.ask("open({}, 'w').write('a')", "a")
    one.ask("open({}, 'w').write('b')", "b")
    assert one.ask("exchange({}, {})", "a", "b") == 22
    assert one.ask("[open({}).read(), open({}).read()]", "a", "b") == ["a", "b"]


def test_faults(two: tuple[StaleMounts, Host, Host]) -> None:
    storage, one, other = two
    one.ask("open({}, 'w').close()", "file")
    with storage.faults("n1", refuse={"link": "EPERM"}):
        assert one.ask("os.link({}, {})", "file", "refused").errno == 1
        assert other.ask("os.link({}, {})", "file", "elsewhere") is None
    with storage.faults("n1", lose={"link": 1.0}):
        assert one.ask("os.link({}, {})", "file", "lost").errno == 5
    with storage.faults(fail={"ESTALE": 1.0}):
        assert one.ask("os.link({}, {})", "file", "stale").errno == 116
    with storage.faults("n1", room=100, no_room="EDQUOT"):
        assert one.ask("open({}, 'w').write('x' * 100)", "fits") == 100
        assert one.ask("os.write(os.open({}, 1), b'y')", "fits").errno == 122
    with storage.faults("n1", listing_cache=1000.0):
        before = one.ask("os.listdir({})", "")
        other.ask("open({}, 'w').close()", "unseen")
        assert one.ask("os.listdir({})", "") == before
        one.ask("open({}, 'w').close()", "own")
        assert {"own", "unseen"} <= set(one.ask("os.listdir({})", ""))
    assert {path.name for path in storage.backing.iterdir()} == {"file", "elsewhere", "lost", "fits", "unseen", "own"}


def test_nothing_is_left_mounted(special: Path) -> None:
    if why_not():
        skip_or_fail(why_not())
    program = "import sys, os, signal\nfrom pathlib import Path\nfrom tests.testbed.mounts import StaleMounts\n"
    program += "StaleMounts(Path(sys.argv[1]), ['n1']).__enter__()\nprint('up', flush=True)\nsys.stdin.read()\n"
    argv = [sys.executable, "-c", program, str(special / "base")]
    owner = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert "stalefs" in Path("/proc/mounts").read_text()
        owner.kill()
    finally:
        owner.kill()
        owner.communicate()
    mount = str(special / "base" / "mount n1").replace(" ", "\\040")
    deadline = time.monotonic() + 30
    while mount in Path("/proc/mounts").read_text():
        assert time.monotonic() < deadline, "the mount outlives its owner"
        time.sleep(0.01)
