"""Callers on several hosts, killed, stopped and all at once: nobody sees or gets half of an environment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.storm import blows
from tests.storm.blows import Weather
from tests.storm.field import Field
from tests.storm.history import History, faults, percentile
from tests.storm.scale import FULL, SEED, scaled
from tests.testbed.mounts import StaleMounts

LATE = 30.0
"""Seconds within which whoever waits has to see what stands; it takes two, on an idle machine."""

Figure = Callable[[str], None]


def judged(
    rounds: Iterable[History], weather: Weather, figure: Figure, *, least: int, clean: bool = False
) -> list[History]:
    """Return the rounds, which have no fault; in a full storm there are `least` blows in them."""
    histories = []
    for history in rounds:
        assert not faults(history, late=LATE, clean=clean)
        histories.append(history)
    struck = [history.done for history in histories if history.kills] or [0.0]
    bound = weather.ttl + weather.build + 3
    kills = sum(kind != "stop" for history in histories for _, kind in history.kills)
    stops = sum(len(history.kills) for history in histories) - kills
    figure(
        f"seed {histories[0].seed}: {kills} kills and {stops} stops in {len(histories)} rounds, "
        f"{sum(history.begun for history in histories)} builds begun, {sum(history.looks for history in histories)} "
        f"looks: 0 faults; last blow to all served: p50 {percentile(struck, 0.5):.1f} s, p95 "
        f"{percentile(struck, 0.95):.1f} s, worst {max(struck):.1f} s (ttl + build + 3 = {bound:.1f} s)"
    )
    if FULL:
        assert percentile(struck, 0.95) <= bound
        assert kills + stops >= least
    return histories


def test_kills_at_random_moments(fields: Callable[..., Field], figure: Figure) -> None:
    """L1."""
    weather = Weather(ttl=1.0)
    with fields() as field:
        rounds = judged(blows.storm(field, SEED, scaled(14, 260), weather), weather, figure, least=200)
    assert sum(history.begun for history in rounds) > len(rounds), "no builder was struck: this was no storm"


def test_the_same_where_caches_are_stale_and_locks_are_local(
    fields: Callable[..., Field], stale_mounts: Callable[..., StaleMounts], figure: Figure
) -> None:
    """L2: and nobody fails because a name was not there yet, or was there no more."""
    weather = Weather(ttl=3.0, blows=2)
    storage = stale_mounts("n1", "n2", cache=5.0, seed=SEED)
    with fields(storage=storage) as field:
        rounds = judged(blows.storm(field, SEED, scaled(6, 45), weather), weather, figure, least=30)
    assert sum(history.begun for history in rounds) > len(rounds)
    assert storage.trouble() == ""


def test_builders_that_were_stopped_and_go_on(fields: Callable[..., Field], figure: Figure) -> None:
    """L4: who comes back late takes what stands, and away what it has made itself."""
    weather = Weather(ttl=0.6, provisioners=4, blows=1, stops=1.0)
    with fields() as field:
        rounds = judged(blows.storm(field, SEED, scaled(3, 60), weather), weather, figure, least=50, clean=True)
    assert any(history.begun > 1 for history in rounds), "nobody took over from a stopped builder"


def test_all_start_at_once(fields: Callable[..., Field], figure: Figure) -> None:
    """L9."""
    callers = 64 if FULL else 24
    with fields() as field, field.round(SEED, 1) as here:
        for number in range(callers):
            here.start(field.hosts[number % len(field.hosts)], "--pause", "0.05")
        history = here.finish(120)
        assert not faults(history, late=LATE, clean=True)
        assert history.begun == 1
        (built,) = (member for member in history.members if not member.reused)
        waits = [member.ended - built.ended for member in history.members if member.ended and built.ended]
        figure(f"{callers} callers, 1 build; after it the others wait p95 {percentile(waits, 0.95):.2f} s")
        if FULL:
            assert percentile(waits, 0.95) <= 2


@pytest.mark.skipif(not FULL, reason="a figure that only a full storm takes")
def test_what_waiting_costs(fields: Callable[..., Field], special: Path, figure: Figure) -> None:
    seconds, gate = 12, special / "gate"
    with fields() as field, field.round(SEED, 1) as here:
        here.start("n1", "--gate", str(gate))
        assert here.wait(lambda: here.noted("begin"))
        waiter = here.start("n2")
        time.sleep(5)  # by then it asks as seldom as it ever does
        calls = ["strace", "-f", "-qq", "-o", str(special / "calls"), "-e", "trace=%file,getdents64,fsync"]
        subprocess.run(["timeout", "-s", "INT", str(seconds), *calls, "-p", str(here.pids[waiter])])
        gate.touch()
        assert not faults(here.finish(), clean=True)
    lines = (special / "calls").read_text(errors="replace").splitlines()
    asked = sum("O_" in line and "python_env" in line for line in lines)
    looks = sum('/lease"' in line and "O_DIRECTORY" in line for line in lines)
    figure(
        f"one waiter: {asked / seconds:.1f} directories and records opened a second, {looks / seconds:.1f} looks at the lease"
    )
    assert 0 < asked <= 3 * seconds
