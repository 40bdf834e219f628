"""copy_tree keeps what matters, leads no link back, and says by name what cannot be copied."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import os
import py_compile
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_multihost_env import process
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import ReadFile
from pytest_multihost_env.protocols import Silent, Work
from pytest_multihost_env.provision import digests, storage
from pytest_multihost_env.provision.copy import Copied, Hire, copy_tree
from pytest_multihost_env.provision.copying.content import Content
from pytest_multihost_env.provision.copying.entries import Entries
from pytest_multihost_env.provision.copying.worker import serve
from pytest_multihost_env.provision.crew import Alone, Processes, Threads

CREWS: dict[str, Hire] = {
    "alone": Alone,
    "threads": lambda setup, skip: Threads(setup._replace(portion=1), skip, 5),
    "processes": lambda setup, skip: Processes(setup._replace(portion=2), 3),
}

STAMP = 1_600_000_000_123_456_789


@pytest.fixture
def source(special: Path) -> Path:
    top = special / "source"
    (top / "bin").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "locked").mkdir()
    (top / "locked" / "file").write_text("in a directory without write permission")
    (top / ".hidden").write_text("dot")
    (top / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    (top / "bin" / "tool").chmod(0o755)
    (top / "secret").write_text("x")
    (top / "secret").chmod(0o600)
    (top / "big").write_bytes(os.urandom(3 << 20))
    (top / "nothing").touch()
    (top / "twin").hardlink_to(top / "big")
    (top / "relative").symlink_to("bin/tool")
    (top / "absolute").symlink_to(top / "bin" / "tool")
    (top / "bin" / "up").symlink_to(top / "big")
    (top / "directory").symlink_to(top / "bin")
    (top / "self").symlink_to(top)
    (top / "out").symlink_to("/etc/hostname")
    (top / "escape").symlink_to("../elsewhere")
    (top / "bin" / "setuid").touch()
    (top / "bin" / "setuid").chmod(0o4755)
    os.utime(top / "secret", ns=(STAMP, STAMP))
    os.utime(top / "empty", ns=(STAMP, STAMP))
    (top / "locked").chmod(0o555)
    return top


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """What a copy must have in common with its source, by name; links apart."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, names, files in os.walk(top):
        for name in [*names, *files]:
            path = Path(folder, name)
            status = path.lstat()
            if path.is_symlink():
                continue
            content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(top))] = (status.st_mode & 0o170777, status.st_mtime_ns, content)
    return found


