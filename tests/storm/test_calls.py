"""A provisioner that is killed at, or lied to by, any of its system calls; and one whose clock is wrong."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.tiny import make_source
from tests.storm import alone
from tests.storm.field import Field
from tests.storm.scale import FULL, SEED, scaled
from tests.testbed.fixtures import skip_or_fail


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    for name in ("strace", "faketime"):
        if shutil.which(name) is None:
            skip_or_fail(f"{name} is not installed")


def moments(special: Path, source: Path) -> Iterator[tuple[str, int]]:
    """Yield the calls at which to die: in a full storm all, else those that change something around publishing."""
    target = special / "counted" / "python_env"
    found = alone.calls(alone.program(source, target, "--unchecked"), special / "calls")
    assert len(found) > 100
    assert {"link", "symlink", "rename", "unlink", "mkdir", "fsync", "syncfs", "openat"} <= {name for name, _ in found}
    if FULL:
        yield from found
        return
    published = next(index for index, (name, _) in enumerate(found) if name == "syncfs")
    yield from [call for call in found[:published] if call[0] in alone.CHANGING][::12]
    yield from [call for call in found[published:] if call[0] in alone.CHANGING]


def test_killed_at_any_system_call(special: Path, figure: Callable[[str], None]) -> None:
    """L3."""
    source, died, before = make_source(special / "source"), 0, 0
    for index, (name, count) in enumerate(moments(special, source)):
        target = special / f"killed {index}" / "python_env"
        argv = alone.program(source, target, "--unchecked")
        done = alone.run(alone.tampered(argv, name, "signal=KILL", str(count)))
        died += done.returncode in {-9, 137}
        made = alone.whole(source, target)
        before += not made.reused
    assert died > 0.8 * index, "strace did not kill where it was told to"
    assert 0 < before < died, "not all deaths may be on one side of the record"
    figure(f"{died} deaths, each at another system call; {before} before the record stood: 0 faults")


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_interrupted_at_any_system_call(special: Path, number: str, figure: Callable[[str], None]) -> None:
    """Row 21: it ends by the signal, or has just made it; and takes away whatever does not stand."""
    source, ended = make_source(special / "source"), 0
    chosen = list(moments(special, source))
    for index, (name, count) in enumerate(chosen if FULL else chosen[::12]):
        target = special / f"interrupted {index}" / "python_env"
        argv = alone.program(source, target, "--unchecked")
        done = alone.run(alone.tampered(argv, name, f"signal={number}", str(count)))
        where = f"{name} {count}: {done.stderr[-1500:]}"
        ended += done.returncode in {-getattr(signal, f"SIG{number}"), 128 + getattr(signal, f"SIG{number}")}
        slots = list(target.parent.glob(".python_env.d/v1/*"))
        assert [path.name for slot in slots for path in slot.glob(".READY.*")] == [], where
        standing = {json.loads(path.read_text())["attempt"] for slot in slots for path in slot.glob("READY")}
        assert {path.name for slot in slots for path in slot.glob("att/*/")} <= standing, where
        alone.whole(source, target)
    assert ended > 0.5 * index
    figure(f"{ended} ends by SIG{number}, each at another system call: nothing half-made left")


ERRORS = ("link", "unlink", "rename", "mkdir", "fsync", "syncfs", "symlink")


def test_errors_of_system_calls(special: Path, figure: Callable[[str], None]) -> None:
    """L6, and in `test_faults.py` where each call of a file system may fail."""
    source, chance = make_source(special / "source"), random.Random(SEED)
    refused = 0
    for index in range(scaled(12, 100)):
        target = special / f"failing {index}" / "python_env"
        call, error = chance.choice(ERRORS), chance.choice(("ESTALE", "EIO", "ENOSPC"))
        argv = alone.program(source, target)
        done = alone.run(alone.tampered(argv, call, f"error={error}", f"{chance.randint(1, 12)}+20"))
        assert "Traceback" not in done.stderr, (SEED, index, done.stderr)
        assert done.returncode in {0, 3}, (SEED, index, done.stderr)
        if done.returncode == 0:
            assert json.loads(done.stdout)["lacks"] == []
        refused += done.returncode == 3
        made = alone.whole(source, target)
        assert made.reused or done.returncode == 3, "what was handed out has to be what stands"
    figure(f"{index + 1} runs with failing calls, {refused} refused in words, the others came through: 0 faults")


@pytest.mark.parametrize("ahead", ["holder", "contender"])
@pytest.mark.parametrize("shift", ["+1h", "-1h"] if FULL else ["+1h"])
def test_clocks_an_hour_apart(fields: Callable[..., Field], ahead: str, shift: str, special: Path) -> None:
    """L5."""
    ttl = 0.8
    with fields() as field, field.round(SEED, 1) as here:
        gate = special / "gate"

        def caller(host: str, *options: str, shifted: bool) -> subprocess.Popen[str]:
            clock = alone.other_clock(shift) if shifted else []
            argv = alone.program(field.source, here.target, "--log", str(here.log), "--ttl", str(ttl), *options)
            argv = field.command(host, [*clock, *argv])
            return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=alone.ROOT)

        holder = caller("n1", "--gate", str(gate), shifted=ahead == "holder")
        try:
            assert here.wait(lambda: here.noted("begin"))
            contender = caller("n2", shifted=ahead == "contender")
            try:
                assert contender.stderr is not None
                assert "waiting for" in contender.stderr.readline()
                time.sleep(3 * ttl)  # a contender that believed its clock would have taken over long ago
                assert len(here.noted("begin")) == 1, "a living builder's lease was taken"
                holder.kill()
                out, _ = contender.communicate(timeout=20)
                assert contender.returncode == 0
                assert json.loads(out)["reused"] is False
                assert json.loads(out)["lacks"] == []
            finally:
                contender.kill()
                contender.communicate()
        finally:
            holder.kill()
            holder.communicate()
