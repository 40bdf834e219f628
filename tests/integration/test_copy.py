"""A copy on real storage and under real mishaps: shared blocks, a full disk, slow servers, workers and callers that die."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.protocols import Silent, Work
from pytest_multihost_env.provision.copy import Copied, Hire, copy_tree
from pytest_multihost_env.provision.crew import Alone, Processes, Threads
from tests.environments import ROOT, missing
from tests.suites import clean_environ

COMMAND = [sys.executable, "-m", "pytest_multihost_env.cli"]
CREWS: dict[str, Hire] = {
    "alone": Alone,
    "threads": lambda setup, skip: Threads(setup, skip, 4),
    "processes": lambda setup, skip: Processes(setup, 2),
}


@dataclasses.dataclass
class Watcher(Silent):
    """Progress that does something at its first advance, when workers are at work, and counts."""

    at_first: Callable[[], None]
    files: int = 0

    def advance(self, files: int, size: int) -> None:
        first, self.files = not self.files, self.files + files
        if first:
            self.at_first()


def many(top: Path, directories: int = 40, each: int = 25) -> Path:
    for number in range(directories):
        directory = top / f"package {number}"
        directory.mkdir(parents=True)
        for name in range(each):
            (directory / f"module{name}.py").write_text(f"value = {number * name}\n" * 20)
    return top


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "copying.worker" in " ".join(child.cmdline())]


# -- who copies dies ---------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_is_an_error_that_says_so(special: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        for worker in workers():
            worker.kill()
            killed.append(worker.pid)

    with pytest.raises(NotReady, match="a process that copied was killed by SIGKILL") as caught:
        copy_tree(
            many(special / "source"), special / "copy", work=Work(progress=Watcher(kill)), hire=CREWS["processes"]
        )
    assert caught.value.where in {f"pid {pid}" for pid in killed}
    assert not (special / "copy").exists()
    assert workers() == []


@pytest.mark.parametrize("crew", CREWS)
def test_an_interrupt_ends_all_workers_and_then_the_tree_is_gone(special: Path, crew: str) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)  # python's handler comes at once

    with pytest.raises(KeyboardInterrupt):
        copy_tree(many(special / "source"), special / "copy", work=Work(progress=Watcher(interrupt)), hire=CREWS[crew])
    assert not (special / "copy").exists()
    assert workers() == []


CALLER = """
import os, sys
from pathlib import Path
import psutil
from pytest_multihost_env.protocols import Silent, Work
from pytest_multihost_env.provision.copy import copy_tree
from pytest_multihost_env.provision.crew import Processes

class Telling(Silent):
    def advance(self, files, size):
        print(*[child.pid for child in psutil.Process().children()], flush=True)
        sys.stdin.read()

work = Work(progress=Telling())
copy_tree(Path(sys.argv[1]), Path(sys.argv[2]), work=work, hire=lambda setup, skip: Processes(setup, 2))
"""


def test_workers_die_with_their_caller_even_when_they_cannot_notice(special: Path) -> None:
    source = many(special / "source")
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(source), str(special / "copy")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as caller:
        assert caller.stdout is not None
        pids = [int(word) for word in caller.stdout.readline().split()]
        children = [psutil.Process(pid) for pid in pids]
        for child in children:
            child.suspend()  # what is stopped reads no end of file; the kernel's signal reaches it
        caller.kill()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.fixture
def big_source(special: Path) -> Path:
    """A virtual environment with so many files that a signal can come while they are copied."""
    source = special / "source"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(source)], check=True, timeout=60)
    many(next(source.glob("lib/python3*/site-packages")) / "many", 60, 50)
    return source


def attempts(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob(".env.d/v1/*/att/*") if path.is_dir())


def interrupted(source: Path, number: int) -> subprocess.CompletedProcess[str]:
    """Send the signal to a `provision` of `source` when its copy has begun."""
    with subprocess.Popen(
        [*COMMAND, "provision", str(source), "env"],
        cwd=source.parent,
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        while not list(source.parent.glob(".env.d/v1/*/att/*/lib/python3*/site-packages/many/*")):
            assert child.poll() is None, child.communicate()
            time.sleep(0.001)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_row_21_an_interrupted_copy_takes_its_directory_away(big_source: Path, number: int, code: int) -> None:
    done = interrupted(big_source, number)
    assert done.returncode == code, done.stderr
    assert attempts(big_source.parent) == []
    assert not (big_source.parent / "env").is_symlink()


def test_row_21_what_a_killed_copy_left_is_swept_by_the_next(big_source: Path) -> None:
    interrupted(big_source, signal.SIGKILL)
    left = attempts(big_source.parent)
    assert len(left) == 1
    argv = [*COMMAND, "provision", str(big_source), "env"]
    done = subprocess.run(argv, cwd=big_source.parent, env=clean_environ(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert attempts(big_source.parent) == [(big_source.parent / "env").resolve()] != left


# -- what the storage is -----------------------------------------------------------------------------------------


def in_a_namespace(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script where mounts are its own and go with it; `$1` and so on are `arguments`, `$0` this Python."""
    if os.geteuid():
        pytest.skip("only root may mount a file system")
    argv = ["unshare", "--mount", "sh", "-euc", textwrap.dedent(script), sys.executable, *map(str, arguments)]
    done = subprocess.run(argv, env=clean_environ(), capture_output=True, text=True, timeout=100)
    if "no loop device" in done.stderr or "cannot find an unused loop device" in done.stderr:
        missing(f"there is no loop device: {done.stderr}")
    return done


