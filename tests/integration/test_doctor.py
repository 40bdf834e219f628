"""`doctor --fs` on three real hosts: what it says of good storage, and that it names what is planted, and leaves nothing."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_multihost_env.filesystem import PREFIX
from tests.testbed import mounts
from tests.testbed.bed import Testbed
from tests.testbed.client import CHECKOUT
from tests.testbed.fixtures import skip_or_fail

pytestmark = pytest.mark.timeout(180)

NAMES = "it's #1 \N{LATIN SMALL LETTER U WITH DIAERESIS}"
FOREVER = "3600"
TIMED = {"latency", "listing", "fresh", "asked", "content", "mtime"}


@pytest.fixture
def place(testbed: Testbed, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that all hosts share; the doctor must leave it empty."""
    path = testbed.shared / f"{NAMES} {request.node.name}"
    path.mkdir()
    path.chmod(0o1777)
    yield path
    assert list(path.iterdir()) == []
    path.rmdir()


def command(place: Path, *words: str) -> list[str]:
    argv = [sys.executable, "-m", "pytest_multihost_env.cli", "doctor", "--fs", str(place)]
    return [*argv, "--hosts", "n1,n2,n3", "--launcher", "ssh", *words]


def doctor(bed: Testbed, place: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and what was found, the findings by subject."""
    done = bed.run("n1", command(place, "--json", *words), cwd=CHECKOUT, timeout=120)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    found["findings"] = {one["subject"]: one for one in found["findings"]}
    return done.returncode, found


def bad(found: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Return what is not as it should be, but for what a busy machine is late with."""
    complaints = {
        name: (one["verdict"], one["odd"]) for name, one in found["findings"].items() if one["verdict"] != "ok"
    }
    late = {name for name in TIMED & complaints.keys() if not said(found, name, "not within")}
    return {name: complaint for name, complaint in complaints.items() if name not in late}


def said(found: dict[str, Any], name: str, text: str) -> bool:
    return any(answer.startswith(text) for answer in found["findings"][name]["answers"].values())


@contextlib.contextmanager
def mounted(bed: Testbed, host: str, place: Path, *options: str) -> Iterator[None]:
    """Have something else at `place` on one host."""
    bed.run(host, ["mount", *options, place], check=True)
    try:
        yield
    finally:
        bed.run(host, ["umount", "-l", place], check=True)


@pytest.mark.parametrize("launcher", ["ssh", "openmpi"])
def test_good_storage_is_called_good(testbed: Testbed, place: Path, launcher: str) -> None:
    code, found = doctor(testbed, place, "--launcher", launcher)
    assert (code, bad(found), found["passed"]) == (0, {}, True), found["summary"]
    assert found["summary"].endswith("n[1-3] can share an environment there")
    answers = {name: one["answers"] for name, one in found["findings"].items()}
    for name in ("flock", "posix", "ofd"):
        assert answers[name] == dict.fromkeys(("n1", "n2", "n3"), "shared")
    for name in ("link", "symlink", "exclusive", "rename_over"):
        assert answers[name] == dict.fromkeys(("n1", "n2", "n3"), "refuses")
    for name in ("listing", "asked", "fresh", "content", "mtime"):
        assert set(answers[name]) == {"n1", "n2", "n3"}
    assert {maker for seen in found["measured"]["seen"].values() for maker in seen} == {"n1", "n2", "n3"}


def test_two_names_of_one_machine_are_found_out(testbed: Testbed, place: Path) -> None:
    code, found = doctor(testbed, place, "--hosts", f"n1,{testbed.addresses['n1']},n2")
    assert (code, bad(found)) == (0, {"machine": ("warning", [testbed.addresses["n1"]])})


def test_a_directory_that_strangers_can_write_to_is_an_error(testbed: Testbed, place: Path) -> None:
    place.chmod(0o777)
    code, found = doctor(testbed, place)
    assert (code, bad(found)) == (1, {"trusted": ("error", ["n1", "n2", "n3"])})
    assert found["findings"]["trusted"]["sentence"] == f"{place} will not be run: {place} is writable for everybody"


def test_a_person_reads_a_table_and_a_sentence(testbed: Testbed, place: Path) -> None:
    done = testbed.run("n1", command(place), cwd=CHECKOUT, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["n[1-3]"]
    assert any(line.split() == ["ok", "flock", "between", "hosts", "shared"] for line in lines)
    assert lines[-1].startswith(f"publish-once works at {place}")


class TestStale:
    """Each host has a mount of its own, which remembers names for an hour and keeps locks to itself."""

    @pytest.fixture
    def stale(self, testbed: Testbed, place: Path) -> Iterator[Path]:
        if reason := mounts.why_not():
            skip_or_fail(reason)
        backing = testbed.shared / "backing"
        backing.mkdir()
        argv = [sys.executable, "-m", "tests.testbed.stalefs", str(backing), str(place), "--cache", FOREVER]
        servers = [
            testbed.popen(host, [*argv, "--faults", f"/tmp/faults-{host}"], cwd=CHECKOUT, stderr=subprocess.DEVNULL)
            for host in testbed.names
        ]
        try:
            for host in testbed.names:
                until_mounted(testbed, host, place)
            yield place
        finally:
            for host, server in zip(testbed.names, servers, strict=True):
                testbed.run(host, ["umount", "-l", place])
                server.kill()
                server.wait()
                testbed.run(host, ["rm", "-f", f"/tmp/faults-{host}"])
        assert list(backing.iterdir()) == []
        backing.rmdir()

    def test_stale_names_and_local_locks_are_warnings(self, testbed: Testbed, stale: Path) -> None:
        code, found = doctor(testbed, stale, "--patience", "1")
        everywhere = ("warning", ["n1", "n2", "n3"])
        expected = dict.fromkeys(("asked", "mtime", "flock", "posix", "ofd"), everywhere)
        assert bad(found) == expected
        assert code == 0
        answers = {name: one["answers"]["n2"] for name, one in found["findings"].items()}
        assert answers["listing"] == "at once"
        assert answers["asked"] == "not within 1 s"
        assert answers["flock"] == "local to each host"
        assert answers["exchange"] == "no: EINVAL"
        assert "fuse" in answers["mount"]
        assert "UV_CACHE_DIR" in found["findings"]["flock"]["remedy"]

    @pytest.mark.parametrize(
        ("refused", "code", "subjects"),
        [
            ({"link": "EPERM"}, 0, {"link": "warning"}),
            ({"symlink": "EPERM"}, 1, {"symlink": "error"}),
            ({"link": "EPERM", "symlink": "EOPNOTSUPP"}, 1, {"link": "error", "symlink": "error"}),
        ],
    )
    def test_a_host_that_cannot_publish_is_named(
        self, testbed: Testbed, stale: Path, refused: dict[str, str], code: int, subjects: dict[str, str]
    ) -> None:
        text = json.dumps({"refuse": refused})
        testbed.run("n2", ["sh", "-c", 'echo "$1" > /tmp/faults-n2', "sh", text], check=True)
        ended, found = doctor(testbed, stale, "--patience", "0.5")
        found_bad = bad(found)
        assert {name: found_bad[name] for name in subjects} == {
            name: (verdict, ["n2"]) for name, verdict in subjects.items()
        }
        assert ended == code
        assert "n2" in found["findings"]["link" if "link" in subjects else "symlink"]["sentence"]

    def test_a_listing_that_comes_late_is_an_error(self, testbed: Testbed, stale: Path) -> None:
        testbed.run("n3", ["sh", "-c", "echo '{\"listing_cache\": 3600}' > /tmp/faults-n3"], check=True)
        ended, found = doctor(testbed, stale, "--patience", "1")
        assert ended == 1
        assert {name for name, (verdict, odd) in bad(found).items() if verdict == "error" and odd == ["n3"]} & {
            "same",
            "listing",
        }


def until_mounted(bed: Testbed, host: str, place: Path) -> None:
    deadline = time.monotonic() + 30
    while bed.run(host, ["mountpoint", "-q", place]).returncode:
        assert time.monotonic() < deadline, f"{host} has no mount"
        time.sleep(0.02)


class TestOneHostIsNamed:
    def test_that_has_another_directory_there(self, testbed: Testbed, place: Path) -> None:
        with mounted(testbed, "n2", place, "-t", "tmpfs", "other"):
            code, found = doctor(testbed, place, "--patience", "1")
            assert testbed.run("n2", ["ls", "-A", place]).stdout == ""
        assert code == 1
        assert bad(found)["same"] == ("error", ["n2"])
        assert found["findings"]["same"]["answers"] == {"n1": "yes", "n2": "another than on n[1,3]", "n3": "yes"}
        assert "NOT good enough" in found["summary"]

    def test_where_nothing_runs(self, testbed: Testbed, place: Path) -> None:
        with mounted(testbed, "n3", place, "-o", "bind", place):
            testbed.run("n3", ["mount", "-o", "remount,bind,noexec", place], check=True)
            code, found = doctor(testbed, place)
        assert (code, bad(found)) == (1, {"execute": ("error", ["n3"])})
        assert "noexec" in found["findings"]["execute"]["remedy"]
        assert "noexec" in found["findings"]["mount"]["answers"]["n3"]

    def test_where_it_is_read_only(self, testbed: Testbed, place: Path) -> None:
        with testbed.faults.read_only("n2", place):
            code, found = doctor(testbed, place)
        assert (code, bad(found)) == (1, {"usable": ("error", ["n2"])})
        assert found["findings"]["usable"]["answers"]["n2"] == "no: EROFS"
        assert "on n2, mount it for reading and writing" in found["findings"]["usable"]["remedy"]

    def test_where_it_is_missing(self, testbed: Testbed, place: Path) -> None:
        with testbed.faults.hide("n3", place.parent):
            code, found = doctor(testbed, place)
        assert (code, bad(found)) == (1, {"usable": ("error", ["n3"])})
        assert found["findings"]["usable"]["answers"]["n3"] == "no: ENOENT"
        assert "create it there" in found["findings"]["usable"]["remedy"]

    def test_where_the_disk_is_full(self, testbed: Testbed, place: Path) -> None:
        with mounted(testbed, "n2", place, "-t", "tmpfs", "-o", "size=64k", "small"), testbed.faults.fill("n2", place):
            code, found = doctor(testbed, place)
            assert testbed.run("n2", ["ls", "-A", place]).stdout == ".testbed-filler\n"
        assert code == 1
        assert bad(found)["usable"] == ("error", ["n2"])
        assert found["findings"]["usable"]["answers"]["n2"] == "no: ENOSPC"

    def test_that_does_not_answer(self, testbed: Testbed, place: Path) -> None:
        with testbed.faults.reject_port("n3", 22):
            code, found = doctor(testbed, place)
        assert (code, bad(found)) == (4, {"reachable": ("error", ["n3"])})
        assert "Connection refused" in found["findings"]["reachable"]["sentence"]
        assert found["findings"]["flock"]["answers"] == {"n1": "shared", "n2": "shared"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_look_leaves_nothing(testbed: Testbed, place: Path, number: signal.Signals) -> None:
    with mounted(testbed, "n2", place, "-t", "tmpfs", "other"):
        # The hosts wait for each other in vain, so there is time to end the one that asks them.
        with testbed.popen(
            "n1", command(place, "--patience", "60"), cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            until(lambda: any(path.name.startswith(PREFIX) for path in place.iterdir()))
            process.send_signal(number)
            process.wait(30)
        until(lambda: not list(place.iterdir()))
        until(lambda: testbed.run("n2", ["ls", "-A", place]).stdout == "")


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
