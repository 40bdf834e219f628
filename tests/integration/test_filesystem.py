"""The quick look at a file system before anything is built, on real mounts that lack what publishing needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_multihost_env import filesystem
from tests.integration.tiny import make_source
from tests.testbed.mounts import StaleMounts

Make = Callable[..., StaleMounts]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def storage(stale_mounts: Make) -> Iterator[StaleMounts]:
    mounts = stale_mounts("n1", cache=5.0)
    yield mounts
    assert mounts.trouble() == ""


def provision(storage: StaleMounts, source: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.integration.tiny", str(source), str(storage.shared / "deep" / "env")]
    return subprocess.run(storage.command("n1", argv), cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({"link": "EPERM", "symlink": "EPERM"}, "no symlink can be made there (EPERM) and no hard link either"),
        ({"symlink": "EOPNOTSUPP"}, "no symlink can be made there (ENOTSUP)"),
    ],
)
def test_where_nothing_can_be_published_nothing_is_built(
    storage: StaleMounts, special: Path, refused: dict[str, str], said: str
) -> None:
    source = make_source(special / "source")
    with storage.faults(refuse=refused):
        done = provision(storage, source)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith(f"no environment can be published at {storage.shared}/deep/env: {said}\n")
    assert f"where: mount {storage.shared} (fuse, " in done.stderr
    assert "remedy: name a target on another one; `multihost-env doctor --fs " in done.stderr
    assert list(storage.backing.iterdir()) == []


def test_without_hard_links_a_symlink_does_it(storage: StaleMounts, special: Path) -> None:
    source = make_source(special / "source")
    with storage.faults(refuse={"link": "EPERM"}):
        done = provision(storage, source)
    assert done.returncode == 0, done.stderr


def test_a_reply_that_is_lost_is_no_reason_to_refuse(stale_mounts: Make) -> None:
    storage = stale_mounts("n1", cache=0.0)
    (storage.backing / "x").mkdir()
    program = "import sys, pathlib; from pytest_multihost_env import filesystem as fs; "
    program += "print(fs.unfit(pathlib.Path(sys.argv[1])))"
    with storage.faults(lose={"link": 1.0}):
        argv = [sys.executable, "-c", program, str(storage.shared / "x")]
        done = subprocess.run(storage.command("n1", argv), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("None\n", "")
    assert list((storage.backing / "x").iterdir()) == []


def test_the_look_leaves_nothing_and_is_silent_where_it_cannot_try(special: Path) -> None:
    assert filesystem.unfit(special) is None
    assert list(special.iterdir()) == []
    assert filesystem.unfit(Path("/proc/self")) is None
    assert filesystem.unfit(special / "missing") is None


def test_the_mount_of_a_path_is_the_deepest_and_last_one(special: Path) -> None:
    mount = filesystem.mount_of(special)
    assert os.path.ismount(mount.point)
    assert special.resolve().is_relative_to(mount.point)
    assert filesystem.mount_of(Path("/proc/self")).kind == "proc"
    assert filesystem.mount_of(special / "not" / "there") == mount
