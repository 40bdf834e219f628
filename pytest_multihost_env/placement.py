"""Which rank runs on which host, and what a test's `multihost` marker asks for.  Computes only."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeGuard

from pytest_multihost_env.errors import PlacementImpossible, UsageProblem
from pytest_multihost_env.model import Allocation, Host, Place, Placement, Shape
from pytest_multihost_env.names import valid_variable

SIGNATURE: Final = "multihost(ranks, hosts=None, per_host=None, timeout=None, fresh=False, env=None, secrets=None)"
_YEAR: Final = 366 * 24 * 3600
_PARAMETERS: Final = ("ranks", "hosts", "per_host", "timeout", "fresh", "env", "secrets")


@dataclasses.dataclass(frozen=True, slots=True)
class MarkerRequest:
    """What one marker asks for.

    Attributes:
        shapes: One for each number of ranks, in the order of the marker; each is a test id of its own.
        timeout: Limit for the test in seconds, or None: the setting's.
        fresh: The test wants ranks that no other test has used.
    """

    shapes: tuple[Shape, ...]
    timeout: float | None = None
    fresh: bool = False


def place(shape: Shape, allocation: Allocation) -> Placement:
    """Return a host for each rank of `shape`; ranks of one host are neighbours.

    With `hosts=H` exactly H hosts are used and the ranks are spread over them as evenly as their slots allow; with
    `per_host=P` the first hosts that have P slots hold P ranks each; with neither, the slots of the first host are
    filled, then those of the next, as mpirun does.

    Raises:
        PlacementImpossible: The allocation is too small, or the shape contradicts itself.
    """
    _refuse_contradiction(shape)
    if shape.per_host is not None:
        counts = _equal(shape, shape.per_host, allocation)
    elif shape.hosts is not None:
        counts = _spread(shape, shape.hosts, allocation)
    else:
        counts = _fill(shape, allocation)
    places: list[Place] = []
    for host, count in counts:
        places += [Place(len(places) + local, host.name, local) for local in range(count)]
    return Placement(tuple(places))


def _refuse_contradiction(shape: Shape) -> None:
    problem = _contradiction(shape)
    if problem or shape.ranks < 1:
        raise PlacementImpossible(problem or f"{shape.ranks} ranks are asked for", hint="ask for at least one rank")


def _contradiction(shape: Shape) -> str | None:
    ranks, hosts, per_host = shape.ranks, shape.hosts, shape.per_host
    if hosts is not None and hosts > ranks:
        return f"hosts={hosts} is more than ranks={ranks}: a host would have no rank"
    if per_host is not None and ranks % per_host:
        return f"ranks={ranks} is not a multiple of per_host={per_host}"
    if hosts is not None and per_host is not None and hosts * per_host != ranks:
        return f"hosts={hosts} with per_host={per_host} makes {hosts * per_host} ranks, not ranks={ranks}"
    return None


def _impossible(asked: str, allocation: Allocation, hint: str) -> PlacementImpossible:
    shown = ", ".join(f"{host.name}:{host.slots}" for host in allocation.hosts[:8])
    more = len(allocation.hosts) - 8
    return PlacementImpossible(
        f"{asked}; this job has {_count(len(allocation.hosts), 'host')} with {_count(allocation.slots, 'slot')}"
        f" ({shown}{f' and {more} more' if more > 0 else ''}, from {allocation.source})",
        hint=hint,
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _fill(shape: Shape, allocation: Allocation) -> list[tuple[Host, int]]:
    left = shape.ranks
    counts = []
    for host in allocation.hosts:
        count = min(left, host.slots)
        if count > 0:
            counts.append((host, count))
            left -= count
    if left:
        raise _impossible(
            f"{_count(shape.ranks, 'rank')} asked for",
            allocation,
            f"name hosts with at least {_count(shape.ranks, 'slot')} together, as in --multihost-hosts=n1:8,n2:8",
        )
    return counts


def _equal(shape: Shape, per_host: int, allocation: Allocation) -> list[tuple[Host, int]]:
    needed = shape.ranks // per_host
    wide = [host for host in allocation.hosts if host.slots >= per_host]
    if len(wide) < needed:
        raise _impossible(
            f"{_count(needed, 'host')} of {_count(per_host, 'slot')} asked for"
            f" (ranks={shape.ranks}, per_host={per_host}); {len(wide)} can hold that many",
            allocation,
            f"name {_count(needed, 'host')} with {_count(per_host, 'slot')} each, as in --multihost-hosts=n[1-{needed}]:{per_host}",
        )
    return [(host, per_host) for host in wide[:needed]]


def _spread(shape: Shape, hosts: int, allocation: Allocation) -> list[tuple[Host, int]]:
    share = math.ceil(shape.ranks / hosts)
    usable = [index for index, host in enumerate(allocation.hosts) if host.slots > 0]
    # The widest hosts, but no wider than an even share: among hosts that hold their share the first ones are taken.
    widest = sorted(usable, key=lambda index: -min(allocation.hosts[index].slots, share))
    chosen = [allocation.hosts[index] for index in sorted(widest[:hosts])]
    if len(chosen) < hosts or sum(host.slots for host in chosen) < shape.ranks:
        raise _impossible(
            f"{_count(shape.ranks, 'rank')} on exactly {_count(hosts, 'host')} asked for",
            allocation,
            f"name {_count(hosts, 'host')} with {_count(share, 'slot')} each, as in --multihost-hosts=n[1-{hosts}]:{share}",
        )
    counts = [0] * hosts
    free = collections.deque(range(hosts))
    for _ in range(shape.ranks):
        index = free.popleft()
        counts[index] += 1
        if counts[index] < chosen[index].slots:
            free.append(index)
    return list(zip(chosen, counts, strict=True))


def shape_from_marker(args: Sequence[object], kwargs: Mapping[str, object]) -> MarkerRequest:
    """Return what `@pytest.mark.multihost(*args, **kwargs)` asks for.

    `ranks` may be a list.  Without `ranks`, `hosts` (times `per_host`) gives their number.

    Raises:
        UsageProblem: An argument is unknown, has the wrong type, or contradicts another.
    """
    given = _named(args, kwargs)
    hosts = _whole(given, "hosts")
    per_host = _whole(given, "per_host")
    env, secrets = _env(given.get("env")), _secrets(given.get("secrets"))
    shapes = tuple(Shape(ranks, hosts, per_host, env, secrets) for ranks in _ranks(given.get("ranks"), hosts, per_host))
    for shape in shapes:
        if problem := _contradiction(shape):
            raise _refuse(problem)
    fresh = given.get("fresh")
    if not isinstance(fresh, bool | None):
        raise _refuse(f"fresh={fresh!r} is not True or False")
    return MarkerRequest(shapes, _timeout(given.get("timeout")), bool(fresh))


def _refuse(problem: str) -> UsageProblem:
    return UsageProblem(
        f"@pytest.mark.multihost: {problem}", expected=SIGNATURE, hint="correct the arguments of the marker"
    )


def _named(args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
    if len(args) > len(_PARAMETERS):
        raise _refuse(f"{len(args)} arguments are more than it takes")
    given = dict(zip(_PARAMETERS, args, strict=False))
    for name, value in kwargs.items():
        if name not in _PARAMETERS:
            raise _refuse(f"it has no argument {name!r}")
        if name in given:
            raise _refuse(f"{name} is given twice")
        given[name] = value
    return given


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _whole(given: Mapping[str, object], name: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if not _is_count(value):
        raise _refuse(f"{name}={value!r} is not a whole number of at least 1")
    return value


def _ranks(value: object, hosts: int | None, per_host: int | None) -> list[int]:
    if value is None:
        if hosts is None:
            raise _refuse("ranks is missing")
        return [hosts * (per_host or 1)]
    asked: list[object] = list(value) if isinstance(value, list | tuple) else [value]
    if not asked:
        raise _refuse("ranks is an empty list")
    ranks: list[int] = []
    for one in asked:
        if not _is_count(one):
            raise _refuse(f"ranks={value!r} is not a whole number of at least 1, or a list of them")
        ranks.append(one)
    if len(set(ranks)) < len(ranks):
        raise _refuse(f"ranks={value!r} names a number twice")
    return ranks


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _YEAR:
        raise _refuse(f"timeout={value!r} is not a positive number of seconds of at most a year")
    return float(value)


def _secrets(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise _refuse("secrets is not a list of names")
    return tuple(sorted(set(value)))


def _env(value: object) -> tuple[tuple[str, str | None], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise _refuse(f"env is of type {type(value).__name__}, not a dict of strings")
    for name, content in value.items():
        if not isinstance(name, str) or not valid_variable(name):
            raise _refuse(f"env has {name!r}, which is not a variable name")
        if content is not None and (not isinstance(content, str) or "\0" in content):
            kind = (
                "contains a NUL"
                if isinstance(content, str)
                else f"is of type {type(content).__name__}, not a string or None"
            )
            raise _refuse(f"env[{name!r}] {kind}")
    return tuple(sorted(value.items(), key=lambda pair: pair[0]))