def regular_files(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in top.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(top).as_posix(), path.lstat()


def test_row_26_modes_times_dotfiles_and_empty_directories_are_kept(source: Path, special: Path) -> None:
    copied = copy_tree(source, special / "copy")
    assert described(special / "copy") == described(source)
    regular = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    assert (copied.files, copied.bytes) == (len(regular), sum(path.stat().st_size for path in regular))


@pytest.mark.parametrize("crew", CREWS)
def test_row_27_nothing_is_linked_to_the_source(source: Path, special: Path, crew: str) -> None:
    copy_tree(source, special / "copy", hire=CREWS[crew])
    before = {status.st_ino for _, status in regular_files(source)}
    for name, status in regular_files(special / "copy"):
        assert (name, status.st_nlink) == (name, 1)
        assert status.st_ino not in before


def test_hard_links_are_broken_and_set_uid_is_dropped(source: Path, special: Path) -> None:
    copy_tree(source, special / "copy")
    assert (special / "copy" / "big").stat().st_nlink == 1
    assert (special / "copy" / "big").stat().st_ino != (special / "copy" / "twin").stat().st_ino
    assert not (special / "copy" / "bin" / "setuid").stat().st_mode & stat.S_ISUID


def test_row_26_no_link_leads_back_into_the_source(source: Path, special: Path) -> None:
    copied = copy_tree(source, special / "copy")
    links = {
        p.relative_to(special / "copy").as_posix(): str(p.readlink())
        for p in (special / "copy").rglob("*")
        if p.is_symlink()
    }
    assert links == {
        "relative": "bin/tool",
        "absolute": "bin/tool",
        "bin/up": "../big",
        "directory": "bin",
        "self": ".",
        "out": "/etc/hostname",
        "escape": str(special / "elsewhere"),
    }
    assert copied.outside == ("escape", "out")


def test_source_named_through_a_link_gives_the_same_copy(source: Path, special: Path) -> None:
    (special / "alias").symlink_to(source)
    copy_tree(special / "alias", special / "copy")
    assert str((special / "copy" / "absolute").readlink()) == "bin/tool"
    assert not (special / "copy").is_symlink()


def test_bytecode_stays_valid(special: Path) -> None:
    source = special / "source"
    source.mkdir()
    (source / "module.py").write_text("value = 1\n")
    compiled = Path(str(py_compile.compile(str(source / "module.py"), doraise=True)))
    copy_tree(source, special / "copy")
    header = (special / "copy" / "__pycache__" / compiled.name).read_bytes()[:16]
    status = (special / "copy" / "module.py").stat()
    assert header[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(header[8:12], "little") == int(status.st_mtime)
    assert int.from_bytes(header[12:16], "little") == status.st_size


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own here")
    path = Path(tempfile.mkdtemp(prefix="copy-", dir=memory))
    yield path
    for directory in [path, *path.rglob("*/")]:
        directory.chmod(0o700)
    shutil.rmtree(path)


def test_another_file_system_is_no_obstacle(source: Path, other_file_system: Path) -> None:
    copy_tree(source, other_file_system / "copy")
    assert described(other_file_system / "copy") == described(source)


@pytest.mark.parametrize("crew", CREWS)
def test_whoever_copies_makes_the_same(source: Path, special: Path, crew: str) -> None:
    work = Work()
    copied = copy_tree(source, special / "copy", hire=CREWS[crew], digests=True, work=work)
    assert described(special / "copy") == described(source)
    plain = copy_tree(source, special / "plain")
    assert copied == plain
    assert work.read == {
        name: ReadFile(status.st_ino, status.st_size, status.st_mtime_ns, digests.of_file(str(special / "copy" / name)))
        for name, status in regular_files(special / "copy")
    }


@pytest.mark.parametrize("crew", ["alone", "processes"])
def test_without_blake3_the_digests_are_of_another_kind_and_say_so(
    source: Path, special: Path, monkeypatch: pytest.MonkeyPatch, crew: str
) -> None:
    monkeypatch.setattr(digests, "best", lambda: digests.SHA256)
    copy_tree(source, special / "copy", hire=CREWS[crew], digests=True, work=(work := Work()))
    assert len(work.read) == len(list(regular_files(source)))
    for name, told in work.read.items():
        assert told.digest == "sha256:" + hashlib.sha256((source / name).read_bytes()).hexdigest()


def test_what_is_skipped_is_not_copied(source: Path, special: Path) -> None:
    copy_tree(source, special / "copy", skip=lambda name: name in {"bin", "locked/file"})
    assert not (special / "copy" / "bin").exists()
    assert list((special / "copy" / "locked").iterdir()) == []


@pytest.mark.parametrize("kind", ["FIFO", "socket"])
def test_special_files_are_refused_by_name(source: Path, special: Path, kind: str) -> None:
    planted = source / "bin" / "planted"
    if kind == "FIFO":
        os.mkfifo(planted)
    else:
        # a socket's address is short: bind where the name is
        here = os.open(planted.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{here}/planted")
        os.close(here)
    with pytest.raises(NotReady, match=kind) as caught:
        copy_tree(source, special / "copy")
    assert caught.value.where == str(planted)
    assert not (special / "copy").exists()


def test_an_unreadable_file_is_named_and_nothing_stays() -> None:
    top = Path(tempfile.mkdtemp(prefix="copy-"))
    top.chmod(0o777)
    me = os.geteuid()
    try:
        (top / "source").mkdir()
        (top / "source" / "closed").write_text("x")
        (top / "source" / "closed").chmod(0)
        if me == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(NotReady, match="Permission denied") as caught:
            copy_tree(top / "source", top / "copy")
        assert caught.value.where == str(top / "source" / "closed")
        assert not (top / "copy").exists()
    finally:
        if me == 0:
            os.seteuid(0)
        shutil.rmtree(top)


def test_a_destination_that_exists_is_left_alone(source: Path, special: Path) -> None:
    (special / "copy").mkdir()
    (special / "copy" / "precious").write_text("mine")
    with pytest.raises(NotReady, match="File exists"):
        copy_tree(source, special / "copy")
    assert (special / "copy" / "precious").read_text() == "mine"


@pytest.mark.parametrize("inside", ["", "bin/copy"])
def test_a_destination_inside_the_source_is_refused(source: Path, inside: str) -> None:
    with pytest.raises(NotReady, match="lies inside"):
        copy_tree(source, source / inside)


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_file_that_becomes_shorter_meanwhile_is_an_error(
    special: Path, monkeypatch: pytest.MonkeyPatch, size: int, digests: bool
) -> None:
    source = special / "source"
    source.mkdir()
    (source / "file").write_bytes(bytes(size))
    copy = Content.copy

    def cut_and_copy(self: Content, reader: int, writer: int, expected: int) -> str:
        os.truncate(source / "file", 5)  # after its size was asked for
        return copy(self, reader, writer, expected)

    monkeypatch.setattr(Content, "copy", cut_and_copy)
    with pytest.raises(NotReady, match="became shorter while it was copied") as caught:
        copy_tree(source, special / "copy", digests=digests)
    assert caught.value.where == str(source / "file")
    assert not (special / "copy").exists()


def test_only_bytecode_may_vanish_between_the_listing_and_its_turn(special: Path) -> None:
    source = special / "source"
    (source / "__pycache__").mkdir(parents=True)
    for name in ("module.py", "__pycache__/module.pyc", "__pycache__/module.pyc.140"):
        (source / name).write_text(name)

    def vanishing(victim: str) -> Callable[[str], bool]:
        def skip(name: str) -> bool:  # asked about each name while the directory is listed
            if name == victim:
                (source / name).unlink()
            return False

        return skip

    copied = copy_tree(source, special / "copy", skip=vanishing("__pycache__/module.pyc.140"))
    assert copied.files == 2
    with pytest.raises(NotReady, match="No such file") as caught:
        copy_tree(source, special / "other", skip=vanishing("module.py"))
    assert caught.value.where == str(source / "module.py")


@pytest.mark.parametrize("crew", CREWS)
def test_any_name_is_a_name(special: Path, crew: str) -> None:
    source = special / "source"
    names = [b"a b", b"it's", b'"', b"#1", b"\xc3\xbc", b"\xff\xfe", b"line\nbreak", b"\\", b"-rf", b"x" * 200, b"..."]
    for name in map(os.fsdecode, names):
        (source / name).mkdir(parents=True)
        (source / name / name).write_text("content")
        (source / name / "link").symlink_to(name)
    copied = copy_tree(source, special / "copy", hire=CREWS[crew], work=(work := Work()), digests=True)
    assert (copied.files, copied.links, copied.directories) == (len(names), len(names), len(names) + 1)
    assert described(special / "copy") == described(source)
    assert sorted(work.read) == sorted(f"{name}/{name}" for name in map(os.fsdecode, names))


@pytest.mark.parametrize(("crew", "count"), [("threads", 1_000), ("processes", 10_000)])
def test_a_large_directory_is_shared_out(special: Path, crew: str, count: int) -> None:
    source = special / "source"
    (source / "data").mkdir(parents=True)
    for number in range(count):
        (source / "data" / f"{number}.txt").write_text(str(number))
    jobs: list[int] = []

    class Counting(Silent):
        def advance(self, files: int, size: int) -> None:
            jobs.append(files)

    seats = {"threads": lambda s, k: Threads(s, k, 3), "processes": lambda s, k: Processes(s, 3)}
    copied = copy_tree(source, special / "copy", hire=seats[crew], work=Work(progress=Counting()))
    assert copied.files == sum(jobs) == len(list((special / "copy" / "data").iterdir())) == count
    assert max(jobs) <= storage.PORTION
    assert (special / "copy" / "data").stat().st_mtime_ns == (source / "data").stat().st_mtime_ns


def test_a_directory_that_its_owner_may_not_enter_gets_its_mode_last(special: Path) -> None:
    source = special / "source"
    (source / "shut" / "deep" / "deeper").mkdir(parents=True)
    (source / "shut" / "deep" / "deeper" / "file").touch()
    for name, mode in (("shut/deep/deeper", 0o555), ("shut/deep", 0o500), ("shut", 0o511)):
        (source / name).chmod(mode)
    copy_tree(source, special / "copy")
    assert described(special / "copy") == described(source)


def test_a_report_that_does_not_add_up_is_no_success(special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (special / "source").mkdir()
    (special / "source" / "file").touch()
    monkeypatch.setattr(Entries, "_files", lambda self, directory, names, here, report: None)
    with pytest.raises(RuntimeError, match="some were not copied"):
        copy_tree(special / "source", special / "copy")
    assert not (special / "copy").exists()


@pytest.mark.parametrize("count", [60, 1200])
def test_a_local_disk_gets_processes_when_there_is_much_to_copy(
    source: Path, special: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Who gets threads shows in tests/integration/test_copy.py, where system calls wait."""
    for number in range(count):
        (source / "bin" / f"file {number}").touch()
    used: set[str] = set()
    for kind in (Alone, Threads, Processes):
        give = kind.give
        monkeypatch.setattr(kind, "give", lambda s, job, n=kind.__name__, give=give: (used.add(n), give(s, job))[1])
    copy_tree(source, special / "copy")
    several = count > 1000 and len(os.sched_getaffinity(0)) > 1
    assert used == ({"Alone", "Processes"} if several else {"Alone"})
    assert described(special / "copy") == described(source)


def test_who_may_start_no_process_copies_alone(source: Path, special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that the test sets; root has none that could be reached."""
    for number in range(1200):
        (source / "bin" / f"file {number}").touch()
    asked: list[int] = []

    def start(*_arguments: object, **_more: object) -> NoReturn:
        asked.append(1)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(process, "start", start)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    copy_tree(source, special / "copy")
    assert asked == [1]
    assert described(special / "copy") == described(source)


def test_a_worker_whose_caller_never_says_what_to_copy_ends_quietly() -> None:
    answers = io.BytesIO()
    serve(io.BytesIO(), answers)
    assert answers.getvalue() == b""


def test_an_empty_tree_copies_to_an_empty_tree(special: Path) -> None:
    (special / "source").mkdir()
    assert copy_tree(special / "source", special / "copy") == Copied(0, 0, 0, 1, ())