COPY = """
import sys
from pathlib import Path
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import digests
from pytest_multihost_env.provision.copy import copy_tree
from pytest_multihost_env.provision.crew import Alone, Processes

hire = {"alone": Alone, "processes": lambda setup, skip: Processes(setup, 2)}[sys.argv[3]]
source, copy, work = Path(sys.argv[1]), Path(sys.argv[2]), Work()
try:
    print(copy_tree(source, copy, work=work, digests=True, hire=hire))
except NotReady as error:
    sys.exit(f"{error} {copy.exists()}")
for name, told in work.read.items():
    assert told.digest == digests.of_file(str(copy / name)), name
"""


@pytest.mark.parametrize("crew", ["alone", "processes"])
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_blocks_are_shared_where_the_file_system_can(tmp_path: Path, kind: str, crew: str) -> None:
    if shutil.which(f"mkfs.{kind}") is None:
        missing(f"mkfs.{kind} is not installed")
    image, top = tmp_path / "image", tmp_path / "top"
    top.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    (tmp_path / "program.py").write_text(COPY)
    script = f"""
        mkfs.{kind} -q "$1" >/dev/null && mount -o loop "$1" "$2"
        mkdir "$2/source"
        head -c 3000000 /dev/urandom >"$2/source/large"
        head -c 9000 /dev/urandom >"$2/source/small"
        : >"$2/source/empty"
        sync -f "$2"
        "$0" "$3" "$2/source" "$2/copy" {crew}
        cmp "$2/source/large" "$2/copy/large"
        cmp "$2/source/small" "$2/copy/small"
        sync -f "$2"
        filefrag -v "$2/copy/large" "$2/copy/small" | grep -c shared
        echo more >>"$2/source/large"
        cmp -n 3000000 "$2/source/large" "$2/copy/large"
        stat -c %s "$2/copy/large"
    """
    done = in_a_namespace(script, image, top, tmp_path / "program.py")
    assert done.returncode == 0, done.stdout + done.stderr
    told, shared, size = done.stdout.splitlines()
    assert told == str(Copied(3, 3009000, 0, 1, ()))
    assert int(shared) >= 2
    assert size == "3000000"


@pytest.mark.parametrize("crew", ["alone", "processes"])
@pytest.mark.parametrize("limit", ["size=1m", "nr_inodes=20"])
def test_a_full_disk_is_named_and_emptied(tmp_path: Path, limit: str, crew: str) -> None:
    source = many(tmp_path / "source", 10, 10)
    (source / "large").write_bytes(bytes(2 << 20))
    (tmp_path / "program.py").write_text(COPY)
    (tmp_path / "top").mkdir()
    script = f"""
        mount -t tmpfs -o {limit} full "$2"
        "$0" "$3" "$1" "$2/copy" {crew}
    """
    done = in_a_namespace(script, source, tmp_path / "top", tmp_path / "program.py")
    assert done.stderr.startswith("copying failed: No space left on device")
    assert f"where: {tmp_path}/top/copy" in done.stderr
    assert "free space, or choose a destination on another file system" in done.stderr
    assert done.stderr.endswith(" False\n")


@pytest.fixture
def slow_server(special: Path) -> Callable[[Path, Path, str], tuple[str, int]]:
    """Copies below `special` with a delay for each call, and tells who copied and how many calls waited."""
    if shutil.which("cc") is None:
        missing("there is no C compiler")
    count = special / "count"
    flags = ["-O2", "-fno-delete-null-pointer-checks", "-Wno-nonnull-compare", "-shared", "-fPIC"]
    source = ROOT / "benchmarks" / "latency.c"
    subprocess.run(["cc", *flags, "-o", "latency.so", str(source), "-ldl"], cwd=special, check=True, timeout=60)
    program = """
        import sys
        from pathlib import Path
        from pytest_multihost_env.protocols import Work
        from pytest_multihost_env.provision import storage
        from pytest_multihost_env.provision.copy import copy_tree
        crews = []
        decide = storage.Probe.crew
        storage.Probe.crew = lambda self: crews.append(decide(self)) or crews[-1]
        copy_tree(Path(sys.argv[1]), Path(sys.argv[2]), work=Work(), digests=True)
        print(*[type(crew).__name__ for crew in crews])
    """

    def copied(source: Path, destination: Path, microseconds: str) -> tuple[str, int]:
        delay = {"LATENCY_US": microseconds, "LATENCY_BELOW": str(special), "LATENCY_COUNT": str(count)}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(source), str(destination)],
            env=clean_environ({"LD_PRELOAD": "latency.so", **delay}) | {"LD_LIBRARY_PATH": str(special)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        waits = sum(int(line) for line in count.read_text().split())
        count.unlink()
        return done.stdout.strip(), waits

    return copied


def test_a_server_that_lets_wait_gets_threads_and_four_calls_for_a_file(
    special: Path, slow_server: Callable[[Path, Path, str], tuple[str, int]]
) -> None:
    source = many(special / "source", 10, 60)
    crew, waits = slow_server(source, special / "copy", "500")
    assert crew == "Threads"
    # A directory: open and list it twice, make it, open its copy, give it its times; and the same for each portion.
    directories, portions = 11, 600 // 8 + 10
    assert waits <= 4 * 600 + 8 * directories + 2 * portions
