"""The testbed is what the tests on several hosts stand on: its hosts are hosts, its faults bite, nothing stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.testbed import fixtures, linux
from tests.testbed.bed import Testbed
from tests.testbed.client import CHECKOUT, python_environment, refusal

SPECIAL = "it's #1 \N{LATIN SMALL LETTER U WITH DIAERESIS}"
QUICK = ["ssh", "-o", "ConnectTimeout=1"]


def ssh(bed: Testbed, origin: str, target: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
    return bed.run(origin, [*QUICK, target, "hostname; whoami"], user=user, timeout=30)


@contextmanager
def started(bed: Testbed, host: str, script: str, **options: Any) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run a shell's script on a host as long as the block lasts; yield the process and its output."""
    with bed.popen(host, ["sh", "-c", script], stdout=subprocess.PIPE, **options) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def reaches(bed: Testbed, origin: str, target: str) -> bool:
    return ssh(bed, origin, target).returncode == 0


@pytest.fixture
def bed(testbed: Testbed) -> Testbed:
    return testbed


@pytest.fixture
def place(bed: Testbed, request: pytest.FixtureRequest) -> Path:
    """A directory of this test on the shared storage, open to all users."""
    path = bed.shared / f"{SPECIAL} {request.node.name}"
    path.mkdir()
    path.chmod(0o1777)
    return path


class TestHosts:
    def test_each_has_its_own_name_and_identity(self, bed: Testbed) -> None:
        assert bed.names == ("n1", "n2", "n3")
        for command in ("uname -n", "cat /etc/hostname", "cat /etc/machine-id", "hostname -i"):
            said = [bed.run(host, ["sh", "-c", command], check=True).stdout for host in bed.names]
            assert len(set(said)) == 3, command
        assert [bed.run(host, ["hostname"]).stdout for host in bed.names] == ["n1\n", "n2\n", "n3\n"]
        assert socket.gethostname() not in bed.names

    @pytest.mark.parametrize("user", ["root", "alice"])
    def test_ssh_needs_no_password_between_any_two(self, bed: Testbed, user: str) -> None:
        for origin, target in (("n1", "n2"), ("n2", "n3"), ("n3", "n1"), ("n1", "n1")):
            done = ssh(bed, origin, target, user)
            assert (done.stdout, done.stderr) == (f"{target}\n{user}\n", "")

    def test_what_is_private_is_seen_on_one_host_only(self, bed: Testbed) -> None:
        for directory in ("/tmp", "/run", "/dev/shm", bed.local):
            bed.run("n1", ["touch", f"{directory}/{SPECIAL}"], check=True)
            there = bed.run("n1", ["ls", directory], check=True).stdout
            elsewhere = bed.run("n2", ["ls", directory], check=True).stdout
            bed.run("n1", ["rm", f"{directory}/{SPECIAL}"], check=True)
            assert SPECIAL in there
            assert SPECIAL not in elsewhere
            assert not Path(directory, SPECIAL).exists()

    def test_what_is_shared_is_seen_everywhere_at_the_same_path(self, bed: Testbed, place: Path) -> None:
        bed.run("n1", ["sh", "-c", "uname -n > here"], user="alice", cwd=place, check=True)
        assert (place / "here").read_text() == "n1\n"
        assert bed.run("n3", ["cat", place / "here"], check=True).stdout == "n1\n"

    def test_nothing_leads_out(self, bed: Testbed) -> None:
        for target in ("192.0.2.1", "8.8.8.8", "2001:db8::1"):
            done = bed.run("n1", ["ip", "route", "get", target])
            assert "unreachable" in done.stderr
        assert "default" not in bed.run("n1", ["ip", "route"], check=True).stdout
        links = json.loads(bed.run("n1", ["ip", "-json", "link"], check=True).stdout)
        assert {link["ifname"] for link in links} == {"lo", "eth0"}

    def test_the_running_python_and_the_checkout_are_there(self, bed: Testbed) -> None:
        code = "import sys; from tests.testbed import linux; print(sys.prefix)"
        done = bed.run("n2", [sys.executable, "-c", code], cwd=CHECKOUT)
        assert (done.stdout.strip(), done.stderr) == (sys.prefix, "")


