"""Row 113: caches on the storage of the rank's own host."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest

from tests.integration.test_run import LOCAL, run

SHOW = 'echo "$HF_HOME"; echo "$MULTIHOST_RANK" >> "$HF_HOME/ranks"'


def own(place: Path) -> Path:
    return place / f"multihost-caches-{os.geteuid()}"


def show(special: Path, place: Path, script: str = SHOW) -> tuple[int, list[str], str]:
    words = ["-n", "2", "--no-tags", "--local-caches", "HF_HOME", "--", "sh", "-c", script]
    done = run(special, *LOCAL, *words, env={"HF_HOME": "/shared", "TMPDIR": str(place)})
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_all_ranks_of_a_host_share_a_cache_that_stays(special: Path) -> None:
    place = special / "own"
    place.mkdir()
    for times in (1, 2):
        code, lines, text = show(special, place)
        assert code == 0, text
        assert lines == [str(own(place) / "HF_HOME")] * 2
        assert sorted((own(place) / "HF_HOME" / "ranks").read_text().split()) == sorted("01" * times)
    assert {stat.S_IMODE(one.stat().st_mode) for one in (own(place), own(place) / "HF_HOME")} == {0o700}


@pytest.mark.parametrize("kind", ["read-only", "gone", "anybody's"])
def test_a_place_that_will_not_do_is_passed_over(special: Path, kind: str) -> None:
    place = {"read-only": Path("/proc"), "gone": special / "gone", "anybody's": special / "open"}[kind]
    if kind == "anybody's":
        place.mkdir()
        place.chmod(0o777)
    code, lines, text = show(special, place, script='echo "$HF_HOME"')
    assert code == 0, text
    assert len(set(lines)) == 1
    cache = Path(lines[0])
    with contextlib.suppress(OSError):  # it is the user's own, and may have something in it
        cache.rmdir()
        cache.parent.rmdir()
    assert cache.parent.parent in (Path("/var/tmp"), Path("/tmp"))


@pytest.mark.parametrize("kind", ["symlink", "open", "file", "foreign"])
def test_a_name_that_somebody_else_has_taken_is_refused_and_named(special: Path, kind: str) -> None:
    place = special / "own"
    (special / "other").mkdir(parents=True)
    place.mkdir()
    if kind == "symlink":
        own(place).symlink_to(special / "other")
    elif kind == "file":
        own(place).touch()
    else:
        own(place).mkdir()
        own(place).chmod(0o777 if kind == "open" else 0o700)
    if kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("giving a directory to another user takes root")
        os.chown(own(place), 65534, 65534)
    code, lines, text = show(special, place)
    assert code == 127, text
    assert f"the caches cannot be made on this host: {own(place)}" in text
    assert lines == []
    assert list((special / "other").iterdir()) == []
