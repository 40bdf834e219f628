"""Take away what nobody needs any more: older environments, what dead builders left, records of failures.

Everything goes by the protocol in `pins`: an environment is doomed first, and removed only when nobody holds it then.
Only what a listing of our own store showed is touched, and no symlink is followed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.provision import actor, failures, pins, publish
from pytest_multihost_env.provision.publish import DOOMED, READY, Slot, listed
from pytest_multihost_env.provision.target import Place, of_target
from pytest_multihost_env.provision.trust import NOBODY_ELSE, Trust, trusted_path

ENVIRONMENT, BUILD, FAILURE, REPLACED = "environment", "unfinished build", "failed build", "put aside"


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What may go.

    Attributes:
        keep: So many of the newest environments stay.
        older_than: Seconds; only what was published longer ago goes.
        replaced: What `--force` has put aside goes too.
        dry_run: Only say what would go.
        trust: Whom to trust besides this user and root: in their stores one may clear up too.
    """

    keep: int = 1
    older_than: float = 0.0
    replaced: bool = False
    dry_run: bool = False
    trust: Trust = NOBODY_ELSE


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        path: Where it is.
        kept: It stays.
        why: The reason for either.
        size: Bytes that its removal frees, or would; 0 for what stays.
        left: What could not be removed, since it is in use or another's.
    """

    what: str
    path: Path
    kept: bool
    why: str
    size: int = 0
    left: tuple[Path, ...] = ()


def collect(target: Path, wish: Wish | None = None) -> list[Item]:
    """Clear up beside `target` and return what was found there and what became of it.

    Raises:
        UsageProblem: Nothing was ever made for `target`.
        NotReady: Somebody else could change what is there.
    """
    place, wish = of_target(target), wish or Wish()
    if not place.home.parent.is_dir() or not all(files.is_listed(path) for path in (place.home, place.store)):
        raise UsageProblem(
            f"no environment was made for {place.target}",
            expected=f"the directory {place.home}",
            hint="name the TARGET that was given to `multihost-env provision`",
        )
    trusted_path(place.store, wish.trust)
    return list(_Collector(place, wish).items())


class _Collector:
    """One gc."""

    def __init__(self, place: Place, wish: Wish) -> None:
        self.place = place
        self.wish = wish
        self.now = files.server_time(place.store)

    def items(self) -> Iterator[Item]:
        slots = [slot for slot in publish.slots(self.place) if _is_directory(slot.path)]
        doomed = [slot for slot in slots if slot.is_doomed()]
        ready = [slot for slot in slots if slot not in doomed and READY in slot.names()]
        ready.sort(key=_published, reverse=True)
        for rank, slot in enumerate(ready):
            environment = self._environment(slot, rank)
            yield environment
            if environment.kept and environment.path != slot.attempts:  # which of them stands is known
                yield from self._remains(slot, environment.path.name)
        for slot in slots:
            if slot in doomed:
                yield from self._doomed(slot)
            elif slot not in ready:
                yield from self._unfinished(slot)
        yield from self._replaced()

    # -- environments --------------------------------------------------------------------------------------------

    def _environment(self, slot: Slot, rank: int) -> Item:
        reasons = [*self._held(slot), *self._wanted(slot, rank)]
        path = _winner(slot)
        if reasons:
            unknown = ["its READY cannot be read, so nothing in it is touched"] if path == slot.attempts else []
            return Item(ENVIRONMENT, path, kept=True, why="; ".join([*reasons, *unknown]))
        return self._remove(slot, Item(ENVIRONMENT, path, kept=False, why=self._unwanted()))

    def _unwanted(self) -> str:
        if self.wish.keep == 0:
            return "nobody uses it"
        return "older than the newest" + (f" {self.wish.keep}" if self.wish.keep > 1 else "")

    def _wanted(self, slot: Slot, rank: int) -> Iterator[str]:
        if rank < self.wish.keep:
            yield "the newest" if rank == 0 else f"one of the newest {self.wish.keep}"
        if _leads(self.place) == slot.name:
            yield f"{self.place.target.name} leads to it"
        if self.wish.older_than and not self._is_older(slot.path / READY, self.wish.older_than):
            yield "not old enough"

    def _held(self, slot: Slot) -> list[str]:
        living = pins.living(pins.found(slot, self.now))
        more = f" and {len(living) - 1} more" if len(living) > 1 else ""
        return [f"in use by {living[0]}{more}"] if living else []

    def _doomed(self, slot: Slot) -> Iterator[Item]:
        """Go on with what an earlier gc has begun."""
        if not listed(slot.attempts) and READY not in slot.names():
            return
        item = Item(ENVIRONMENT, _winner(slot), kept=False, why="an earlier gc had begun to remove it")
        held = self._held(slot)
        if held:
            yield dataclasses.replace(item, kept=True, why=f"goes as soon as it is free: {held[0]}")
        else:
            yield self._remove(slot, item)

    def _remove(self, slot: Slot, item: Item) -> Item:
        """Doom the slot and take away what is in it, unless somebody holds it after all."""
        item = dataclasses.replace(item, size=sum(_size(slot.attempts / name) for name in listed(slot.attempts)))
        if self.wish.dry_run:
            return item
        me = json.dumps({"gc": dataclasses.asdict(actor.myself())}).encode("ascii")
        try:
            with contextlib.suppress(FileExistsError):
                slot.pins.mkdir(mode=0o755)
            files.publish_once(slot.pins / DOOMED, me)
        except OSError as error:
            return dataclasses.replace(item, kept=True, why=f"cannot be removed: {error.strerror}", left=(slot.path,))
        held = self._held(slot)
        if _leads(self.place) == slot.name:
            held.append(f"{self.place.target.name} leads to it")
        if held:
            return dataclasses.replace(item, kept=True, size=0, why=f"goes as soon as it is free: {held[0]}")
        return dataclasses.replace(item, left=self._empty(slot))

    def _empty(self, slot: Slot) -> tuple[Path, ...]:
        """Delete what is in a doomed slot, by the names that stand there now; the directories stay."""
        files.delete_file(slot.path / READY)
        left: list[Path] = []
        for name in sorted(listed(slot.attempts)):
            left += files.remove_tree(slot.attempts / name)
        for name in listed(slot.lease):
            files.delete_file(slot.lease / name)
        for pin in pins.found(slot, self.now):
            if not pin.lives:
                files.delete_file(pin.path)
        for name in slot.names():
            if name.startswith((".", "FAIL-")):
                files.delete_file(slot.path / name)
        return tuple(left)

    # -- what builders left --------------------------------------------------------------------------------------

    def _remains(self, slot: Slot, winner: str) -> Iterator[Item]:
        """Take away what stands beside the environment of `slot`: attempts of dead builders, records of failures."""
        for name in _attempts(slot):
            if name == winner:
                continue
            item = Item(BUILD, slot.attempts / name, kept=False, why="its builder has ended")
            if (builder := self._builder(slot, name)) is not None:
                yield dataclasses.replace(item, kept=True, why=builder)
            else:
                item = dataclasses.replace(item, size=_size(item.path))
                yield item if self.wish.dry_run else dataclasses.replace(item, left=slot.discard(item.path))
        yield from self._failures(slot)
        if not self.wish.dry_run:
            self._tidy(slot)

    def _unfinished(self, slot: Slot) -> Iterator[Item]:
        """Take away a slot in which nothing was ever ready, when nobody builds there; a late builder finds DOOMED."""
        attempts = _attempts(slot)
        builders = [builder for name in attempts if (builder := self._builder(slot, name)) is not None]
        if builders:
            yield Item(BUILD, slot.attempts, kept=True, why=builders[0])
        elif attempts:
            yield self._remove(slot, Item(BUILD, slot.attempts, kept=False, why="its builder has ended"))
        yield from self._failures(slot)

    def _builder(self, slot: Slot, attempt: str) -> str | None:
        """Return who may still build `attempt`; None when that is nobody."""
        try:
            if f"{attempt}.json" not in listed(slot.attempts):
                return "no record says whose it is"
            builder, _ = slot.builder(attempt)
        except (OSError, ValueError):
            return "its record does not say whose it is"
        signs = [slot.attempts / f"{attempt}.json", *(slot.lease / name for name in listed(slot.lease))]
        alive = not builder.is_gone() if builder.is_near() else not all(self._is_older(p, pins.SILENT) for p in signs)
        return f"built by {builder}" if alive else None

    def _failures(self, slot: Slot) -> Iterator[Item]:
        for name in sorted(slot.failures()):
            path = slot.path / name
            if self.wish.older_than and not self._is_older(path, self.wish.older_than):
                yield Item(FAILURE, path, kept=True, why="not old enough")
                continue
            item = Item(FAILURE, path, kept=False, why=failures.read(slot.path, name).error.what, size=_size(path))
            if not self.wish.dry_run:
                files.delete_file(path)
            yield item

    def _tidy(self, slot: Slot) -> None:
        """Delete pins of processes that have surely ended, and what one that was killed in a call of `files` left."""
        for pin in pins.found(slot, self.now):
            ended = pin.user is not None and pin.user.is_gone()
            if not pin.lives and (ended or self._is_older(pin.path, pins.MUTE)):
                files.delete_file(pin.path)
        for directory in (slot.path, slot.pins, slot.lease):
            for name in files.names(directory) if _is_directory(directory) else ():
                if name.startswith(".") and self._is_older(directory / name, pins.SILENT):
                    files.delete_file(directory / name)

    def _replaced(self) -> Iterator[Item]:
        for name in sorted(files.names(self.place.home)):
            path = self.place.home / name
            if not name.startswith("replaced-"):
                continue
            if not self.wish.replaced:
                yield Item(REPLACED, path, kept=True, why="--force put it aside; --replaced removes it")
                continue
            item = Item(REPLACED, path, kept=False, why="--force put it aside", size=_size(path))
            yield item if self.wish.dry_run else dataclasses.replace(item, left=files.remove_tree(path))

    def _is_older(self, path: Path, seconds: float) -> bool:
        """Return whether `path` is gone or was last changed more than `seconds` ago by the file server's clock."""
        try:
            return self.now is not None and self.now - path.lstat().st_mtime > seconds
        except FileNotFoundError:
            return True
        except OSError:
            return False