class TestRun:
    def test_gives_user_directory_environment_input_and_code(self, bed: Testbed, place: Path) -> None:
        command = ["sh", "-c", 'cat; echo "$GREETING|$HOME|$(pwd)|$(id -un)"; exit 7']
        done = bed.run("n2", command, user="alice", cwd=place, env={"GREETING": "it's"}, input="häh\n")
        assert done.stdout == f"häh\nit's|{bed.accounts['alice'].home}|{place}|alice\n"
        assert done.returncode == 7
        assert done.args == command

    def test_inherits_nothing_of_ours(self, bed: Testbed) -> None:
        names = {line.partition("=")[0] for line in bed.run("n1", ["env"]).stdout.splitlines()}
        assert names == {"PATH", "HOME", "SHELL", "LANG", "USER", "LOGNAME"}
        listing = bed.run("n1", ["ls", "/proc/self/fd"]).stdout.split()
        assert listing == ["0", "1", "2", "3"]
        signals = bed.run("n1", ["grep", "-E", "SigIgn|SigBlk", "/proc/self/status"]).stdout.split()
        assert signals == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]

    def test_tells_how_the_command_ended(self, bed: Testbed) -> None:
        assert bed.run("n1", ["sh", "-c", "kill -9 $$"]).returncode == -signal.SIGKILL
        missing = bed.run("n1", ["no-such-program"])
        assert missing.returncode == 127
        assert missing.stderr.startswith("n1: cannot start 'no-such-program'")
        with pytest.raises(subprocess.CalledProcessError):
            bed.run("n1", ["false"], check=True)

    @pytest.mark.parametrize("user", [None, "alice"])
    def test_a_timeout_ends_all_that_it_started(self, bed: Testbed, user: str | None) -> None:
        command = "sleep 10001 & (setsid sleep 10002 &) ; (trap '' TERM; sleep 10003)"
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            bed.run("n2", ["sh", "-c", command], user=user, timeout=0.5)
        assert caught.value.cmd == ["n2", "sh", "-c", command]
        assert bed.processes("n2", "sleep 1000") == []

    def test_signals_reach_the_command(self, bed: Testbed) -> None:
        script = "trap 'echo heard; exit 5' USR1; echo ready; while :; do sleep 0.01; done"
        with started(bed, "n1", script) as (process, output):
            assert output.readline() == "ready\n"
            process.send_signal(signal.SIGUSR1)
            assert output.read() == "heard\n"
            assert process.wait() == 5

    def test_kill_reaches_everything(self, bed: Testbed) -> None:
        with started(bed, "n1", "sleep 10004 & echo ready; wait") as (process, output):
            output.readline()
            process.kill()
            assert output.read() == ""
        assert bed.processes("n1", "sleep 10004") == []

    def test_processes_are_found_by_arguments_and_environment_as_the_host_numbers_them(self, bed: Testbed) -> None:
        with started(bed, "n2", "echo $$; exec sleep 10005", env={"M": "mark"}) as (_, output):
            pid = int(output.readline())
            _until(lambda: bed.processes("n2", "sleep 10005") == [(pid, "sleep 10005")])
            assert bed.processes("n2", "M=mark") == [(pid, "sleep 10005")]
            assert bed.processes("n1", "M=mark") == []


