"""What would be added is found out once, and again as soon as anything was installed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pytest_multihost_env.provision import election, overlay, remembered

WANTED = ("thing==1.0",)


@pytest.fixture
def calls(special: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often it is found out; what is installed lies in `special / "site"`."""
    found: list[int] = []

    def identity(wanted: object) -> str:
        found.append(1)
        return f"identity-{len(found)}"

    info = special / "site" / "thing-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "RECORD").write_text("thing.py,,\n")
    (special / "run").mkdir(mode=0o700)
    monkeypatch.setattr(sys, "path", [str(special / "site"), "/nowhere"])
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(special / "run"))
    monkeypatch.setattr(overlay, "identity", identity)
    monkeypatch.setattr(overlay, "is_editable", lambda wanted: False)
    return found


def test_it_is_found_out_once(calls: list[int]) -> None:
    assert [remembered.identity(WANTED) for _ in range(3)] == ["identity-1"] * 3
    assert remembered.identity(("other",)) == "identity-2"
    assert len(calls) == 2


def test_what_was_never_remembered_is_not_waited_for(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"slept for {seconds} s"))
    assert remembered.identity(WANTED) == "identity-1"


@pytest.mark.parametrize("change", ["written anew", "in place", "installed", "removed", "elsewhere"])
def test_what_an_installer_does_is_seen(
    calls: list[int], change: str, special: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered.identity(WANTED)
    record = special / "site" / "thing-1.0.dist-info" / "RECORD"
    match change:
        case "written anew":
            times = record.stat()
            other = record.with_name("other")
            other.write_text("other.py,,\n")
            os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
            other.replace(record)
        case "in place":
            record.write_text("thing.py,,1\n")
        case "installed":
            (special / "site" / "more-1.0.dist-info").mkdir()
        case "removed":
            record.unlink()
        case _:
            monkeypatch.setattr(sys, "path", [str(special / "nothing")])
    assert remembered.identity(WANTED) == "identity-2"


def test_what_is_editable_is_not_remembered(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "is_editable", lambda wanted: True)
    assert [remembered.identity(WANTED) for _ in range(2)] == ["identity-1", "identity-2"]


@pytest.mark.parametrize("text", ["", "x", "x y", "x y z", "\0" * 100, "ü x"])
def test_a_spoiled_memory_is_none(calls: list[int], text: str) -> None:
    remembered.identity(WANTED)
    (file,) = election.private_directory().glob("added-*")
    file.write_text(text)
    assert remembered.identity(WANTED) == "identity-2"
    assert remembered.identity(WANTED) == "identity-2"


def test_without_a_directory_of_ours_it_is_found_out_each_time(calls: list[int], special: Path) -> None:
    (special / "run" / "multihost-env").mkdir(mode=0o755)
    (special / "run" / "multihost-env").chmod(0o755)
    assert [remembered.identity(WANTED) for _ in range(2)] == ["identity-1", "identity-2"]


def test_it_is_the_same_as_what_is_remembered() -> None:
    wanted = ("click",)
    assert remembered.identity(wanted) == overlay.identity(wanted) == remembered.identity(wanted)