def total(items: Iterable[Item]) -> int:
    """Return the bytes that were freed, or would be."""
    return sum(item.size for item in items if not item.kept)


def _published(slot: Slot) -> float:
    """Return when the environment of `slot` was published, by the file server's clock."""
    try:
        return (slot.path / READY).lstat().st_mtime
    except OSError:
        return 0.0


def _winner(slot: Slot) -> Path:
    """Return the attempt that stands in `slot`, or where attempts are when the record does not say."""
    try:
        ready = slot.ready()
    except (OSError, NotReady):
        ready = None
    return slot.attempts / ready.attempt if ready is not None else slot.attempts


def _leads(place: Place) -> str | None:
    """Return the name of the slot that the target leads to."""
    try:
        if files.is_listed(place.target):
            parts = Path(files.read_link(place.target) or "").parts
            if parts[:2] == (place.home.name, place.store.name):
                return parts[2]
    except (OSError, IndexError):
        pass
    return None


def _attempts(slot: Slot) -> list[str]:
    return sorted({name.removesuffix(".json") for name in listed(slot.attempts)})


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _size(path: Path) -> int:
    """Return the bytes of the files in and below `path`; what cannot be looked at counts nothing."""
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size if stat.S_ISREG(status.st_mode) else 0
        with os.scandir(path) as listing:
            return sum(_size(Path(entry.path)) for entry in listing)
    except OSError:
        return 0