class TestFaults:
    @pytest.fixture(autouse=True)
    def _healthy_after(self, bed: Testbed) -> Iterator[None]:
        yield
        assert reaches(bed, "n1", "n2")
        assert reaches(bed, "n1", "n3")
        assert reaches(bed, "n2", "n3")

    @pytest.mark.parametrize("name", ["link_down", "crash", "drop_port", "freeze"])
    def test_silence(self, bed: Testbed, name: str) -> None:
        with _fault(bed, name, "n2"):
            done = ssh(bed, "n1", "n2")
            assert "timed out" in done.stderr
            assert reaches(bed, "n1", "n3")

    @pytest.mark.parametrize("name", ["kill", "reject_port"])
    def test_refusal(self, bed: Testbed, name: str) -> None:
        with _fault(bed, name, "n2"):
            assert "Connection refused" in ssh(bed, "n1", "n2").stderr
            assert reaches(bed, "n1", "n3")

    def test_partition(self, bed: Testbed) -> None:
        with bed.faults.partition("n2", "n3"):
            assert reaches(bed, "n2", "n3")
            assert not reaches(bed, "n1", "n2")
            assert not reaches(bed, "n3", "n1")

    @pytest.mark.parametrize(("name", "hangs"), [("kill", False), ("crash", True)])
    def test_an_open_connection_sees_the_end_of_processes_but_not_of_power(
        self, bed: Testbed, name: str, hangs: bool
    ) -> None:
        login = "exec ssh n3 'echo ready; sleep 10006' 2>&1"
        with started(bed, "n1", login) as (client, output):
            assert output.readline() == "ready\n"
            with _fault(bed, name, "n3"):
                assert bed.processes("n3") == []
                with pytest.raises(OSError, match="n3 is down"):
                    bed.run("n3", ["true"])
                try:
                    client.wait(1.5 if hangs else 30)
                except subprocess.TimeoutExpired:
                    assert hangs
                else:
                    assert not hangs
                    assert client.returncode == 255

    def test_a_host_comes_back_empty_and_as_another_boot(self, bed: Testbed) -> None:
        boot = ["cat", "/proc/sys/kernel/random/boot_id"]
        before = bed.run("n3", boot, check=True).stdout
        bed.run("n3", ["touch", "/tmp/x", bed.local / "x"], check=True)
        with bed.faults.crash("n3"):
            pass
        assert bed.run("n3", ["ls", "/tmp", bed.local], check=True).stdout.count("x") == 0
        assert bed.run("n3", boot, check=True).stdout != before

    def test_a_frozen_host_runs_nothing_and_goes_on_after(self, bed: Testbed) -> None:
        with started(bed, "n3", "while :; do echo tick; sleep 0.01; done") as (clock, output):
            output.readline()
            with bed.faults.freeze("n3"):
                with pytest.raises(subprocess.TimeoutExpired):
                    bed.run("n3", ["true"], timeout=0.5)
                states = {linux.stat_fields(pid)[0] for pid in _all_of_host(clock)}
                assert states <= {"T", "D"}
            assert output.readline() == "tick\n"

    def test_hide(self, bed: Testbed, place: Path) -> None:
        (place / "x").touch()
        with bed.faults.hide("n3", place):
            assert bed.run("n3", ["ls", place], check=True).stdout == ""
            assert bed.run("n2", ["ls", place], check=True).stdout == "x\n"
        assert bed.run("n3", ["ls", place], check=True).stdout == "x\n"

    def test_read_only(self, bed: Testbed, place: Path) -> None:
        with bed.faults.read_only("n2", place):
            assert "Read-only file system" in bed.run("n2", ["touch", place / "x"]).stderr
            bed.run("n3", ["touch", place / "y"], check=True)
        bed.run("n2", ["touch", place / "x"], check=True)

    def test_fill(self, bed: Testbed, place: Path) -> None:
        write = ["bash", "-c", f"echo text > {bed.local}/x"]
        with bed.faults.fill("n2", bed.local):
            assert "No space left on device" in bed.run("n2", write, user="alice").stderr
            bed.run("n3", write, user="alice", check=True)
        bed.run("n2", write, user="alice", check=True)

    def test_fill_leaves_large_disks_alone(self, bed: Testbed) -> None:
        if os.statvfs(bed.shared).f_bavail * os.statvfs(bed.shared).f_frsize < 5 << 30:
            pytest.skip("this disk is nearly full by itself")
        with pytest.raises(ValueError, match="GiB of room"), bed.faults.fill("n2", bed.shared):
            pass
        assert list(bed.shared.glob(".testbed-filler")) == []

    def test_slow(self, bed: Testbed) -> None:
        sent = 250_000
        with bed.faults.slow("n2", "800kbit"):
            took = _seconds(lambda: bed.run("n1", ["sh", "-c", f"head -c {sent} /dev/zero | ssh n2 wc -c"], check=True))
            shaped = bed.run("n2", ["tc", "qdisc", "show", "dev", "eth0"], check=True).stdout
        # The limit holds from below, whatever else the machine does: 2 Mbit, less the 64 kB that go at once at each end.
        assert took > (sent * 8 - 2 * 65536 * 8) / 800_000
        assert "tbf" in shaped
        assert "tbf" not in bed.run("n2", ["tc", "qdisc", "show", "dev", "eth0"], check=True).stdout


def _fault(bed: Testbed, name: str, host: str) -> AbstractContextManager[None]:
    break_it: Callable[..., AbstractContextManager[None]] = getattr(bed.faults, name)
    return break_it(host, 22) if name.endswith("_port") else break_it(host)


