"""The storm itself: kills and stops at random moments, from one seed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import time
from collections.abc import Iterator

from tests.storm.field import Field, Round
from tests.storm.history import History


@dataclasses.dataclass(frozen=True)
class Weather:
    """How a storm blows.

    Attributes:
        provisioners: Callers at a time.
        blows: In one round.
        pause: Seconds for each file of a build; it has about 23.
        ttl: Seconds without a beat after which a builder counts as dead.
        stops: Share of the blows that stop a process past `ttl` instead of killing it.
    """

    provisioners: int = 8
    blows: int = 3
    pause: float = 0.015
    ttl: float = 1.5
    stops: float = 0.0

    @property
    def build(self) -> float:
        """Seconds of one build, about."""
        return 24 * self.pause + 0.1

    @property
    def options(self) -> tuple[str, ...]:
        """Arguments for the callers."""
        return "--pause", str(self.pause), "--ttl", str(self.ttl)


def kill(here: Round, number: int, what: signal.Signals = signal.SIGKILL) -> None:
    """Send `what` to a caller, which is the agent's child and therefore still that process."""
    if what == signal.SIGKILL:
        here.members[number].killed = True
    with contextlib.suppress(ProcessLookupError):
        os.kill(here.pids[number], what)


def storm(field: Field, seed: int, blows: int, weather: Weather) -> Iterator[History]:
    """Yield one history after another, until `blows` have fallen."""
    chance, number = random.Random(seed), 0
    while blows > 0:
        number += 1
        with field.round(seed, number) as here:
            history = _round(here, chance, min(blows, weather.blows), weather)
        blows -= max(1, len(history.kills))
        yield history


def _round(here: Round, chance: random.Random, blows: int, weather: Weather) -> History:
    hosts = here.field.hosts
    for index in range(weather.provisioners):
        here.start(hosts[index % len(hosts)], *weather.options)
    for _ in range(blows):
        here.wait(lambda: _builder(here) in here.living or not here.living)
        if not here.living:
            break
        _blow(here, chance, weather)
    return here.finish()


def _blow(here: Round, chance: random.Random, weather: Weather) -> None:
    """Strike once: the builder while it builds, or just when it publishes; anybody; or a whole host."""
    kind = chance.choices(("build", "publish", "any", "host"), (40, 30, 15, 15))[0]
    moment, die = chance.random(), chance.random()
    if kind == "publish":
        ends = len(here.noted("end"))
        here.wait(lambda: len(here.noted("end")) > ends or not here.living, 2 * weather.build + weather.ttl)
        time.sleep(0.06 * moment)
    else:
        time.sleep(1.1 * weather.build * moment)
    living = here.living
    builder = _builder(here)
    if kind == "any":
        builder = chance.choice(sorted(living)) if living else None
    if builder is None or builder not in living:
        return
    if die < weather.stops:
        _stop(here, builder, weather)
        return
    host = living[builder].host
    for number, member in living.items():
        if number == builder or (kind == "host" and member.host == host):
            kill(here, number)
            here.history.kills.append((time.monotonic(), kind))
            here.start(chance.choice(here.field.hosts), *weather.options)


def _stop(here: Round, number: int, weather: Weather) -> None:
    """Stop a caller until it counts as dead, and let it go on."""
    kill(here, number, signal.SIGSTOP)
    here.history.kills.append((time.monotonic(), "stop"))
    here.wait(lambda: set(here.living) <= {number}, 3 * weather.ttl + 2 * weather.build)
    kill(here, number, signal.SIGCONT)


def _builder(here: Round) -> int | None:
    """Return the id of the caller that began a build last, if one did."""
    begun = here.noted("begin")
    pid = int(begun[-1].split()[2]) if begun else 0
    return next((number for number, other in reversed(here.pids.items()) if other == pid), None)
