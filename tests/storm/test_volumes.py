"""No room, no inodes, no quota left, read-only, and no power: said clearly, nothing left, and made once it can be."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_multihost_env.errors import NotReady
from tests.integration.tiny import make_source
from tests.storm import alone, oracle, volumes
from tests.storm.scale import SEED, scaled
from tests.testbed.fixtures import skip_or_fail


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        skip_or_fail("only root may mount file systems")


@pytest.fixture
def source(special: Path) -> Path:
    return make_source(special / "source")


def refused(source: Path, target: Path, words: str) -> None:
    """Provision, which has to be refused in these `words`, and to leave nothing."""
    with pytest.raises(NotReady) as caught:
        alone.ensure(source, target)
    assert words in str(caught.value)
    assert "remedy: " in str(caught.value)
    home = target.parent / ".python_env.d"
    assert not target.is_symlink()
    assert not list(home.glob("v1/*/READY"))
    assert not list(home.glob("v1/*/att/*/"))


def test_no_room(source: Path, special: Path) -> None:
    with volumes.memory(special / "disk", "size=44k") as disk:
        refused(source, disk / "python_env", "No space left on device")
        volumes.remount(disk, "size=4m")
        alone.whole(source, disk / "python_env")


def test_no_room_for_the_source_is_known_before_anything_is_made(source: Path, special: Path) -> None:
    (source / "large").write_bytes(bytes(200_000))
    with volumes.memory(special / "disk", "size=72k") as disk:
        refused(source, disk / "python_env", "needs 235 KiB")
        assert not list(disk.iterdir())


def test_no_inodes(source: Path, special: Path) -> None:
    with volumes.memory(special / "disk", "size=4m,nr_inodes=24") as disk:
        refused(source, disk / "python_env", "No space left on device")
        volumes.remount(disk, "nr_inodes=1000")
        alone.whole(source, disk / "python_env")


def test_no_quota(source: Path, special: Path) -> None:
    (source / "large").write_bytes(random.Random(SEED).randbytes(800_000))
    with volumes.quota(special / "disk", 600_000) as disk:
        refused(source, disk / "python_env", "Disk quota exceeded")
        volumes.limited(disk, "none")
        alone.whole(source, disk / "python_env")


def test_read_only(source: Path, special: Path) -> None:
    with volumes.memory(special / "disk", "size=4m,ro") as disk:
        refused(source, disk / "python_env", "Read-only file system")
        volumes.remount(disk, "rw")
        alone.whole(source, disk / "python_env")
        volumes.remount(disk, "ro")
        assert alone.ensure(source, disk / "python_env").reused, "what stands can be used where nothing can be written"


def struck(
    source: Path, special: Path, number: int, moment: float, program: str = "tests.storm.provisioner"
) -> list[str]:
    """Provision on a disk that loses its power `moment` seconds after the copy; return what is wrong with what stands."""
    log = special / f"log {number}"
    with volumes.disk(special / "disk") as image:
        with volumes.on(image, special / "disk") as disk:
            argv = [sys.executable, "-m", *program.split(), str(source), str(disk / "python_env"), "--log", str(log)]
            process = subprocess.Popen(argv, cwd=alone.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            while process.poll() is None and "end" not in (log.read_text() if log.exists() else ""):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(moment)
            volumes.lose_power(disk)
            process.kill()
            process.wait()
        with volumes.on(volumes.as_it_is(image), special / "disk") as disk:
            found = [text for env in standing(disk) for text in oracle.lacks(env, source)]
            if not found:
                alone.whole(source, disk / "python_env")
    return found


def standing(disk: Path) -> list[Path]:
    records = disk.glob(".python_env.d/v1/*/READY")
    return [path.parent / "att" / json.loads(path.read_text())["attempt"] for path in records]


def test_loss_of_power(source: Path, special: Path, figure: Callable[[str], None]) -> None:
    chance, count = random.Random(SEED), scaled(5, 60)
    for number in range(count):
        assert struck(source, special, number, chance.uniform(0, 0.12)) == [], (SEED, number)
    figure(f"{count} losses of power around publishing, ext4: what stood was whole")


def test_loss_of_power_notices_what_is_not_on_the_disk(source: Path, special: Path) -> None:
    chance = random.Random(SEED)
    program = "tests.storm.mutants trusts_the_cache"
    assert any(struck(source, special, number, chance.uniform(0, 0.3), program) for number in range(20))