def _all_of_host(process: subprocess.Popen[str]) -> list[int]:
    """Return the pids, as this machine numbers them, of the host on which a command of ours runs."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return linux.processes_in(int(children[0]))


def _seconds(act: Callable[[], object]) -> float:
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def _until(holds: Callable[[], object], limit: float = 20.0) -> None:
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        threading.Event().wait(0.02)


class TestNothingStays:
    @pytest.fixture(autouse=True)
    def _possible(self) -> None:
        reason = refusal(rootless=os.geteuid() != 0)
        if reason:
            fixtures.skip_or_fail(reason)

    def test_after_down(self) -> None:
        before = _traces()
        with Testbed(hosts=2) as bed:
            root = str(bed.shared.parent)
            assert reaches(bed, "n1", "n2")
            assert _mentioning(root)
        assert _mentioning(root) == []
        assert _traces() == before
        assert not Path(root).exists()

    def test_two_stand_side_by_side(self) -> None:
        with Testbed(hosts=2) as one, Testbed(hosts=2) as two:
            assert not set(one.addresses.values()) & set(two.addresses.values())
            assert one.shared != two.shared
            with one.faults.link_down("n2"):
                assert reaches(two, "n1", "n2")
                assert not reaches(one, "n1", "n2")
            one.down()
            assert reaches(two, "n1", "n2")

    def test_after_the_owner_was_killed(self) -> None:
        before = _traces()
        with _owner_elsewhere() as (owner, root):
            assert _mentioning(str(root))
            owner.send_signal(signal.SIGKILL)
            owner.wait()
            _until(lambda: not _mentioning(str(root)) and not root.exists())
        assert _traces() == before

    def test_after_owner_and_keeper_were_killed(self) -> None:
        before = _traces()
        with _owner_elsewhere() as (owner, root):
            record = json.loads((root / "owner.json").read_text())
            os.kill(record["keeper"][0], signal.SIGKILL)
            owner.send_signal(signal.SIGKILL)
            owner.wait()
            _until(lambda: not _mentioning(str(root)))
            # Now nobody is left to remove the directory but the next testbed.
            with Testbed(hosts=1):
                assert not root.exists()
        assert _traces() == before


@contextmanager
def _owner_elsewhere() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Have another process own a testbed; yield it and the testbed's directory."""
    code = "from tests.testbed.bed import Testbed\nb = Testbed(2)\nb.up()\nprint(b.shared, flush=True)\ninput()\n"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        try:
            yield owner, Path(owner.stdout.readline().strip()).parent
        finally:
            owner.kill()


def _mentioning(text: str) -> list[str]:
    """Return what of this machine's processes and mounts names a testbed's directory."""
    found = [line for line in Path("/proc/mounts").read_text().splitlines() if text in line]
    for pid in linux.numbers_in("/proc"):
        if linux.start_time(pid) is None:
            continue
        try:
            opened = [
                str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in linux.numbers_in(f"/proc/{pid}/fd")
            ]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            mounts = Path(f"/proc/{pid}/mounts").read_text()
        except OSError:
            continue
        if text in f"{opened}{command}{mounts}":
            found.append(f"{pid} {command}")
    return found


def _traces() -> dict[str, str]:
    """Return all of this machine that a testbed could leave changed."""
    listings = {}
    for command in ("ip -o link", "ip route", "ip netns", "nft list ruleset"):
        done = subprocess.run(command.split(), capture_output=True, text=True, env=python_environment())
        listings[command] = done.stdout
    return listings | {"passwd": Path("/etc/passwd").read_text()}


class TestFaces:
    def test_the_command_runs_something_on_the_first_host_and_repeats_its_code(self, testbed: Testbed) -> None:
        command = [sys.executable, "-m", "tests.testbed", "up", "-n", "2", "-u", "alice", "--"]
        script = "ssh n2 hostname; whoami; exit 9"
        done = subprocess.run(
            [*command, "sh", "-c", script], cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr, done.returncode) == ("n2\nalice\n", "", 9)

    def test_where_it_cannot_work_the_reason_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tests.testbed.client.python_environment", lambda: {"PATH": "/nowhere"})
        assert refusal(rootless=False) == "ip is missing: install the package iproute2"

    @pytest.mark.parametrize(("wanted", "outcome"), [("", {"skipped": 1}), ("require", {"errors": 1})])
    def test_that_is_a_skip_or_where_required_an_error(
        self, inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, wanted: str, outcome: dict[str, int]
    ) -> None:
        inner.makepyfile("""
            import tests.testbed.client
            tests.testbed.client.python_environment = lambda: {"PATH": "/nowhere"}
            def test_needs_hosts(testbed): pass
        """)
        monkeypatch.setenv(fixtures.REQUIRE, wanted)
        done = inner.runpytest_subprocess("-rsE")
        done.assert_outcomes(**outcome)
        done.stdout.fnmatch_lines("*no testbed: ip is missing: install the package iproute2*")

    def test_a_process_left_on_a_host_is_an_error_of_its_test(self, inner: pytest.Pytester) -> None:
        inner.makepyfile("""
            def test_leaves(testbed):
                testbed.run("n2", ["sh", "-c", "sleep 10007 >/dev/null 2>&1 &"])
            def test_is_innocent(testbed):
                assert testbed.processes("n2", "sleep 10007") == []
        """)
        done = inner.runpytest_subprocess("-m", "testbed")
        done.assert_outcomes(passed=2, errors=1)
        done.stdout.fnmatch_lines(["*test_leaves*", "this test leaves processes on the hosts: n2 pid * (sleep 10007)"])


@pytest.fixture
def inner(pytester: pytest.Pytester, testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A session of its own that knows the fixtures; it asks for ours, so that there is none where there can be none."""
    pytester.makeconftest('pytest_plugins = ["tests.testbed.fixtures"]')
    pytester.makeini("[pytest]\nmarkers = testbed\naddopts = -p no:multihost_env -p no:cacheprovider -rE")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    return pytester
