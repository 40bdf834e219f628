"""What a name that is made twice tells about a file system, and what the kernel's table of mounts tells."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_multihost_env import filesystem
from pytest_multihost_env.filesystem import mount_of, refusal, verdict

TABLE = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /scratch rw,nosuid shared:9 - lustre mgs@tcp:/fs1 rw,flock,lazystatfs
31 30 0:41 / /scratch/old\\040project rw - nfs4 filer:/a\\040b rw,vers=4.2,local_lock=none
32 30 0:42 / /scratch/sub rw - tmpfs tmpfs rw
33 30 0:43 / /scratch/sub ro,noexec - nfs filer:/late rw,vers=3
nonsense
"""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/home/me", "/", "ext4"),
        ("/scratch", "/scratch", "lustre"),
        ("/scratch2/x", "/", "ext4"),
        ("/scratch/old project/x", "/scratch/old project", "nfs4"),
        ("/scratch/sub/y", "/scratch/sub", "nfs"),
    ],
)
def test_mount_is_found_in_the_table(path: str, point: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **_: TABLE)
    found = mount_of(Path(path))
    assert (found.point, found.kind) == (point, kind)


def test_mount_says_its_options_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **_: TABLE)
    assert mount_of(Path("/scratch/sub")).options == ("ro", "noexec", "rw", "vers=3")
    assert str(mount_of(Path("/scratch"))) == "/scratch (lustre, rw,nosuid,flock,lazystatfs)"
    assert mount_of(Path("/scratch/old project")).source == "filer:/a b"


def test_without_a_table_the_mount_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Path, **_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", gone)
    assert mount_of(Path("/x")) == filesystem.UNKNOWN


def refuses(text: bytes, name: Path) -> None:
    filesystem.exclusive(text, name)


def accepts(text: bytes, name: Path) -> None:
    name.write_bytes(text)


def replaces(text: bytes, name: Path) -> None:
    there = name.exists()
    name.write_bytes(text)
    if there:
        raise FileExistsError


def cannot(text: bytes, name: Path) -> None:
    raise OSError(errno.EPERM, "not here")


def lies(text: bytes, name: Path) -> None:
    name.write_bytes(text)
    raise OSError(errno.EIO, "the reply is lost")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (refuses, "refuses"),
        (filesystem.link, "refuses"),
        (filesystem.symlink, "refuses"),
        (accepts, "accepts"),
        (replaces, "replaces"),
        (cannot, "cannot: EPERM"),
        (lies, "misreports: EIO"),
    ],
)
def test_refusal_is_judged_by_what_stands(make: filesystem.Make, said: str, special: Path) -> None:
    assert refusal(make, special) == said


@pytest.mark.parametrize(
    ("by_link", "by_symlink", "said"),
    [
        ("refuses", "refuses", None),
        ("refuses", "accepts", None),
        ("cannot: EPERM", "refuses", None),
        ("misreports: EIO", "refuses", None),
        ("cannot: EPERM", "cannot: ENOSYS", "no symlink can be made there (ENOSYS) and no hard link either"),
        ("refuses", "cannot: EPERM", "no symlink can be made there (EPERM)"),
        ("accepts", "refuses", "a hard link can be made there under a name that is taken"),
        ("replaces", "refuses", "a hard link can be made there under a name that is taken"),
        ("cannot: EPERM", "accepts", "a symlink can be made there under a name that is taken"),
    ],
)
def test_one_of_link_and_symlink_has_to_refuse(by_link: str, by_symlink: str, said: str | None) -> None:
    found = verdict(by_link, by_symlink)
    assert found is None if said is None else found is not None and found.startswith(said)


def test_unfit_says_why_and_leaves_nothing(special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no)
    assert filesystem.unfit(special) is None
    monkeypatch.setattr(os, "symlink", no)
    assert filesystem.unfit(special) == "no symlink can be made there (EPERM) and no hard link either"
    assert list(special.iterdir()) == []
