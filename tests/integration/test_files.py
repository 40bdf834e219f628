"""What is published once stays, what is deleted is gone, and nothing is followed on the way."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_multihost_env import files


def _refuse(number: int, *, act: bool = False):
    real = os.link

    def link(source, target, **rest):
        if act:
            real(source, target, **rest)
        raise OSError(number, os.strerror(number))

    return link


def test_the_first_content_stands(special: Path) -> None:
    ready = special / "READY"
    assert files.publish_once(ready, b'{"a": "//1"}') == b'{"a": "//1"}'
    assert files.publish_once(ready, b"second") == b'{"a": "//1"}'
    assert files.names(special) == {"READY"}
    assert files.read_record(ready).uid == os.getuid()


def test_racers_agree(special: Path) -> None:
    ready, stood, gate = special / "READY", [], threading.Barrier(8)

    def race(number: int) -> None:
        gate.wait()
        stood.append(files.publish_once(ready, str(number).encode()))

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stood) == 8
    assert set(stood) == {ready.read_bytes()}
    assert files.names(special) == {"READY"}


def test_without_hard_links_a_symlink_carries_the_text(special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refuse(errno.EPERM))
    ready = special / "READY"
    assert files.publish_once(ready, b'{"a": "//1"}') == b'{"a": "//1"}'
    assert files.publish_once(ready, b"second") == b'{"a": "//1"}'
    assert ready.is_symlink()
    assert files.names(special) == {"READY"}


@pytest.mark.parametrize("number", [errno.EIO, errno.EEXIST, errno.EPERM])
def test_a_lost_reply_is_no_loss(special: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "link", _refuse(number, act=True))
    assert files.publish_once(special / "READY", b"first") == b"first"
    assert files.publish_once(special / "READY", b"second") == b"first"


def test_a_failed_link_leaves_nothing(special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        files.publish_once(special / "READY", b"first")
    assert files.names(special) == frozenset()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_place_of_a_record_is_refused(special: Path, make: Callable[[Path], None]) -> None:
    make(special / "READY")
    with pytest.raises(OSError, match="not a plain file") as caught:
        files.read_record(special / "READY")
    assert caught.value.filename == str(special / "READY")


def test_swap_replaces_links_and_files_but_no_directory(special: Path) -> None:
    link = special / "target"
    files.swap_link(link, "a")
    files.swap_link(link, "b c")
    assert link.readlink() == Path("b c")
    (special / "dir").mkdir()
    with pytest.raises(IsADirectoryError):
        files.swap_link(special / "dir", "a")
    assert files.names(special) == {"target", "dir"}


def test_replace_keeps_the_mode(special: Path) -> None:
    path = special / "script"
    path.write_text("old")
    path.chmod(0o755)
    files.replace_file(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o755)
    assert files.names(special) == {"script"}


def test_remove_tree_follows_nothing_and_opens_closed_directories(special: Path) -> None:
    outside = special / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = special / "tree"
    (tree / "closed" / "deep").mkdir(parents=True)
    (tree / "closed" / "deep" / "file").write_text("x")
    (tree / "closed" / "deep" / "file").chmod(0o400)
    (tree / "link").symlink_to(outside)
    (tree / "closed" / "deep").chmod(0o500)
    (tree / "closed").chmod(0)
    assert files.remove_tree(tree) == ()
    assert files.names(special) == {"outside"}
    assert (outside / "kept").exists()
    assert files.remove_tree(tree) == ()
    (special / "link").symlink_to(outside)
    assert files.remove_tree(special / "link") == ()
    assert (outside / "kept").exists()


def test_a_stale_handle_is_asked_again() -> None:
    answers = iter([errno.ESTALE, errno.ENOENT, None])

    def call() -> str:
        number = next(answers)
        if number:
            raise OSError(number, "stale")
        return "fresh"

    assert files.settled(call) == "fresh"


def test_a_tree_is_synced(special: Path) -> None:
    (special / "file").write_text("x")
    files.sync_tree(special)
    with pytest.raises(FileNotFoundError):
        files.sync_tree(special / "nothing")
