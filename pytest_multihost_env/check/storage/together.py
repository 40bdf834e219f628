"""What it means what the hosts saw of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_multihost_env.check.doctor.finding import ERROR, OK, WARNING, Finding, finding
from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.storage.locks import GRANTED, HELD, REFUSED
from pytest_multihost_env.check.storage.rounds import Measured
from pytest_multihost_env.check.storage.rules import LOCKS, SIGHTS

LATE = 1.0
"""Seconds after which being late is worth a warning."""

AT_ONCE = 0.05

_OWN_CACHE = "give each host a cache of its own (UV_CACHE_DIR, PIP_CACHE_DIR, HF_HOME on local storage)"
_LOCK_MOUNTS = {
    "lustre": "mount Lustre with `flock` on all hosts",
    "nfs": "mount NFS without `nolock` and `local_lock`, with lockd reachable (version 3)",
    "fuse": "see whether the program behind the mount can pass locks on",
}


def findings(measured: Measured) -> Iterator[Finding]:
    """Yield what was measured between hosts; nothing when no two of them met."""
    if any(measured.seen.values()):
        yield from (_sight(measured, kind) for kind in SIGHTS)
    if measured.locks:
        yield from (one for kind in LOCKS if (one := _lock(measured, kind)).answers)
    if any(owner is not None for owners in measured.met.values() for owner in owners.values()):
        yield _owners(measured)


def machines(measured: Measured) -> Finding:
    """Say which hosts are one machine under two names: between them nothing can be late or local."""
    first: dict[str, str] = {}
    answers = {}
    for host, answer in measured.alone.items():
        other = first.setdefault(answer["machine"], host)
        answers[host] = (OK, "yes") if other == host else (WARNING, f"the same as {other}")
    return finding(
        "machine",
        "it is a machine of its own",
        answers,
        "{hosts} is another name of a host that is named too, so nothing was measured between the two",
        "name each machine once (--multihost-hosts)",
    )


# -- is it one directory? ----------------------------------------------------------------------------------------


def same(measured: Measured) -> Finding:
    """Say which hosts see what the others make."""
    groups = _groups(measured.met)
    usual = max(groups, key=len)
    answers = {}
    for host, owners in measured.met.items():
        lost = [maker for maker in owners if owners[maker] is None and maker in usual]
        if host not in usual:
            answers[host] = (ERROR, f"another than on {fold(usual)}")
        elif lost:
            answers[host] = (ERROR, f"does not list {fold(lost)}")
        else:
            answers[host] = (OK, "yes")
    return finding(
        "same",
        "it is the same directory",
        answers,
        f"what other hosts make in {measured.directory} was not listed on {{hosts}} within {measured.patience:g} s",
        "mount the same storage at this path on all hosts, or name a directory that they share; where the storage is the "
        "same and slow to list, look again with a longer --patience",
    )


def _groups(met: Mapping[str, Mapping[str, int | None]]) -> list[list[str]]:
    """Return the hosts in groups that see each other, at least in one direction."""
    groups: list[list[str]] = []
    for host, owners in met.items():
        near = {host, *(maker for maker, owner in owners.items() if owner is not None)}
        joined = [group for group in groups if near.intersection(group)]
        members = near.union(*joined)
        groups = [group for group in groups if group not in joined]
        groups.append([name for name in met if name in members])
    return sorted(groups, key=lambda group: list(met).index(group[0]))


# -- how late, and who keeps out whom ------------------------------------------------------------------------------


def _sight(measured: Measured, kind: str) -> Finding:
    question, sentence, remedy = SIGHTS[kind]
    answers = {}
    for host, makers in measured.seen.items():
        if makers:
            answers[host] = _lateness([seen.get(kind) for seen in makers.values()], measured.patience, kind)
    return finding(kind, question, answers, sentence, remedy)


def _lateness(seconds: list[float | None], patience: float, kind: str) -> tuple[str, str]:
    """Return verdict and text for the latest of the makers; None: it was not seen at all."""
    if None in seconds:
        return ERROR if kind == "listing" else WARNING, f"not within {patience:g} s"
    latest = max(second for second in seconds if second is not None)
    if latest <= AT_ONCE:
        return OK, "at once"
    # Whole seconds, so that hosts that are equally late are seen to be.
    return (OK, f"after {latest:.1f} s") if latest < LATE else (WARNING, f"after {latest:.0f} s")


def _lock(measured: Measured, kind: str) -> Finding:
    question, what, users = LOCKS[kind]
    answers = {
        host: _kept_out(host, found, kind) for host, found in measured.locks.items() if _tried(host, found, kind)
    }
    remedies = [_LOCK_MOUNTS[name] for name in _LOCK_MOUNTS if _lies_on(measured, name)]
    return finding(
        kind,
        question,
        answers,
        f"{what} keeps out nobody on other hosts (tried on {{hosts}}): nothing of ours relies on it, but {users}",
        "; or ".join([*remedies, _OWN_CACHE]),
    )


def _tried(host: str, found: Mapping[str, Mapping[str, str]], kind: str) -> bool:
    """Whether there was another host to keep out, or not even this one's own lock could be had."""
    return len(found) > 1 or found.get(host, {}).get(kind) != HELD


def _kept_out(host: str, found: Mapping[str, Mapping[str, str]], kind: str) -> tuple[str, str]:
    own = found.get(host, {}).get(kind, "")
    if own != HELD:
        return WARNING, f"fails: {own}" if own else "fails"
    outcomes = {maker: locks.get(kind, "") for maker, locks in found.items() if maker != host}
    granted = [maker for maker, outcome in outcomes.items() if outcome == GRANTED]
    failed = [outcome for outcome in outcomes.values() if outcome not in (GRANTED, REFUSED)]
    if granted:
        everywhere = len(granted) == len(outcomes)
        return WARNING, "local to each host" if everywhere else f"not shared with {fold(granted)}"
    if failed:
        return WARNING, f"fails: {failed[0]}"
    return OK, "shared"


def _lies_on(measured: Measured, kind: str) -> bool:
    return any(answer["mount"]["kind"].startswith(kind) for answer in measured.alone.values())


def _owners(measured: Measured) -> Finding:
    """Say whose the files of other hosts are here: they have to be this user's, or nothing of them is run."""
    answers = {}
    for host, owners in measured.met.items():
        me = measured.alone[host]["uid"]
        others = sorted({owner for owner in owners.values() if owner is not None})
        if strangers := [owner for owner in others if owner != me]:
            answers[host] = (ERROR, f"uid {strangers[0]}, not {me}")
        elif others:
            answers[host] = (OK, f"uid {me}")
    return finding(
        "owners",
        "what other hosts make belongs to",
        answers,
        "{hosts} see the files of the other hosts as somebody else's, and an environment of somebody else's is not run",
        "give the user one number on all hosts, or make the environment as the user that they all know",
    )
