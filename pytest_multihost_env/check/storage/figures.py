"""What the numbers mean that each host measured: mounts, room, owners, times."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping

from pytest_multihost_env.check.doctor.finding import ERROR, OK, WARNING, Finding, finding
from pytest_multihost_env.check.storage.rounds import Answer

ROOM, FILES = 2 << 30, 50_000
"""Under this many bytes and files an environment with a deep-learning framework has no place (41,000 files)."""

SLOW = 5_000.0
"""µs for one call after which making an environment is a matter of minutes."""

_SPREAD, _FAST = 4.0, 500.0
"""Hosts that differ by no more than this factor are one; a host is not slow by under so many µs."""

_TELLING = [
    "ro",
    "noexec",
    "sync",
    "flock",
    "noflock",
    "localflock",
    "local_lock",
    "nolock",
    "lookupcache",
    "noac",
    "actimeo",
    "acdirmin",
    "acdirmax",
    "soft",
    "vers",
    "nfsvers",
    "cache",
    "mfsymlinks",
]
"""Options that explain an answer; the rest only fill the line.  JSON has all of them."""

_NAMES = {"create": "create", "stat": "stat", "unlink": "remove"}

Answers = Mapping[str, Answer]


def mounts(alone: Answers) -> Iterator[Finding]:
    """Yield what the directory lies on."""
    if alone:
        yield finding("mount", "file system", {host: (OK, _mount(answer)) for host, answer in alone.items()})


def _mount(answer: Answer) -> str:
    mount = answer["mount"]
    told = [option for option in mount["options"] if option.partition("=")[0] in _TELLING]
    where = "mounted here" if mount["point"] == answer["directory"] else f"at {mount['point']}"
    return f"{mount['kind']}, {where}" + (f" ({','.join(told)})" if told else "")


def findings(able: Answers) -> Iterator[Finding]:
    """Yield room, owner and times."""
    yield _room(able)
    yield _owner(able)
    yield _times(able)


def _room(able: Answers) -> Finding:
    free = _near({host: answer["space"]["bytes"] for host, answer in able.items()})
    files = _near({host: answer["space"]["files"] for host, answer in able.items()})
    answers = {}
    for host, answer in able.items():
        counted_files = bool(answer["space"]["all_files"])
        little = free[host] < ROOM or (counted_files and files[host] < FILES)
        room = f"{_size(free[host])}, " + (f"{_number(files[host])} files" if counted_files else "any number of files")
        answers[host] = (WARNING if little else OK, room)
    return finding(
        "space",
        "free for this user",
        answers,
        "there is little room on {hosts}: an environment with a deep-learning framework needs 5 GiB and 41,000 files",
        "free some space, or choose a directory on another file system",
    )


def _owner(able: Answers) -> Finding:
    answers = {}
    for host, answer in able.items():
        me, owner = answer["uid"], answer["owner"]
        answers[host] = (OK, f"uid {me}") if owner == me else (ERROR, f"uid {owner}, not {me}")
    squashed = any(answer["uid"] == 0 != answer["owner"] for answer in able.values())
    return finding(
        "owner",
        "what I make belongs to",
        answers,
        "on {hosts} "
        + (
            "root's files become somebody else's (root squash)"
            if squashed
            else "this user's files become somebody else's"
        )
        + ", and an environment of somebody else's is not run",
        "run as an ordinary user" if squashed else "see to the mapping of users on that mount",
    )


def _times(able: Answers) -> Finding:
    """Say how long a call takes, in one text for all hosts but for those that are much slower than the others."""
    worst = {host: max(answer["latency"].values()) for host, answer in able.items()}
    usual = statistics.median(worst.values())
    alike = [host for host in able if usual / _SPREAD <= worst[host] <= usual * _SPREAD]
    common = _spans([able[host]["latency"] for host in alike])
    answers = {}
    for host, longest in worst.items():
        late = longest > SLOW or longest > max(_SPREAD * usual, _FAST)
        answers[host] = (WARNING if late else OK, common if host in alike else _spans([able[host]["latency"]]))
    minutes = 41_000 * max(worst.values()) * 2 / 60e6
    return finding(
        "latency",
        "one call takes (µs)",
        answers,
        f"each call takes long on {{hosts}}: 41,000 files one after the other take about {minutes:.0f} min",
        "expect a first build to take long; `--multihost-local` will not need this storage again",
    )


def _spans(latencies: list[Mapping[str, float]]) -> str:
    parts = []
    for name, shown in _NAMES.items():
        low, high = (pick(latency[name] for latency in latencies) for pick in (min, max))
        parts.append(f"{shown} {_number(low)}" + (f"-{_number(high)}" if _number(low) != _number(high) else ""))
    return ", ".join(parts)


def _near(values: Mapping[str, int]) -> dict[str, int]:
    """Return the smallest of all for all when they hardly differ: the hosts did not look at the same moment."""
    least = min(values.values())
    alike = max(values.values()) <= 1.05 * least
    return dict.fromkeys(values, least) if alike else dict(values)


def _size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{_number(number)} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _number(number: float) -> str:
    """Return two digits of it, which is all that is known."""
    if number >= 100:
        step = 10 ** (math.floor(math.log10(number)) - 1)
        number = round(number / step) * step
    for power, unit in ((1e9, " G"), (1e6, " M")):
        if number >= power:
            return _digits(number / power) + unit
    return _digits(number)


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}"


def counted(number: int, thing: str) -> str:
    """Return `1 error`, `2 errors`."""
    return f"{number} {thing}" + ("" if number == 1 else "s")
