"""Storage that loses replies, fails at random, lists late, has no links or no room: whole, or refused in words."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.provision import target
from tests.integration.tiny import make_source
from tests.storm import alone, blows, oracle
from tests.storm.blows import Weather
from tests.storm.field import Field
from tests.storm.history import faults
from tests.storm.scale import SEED, scaled
from tests.testbed.mounts import StaleMounts
from tests.testbed.stalefs import READ_ONLY

Mounts = Callable[..., StaleMounts]
Figure = Callable[[str], None]


def refusal(source: Path, target: Path) -> str | None:
    """Provision, and return in which words it was refused; None when it was not."""
    try:
        alone.ensure(source, target)
    except (NotReady, UsageProblem) as error:
        return str(error)
    return None


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pytest_multihost_env.provision.ensure"], "_DOUBT", 0.3)  # not the function


@pytest.fixture
def source(special: Path) -> Path:
    return make_source(special / "source")


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("link", "EIO"),
        ("link", "EEXIST"),  # sent again, and found to be there: as NFS has it
        ("rename", "EIO"),
        ("rename", "ENOENT"),
        ("symlink", "EIO"),
        ("symlink", "EEXIST"),
    ],
)
def test_a_lost_reply_neither_loses_nor_doubles(
    stale_mounts: Mounts, source: Path, operation: str, answer: str, figure: Figure
) -> None:
    """L7."""
    storage = stale_mounts("n1", cache=0.1, seed=SEED)
    # A symlink publishes where there are no hard links.
    kind = {"only": "/READY", "refuse": {"link": "EPERM"}} if operation == "symlink" else {}
    count = scaled(5, 100)
    for number in range(count):
        target = storage.mounts["n1"] / f"{operation} {number}" / "python_env"
        with storage.faults("n1", lose={operation: 1.0}, lost=answer, **kind):
            made = alone.whole(source, target)
        assert not made.reused
        assert alone.ensure(source, target).path == made.path
        assert {path.name for path in target.parent.iterdir()} == {"python_env", ".python_env.d"}
    figure(f"{count} provisions, each reply to {operation} lost ({answer}): 0 lost, 0 doubled")


def test_a_lost_reply_where_the_client_remembers_that_there_was_nothing(stale_mounts: Mounts, source: Path) -> None:
    storage = stale_mounts("n1", cache=2.0)
    for operation in ("link", "rename"):
        with storage.faults("n1", lose={operation: 1.0}):
            assert not alone.whole(source, storage.mounts["n1"] / operation / "python_env").reused


def test_a_target_that_this_host_had_asked_for_too_early(stale_mounts: Mounts, source: Path) -> None:
    """Its client says that there is none for a while after another host has made it; the listing has it."""
    storage = stale_mounts("n1", "n2", cache=2.0)
    here, there = (storage.mounts[host] / "python_env" for host in ("n1", "n2"))
    assert not here.exists()
    made = alone.ensure(source, there)
    assert not here.exists(), "this client remembers nothing: the test shows nothing"
    found = target.examine(source, here)
    assert not found.foreign
    assert (here.parent / here.readlink()).name == made.path.name


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EOPNOTSUPP"])
def test_without_hard_links_a_symlink_publishes(stale_mounts: Mounts, source: Path, error: str) -> None:
    storage = stale_mounts("n1", "n2")
    with storage.faults(refuse={"link": error}):
        made = alone.whole(source, storage.mounts["n1"] / "python_env")
        again = alone.ensure(source, storage.mounts["n1"] / "python_env")
    assert again.path == made.path
    assert again.reused
    assert (made.path.parent.parent / "READY").is_symlink()


def test_without_any_link_it_is_refused(stale_mounts: Mounts, source: Path) -> None:
    storage = stale_mounts("n1")
    target = storage.mounts["n1"] / "python_env"
    with storage.faults(refuse={"link": "EPERM", "symlink": "EPERM"}), pytest.raises(NotReady, match="EPERM"):
        alone.ensure(source, target)
    assert not list(storage.backing.rglob("READY"))
    assert not alone.whole(source, storage.mounts["n1"] / "python_env").reused


def test_errors_at_random(stale_mounts: Mounts, source: Path, figure: Figure) -> None:
    """L6: up to 5 % of all calls."""
    storage, chance = stale_mounts("n1", cache=0.5, seed=SEED), random.Random(SEED)
    count, refused = scaled(15, 150), 0
    for number in range(count):
        target = storage.mounts["n1"] / f"faulty {number}" / "python_env"
        share = chance.choice((0.002, 0.01, 0.05))
        with storage.faults("n1", fail={"ESTALE": share / 2, "EIO": share / 2}):
            refused += refusal(source, target) is not None
        assert not oracle.lacks(alone.ensure(source, target).path, source)
    figure(f"{count} provisions, up to 5 % of all calls failing: {refused} refused in words, then made; 0 corrupt")
    assert 0 < refused < count


def test_a_storm_of_errors_and_kills(fields: Callable[..., Field], stale_mounts: Mounts, figure: Figure) -> None:
    storage = stale_mounts("n1", "n2", cache=2.0, seed=SEED)
    weather = Weather(provisioners=4, blows=1, ttl=1.5)
    refused = rounds = 0
    bad = {"fail": {"ESTALE": 0.001, "EIO": 0.001}, "listing_cache": 0.5, "only": "python_env"}
    with fields(storage=storage) as field, storage.faults(**bad):
        for history in blows.storm(field, SEED, scaled(3, 30), weather):
            rounds += 1
            for member in history.members:
                if member.code == 3:  # it may say so, in words
                    assert "Traceback" not in member.said
                    member.killed = True
                    refused += 1
                member.lacks = [text for text in member.lacks if not _is_of_the_fault(text)]
            history.sights = [sight for sight in history.sights if not _is_of_the_fault(sight.text)]
            assert not faults(history)
    figure(
        f"seed {SEED}: {rounds} rounds with kills, stale listings and failing calls: {refused} refused in words, 0 corrupt"
    )


def _is_of_the_fault(text: str) -> bool:
    """An observer, too, is lied to: that its own call failed is no news of the environment."""
    return any(word in text for word in ("Input/output error", "Stale file handle", "No such file or directory"))


def test_no_room_for_one_record(stale_mounts: Mounts, source: Path) -> None:
    """L8: the disk is full at the very moment at which one of the small files is made that everything depends on."""
    storage, refused = stale_mounts("n1", cache=0.5), set()
    records = (".READY.", "/READY", "manifest", "/lease/", "/pins/", ".json")
    for number, (record, call) in enumerate(itertools.product(records, ("create", "write", "link"))):
        target = storage.mounts["n1"] / f"full {number}" / "python_env"
        with storage.faults("n1", refuse={call: "ENOSPC"}, only=record):
            said = refusal(source, target)
        if said is not None:
            refused.add((record, call))
            assert "No space left on device" in said
            assert "remedy: " in said
            assert not list(storage.backing.glob(f"full {number}/.python_env.d/v1/*/READY"))
            assert not list(storage.backing.glob(f"full {number}/.python_env.d/v1/*/att/*/bin"))
        alone.whole(source, target)
    assert list(storage.backing.rglob(".READY.*")) == []
    # Without a lease or a pin one goes on; without its record, its manifest or its name nothing may stand.
    assert refused == {
        *itertools.product((".READY.", "manifest", ".json"), ("create", "write")),
        ("/READY", "link"),
    }


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_room_that_ends_anywhere(stale_mounts: Mounts, source: Path, error: str, figure: Figure) -> None:
    """L8."""
    storage, chance = stale_mounts("n1", cache=0.5), random.Random(SEED)
    words = {"ENOSPC": "No space left on device", "EDQUOT": "Disk quota exceeded"}[error]
    count, refused = scaled(8, 60), 0
    for number in range(count):
        target = storage.mounts["n1"] / f"full {number}" / "python_env"
        with storage.faults("n1", room=chance.randrange(4500), no_room=error):
            said = refusal(source, target)
        if said is not None:
            refused += 1
            assert words in said
            assert "remedy: " in said
            assert not list(storage.backing.glob(f"full {number}/.python_env.d/v1/*/READY"))
            assert not list(storage.backing.glob(f"full {number}/.python_env.d/v1/*/att/*/bin"))
        alone.whole(source, target)
    figure(f"{count} provisions with room for 0 to 4500 bytes, then {error}: {refused} refused in words, nothing left")
    assert refused


def test_read_only_is_said_and_nothing_made(stale_mounts: Mounts, source: Path) -> None:
    storage = stale_mounts("n1")
    target = storage.mounts["n1"] / "python_env"
    with storage.faults(refuse=READ_ONLY), pytest.raises(NotReady, match="Read-only file system"):
        alone.ensure(source, target)
    assert not list(storage.backing.iterdir())
    alone.whole(source, target)
