"""The store beside the target: attempts, the one record that says which of them stands, and what failed.

    .python_env.d/v1/<key>/att/<host>-<pid>-<random>/        built here, never renamed, never reused
    .python_env.d/v1/<key>/att/<host>-<pid>-<random>.json    who builds it
    .python_env.d/v1/<key>/READY                             made once: which attempt stands, and its manifest's digest
    .python_env.d/v1/<key>/FAIL-<host>-<pid>-<random>        why that build failed
    .python_env.d/v1/<key>/lease/                            who should build
    .python_env.d/v1/<key>/pins/                             who uses it, and whether it is being taken away (`pins`)

A second environment for the same key, asked for by force or because the first is damaged or doomed, has `<key>.1`, and
so on.  No number is used twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import actor, failures
from pytest_multihost_env.provision.actor import Actor
from pytest_multihost_env.provision.lease import Sighting
from pytest_multihost_env.provision.sharing import NOBODY, Sharing
from pytest_multihost_env.provision.target import Place

READY = "READY"
DOOMED = "DOOMED"
_SLOT = re.compile(r"\w+(\.\d+)?")


class Doomed(Exception):
    """The environment is being taken away: another has to be made, in another slot."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """What stands in `READY`.

    Attributes:
        attempt: Name of the attempt that won.
        digest: sha256 of its manifest.
        builder: Who built it.
        uid: Who owns the record.
    """

    attempt: str
    digest: str
    builder: Actor
    uid: int


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """Where the builders of one environment meet.

    Attributes:
        place: Source and target.
        name: Of its directory.
        made: Its directories are known to be there; a call that waits need not look for them from above each time.
    """

    place: Place
    name: str
    made: bool = False

    @property
    def path(self) -> Path:
        """The slot's directory."""
        return self.place.store / self.name

    @property
    def attempts(self) -> Path:
        """Where the attempts are."""
        return self.path / "att"

    @property
    def lease(self) -> Path:
        """Where the lease is."""
        return self.path / "lease"

    @property
    def pins(self) -> Path:
        """Where those are noted who use the environment."""
        return self.path / "pins"

    def make(self, sharing: Sharing = NOBODY) -> None:
        """Create the directories that are missing.

        Raises:
            NotReady: They cannot be made.
        """
        try:
            for path in reversed([path for path in self.place.home.parents if not path.exists()]):
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o777 & ~sharing.umask)
                    if sharing.group is not None:
                        sharing.settle(path)
            for path in (self.place.home, self.place.store, self.path, self.attempts, self.lease, self.pins):
                sharing.make(path)
        except OSError as error:
            squashed = os.geteuid() == 0 and isinstance(error, PermissionError)
            raise NotReady(
                f"the environment cannot be made: {error.strerror}" + (", though this is root" if squashed else ""),
                where=error.filename,
                hint="the file server maps root to somebody else (root_squash): run this as a user who may write there"
                if squashed
                else "choose a target that this user can write to",
            ) from None

    def names(self) -> frozenset[str]:
        """Return what is in the slot, which need not exist."""
        if self.made:
            return files.names(self.path)
        for directory in (self.place.home, self.place.store, self.path):
            if not directory.parent.is_dir() or not files.is_listed(directory):
                return frozenset()
        return files.names(self.path)

    def is_doomed(self, listing: frozenset[str] | None = None) -> bool:
        """Return whether the environment is being taken away: nobody may begin to use it.

        Args:
            listing: What is in the slot, by somebody who has just looked.

        Raises:
            OSError: The slot cannot be read.
        """
        return self.pins.name in (listing or self.names()) and DOOMED in files.names(self.pins)

    def ready(self, listing: frozenset[str] | None = None) -> Ready | None:
        """Return what stands, or None while nothing does; `listing` as for `is_doomed`.

        Raises:
            NotReady: The record is not one of ours.
            OSError: The slot cannot be read.
        """
        if READY not in (listing or self.names()):
            return None
        try:
            return read_ready(self.path)
        except FileNotFoundError:
            if READY in self.names():
                raise
            return None  # a gc took it away after the first look

    def begin(self, builder: Actor, lease_number: int) -> Path:
        """Return where `builder` may build: a directory that does not exist yet, with a record of whose it is."""
        host = re.sub(r"[^\w-]", "_", builder.host.partition(".")[0])[:32] or "host"
        attempt = self.attempts / f"{host}-{builder.pid}-{secrets.token_hex(6)}"
        record = {"builder": dataclasses.asdict(builder), "lease": lease_number}
        files.write_new(_record_of(attempt), _dump(record))
        return attempt

    def publish(self, attempt: Path, digest: str, builder: Actor) -> Ready:
        """Have `attempt` on disk and make it the one that stands, unless another does; return which one stands.

        Raises:
            OSError: Nothing stands and nothing could be made to.
        """
        files.sync_tree(attempt)
        files.sync_directory(self.attempts)
        record = {"attempt": attempt.name, "manifest_sha256": digest, "builder": dataclasses.asdict(builder)}
        files.publish_once(self.path / READY, _dump(record))
        return read_ready(self.path)

    def failures(self) -> frozenset[str]:
        """Return the names of the records of failed builds."""
        return failures.names(self.names())

    def discard(self, attempt: Path) -> tuple[Path, ...]:
        """Delete an attempt that did not win, and then its record; return what could not be deleted."""
        left = files.remove_tree(attempt)
        if not left:
            files.delete_file(_record_of(attempt))
        return left

    def sweep(self, ready: Ready, now: Sighting) -> None:
        """Delete what dead builders left; only after `ready` stands, since one that is only slow could publish it.

        An attempt goes when its process is known to have ended, or when its claim on the lease is an old one.
        """
        listing = files.names(self.attempts)
        for name in sorted(listing):
            attempt = self.attempts / name
            if name == ready.attempt or f"{name}.json" not in listing:
                continue
            if self._is_dead(attempt, now):
                self.discard(attempt)
        for name in listing:
            owner = name.removesuffix(".json")
            if (
                owner not in {name, ready.attempt}
                and owner not in listing
                and self._is_dead(self.attempts / owner, now)
            ):
                files.delete_file(self.attempts / name)
        for name in self.failures():
            files.delete_file(self.path / name)

    def _is_dead(self, attempt: Path, now: Sighting) -> bool:
        try:
            builder, number = self.builder(attempt.name)
        except (OSError, ValueError):
            return False
        if builder.is_near():
            return builder.is_gone()
        return 0 < number < now.number

    def builder(self, attempt: str) -> tuple[Actor, int]:
        """Return who builds `attempt`, and with which claim on the lease.

        Raises:
            OSError: The record cannot be read.
            ValueError: It does not say.
        """
        record = json.loads(files.read_record(self.attempts / f"{attempt}.json").data)
        try:
            return actor.parse(record["builder"]), int(record["lease"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"the record of {attempt} does not say who builds it: {error}") from None


def read_ready(slot: Path) -> Ready:
    """Return what stands in the slot's record, which was listed.

    Raises:
        NotReady: The record is not one of ours.
        OSError: It cannot be read.
    """
    found = files.read_record(slot / READY)
    try:
        record = json.loads(found.data)
        attempt, digest = str(record["attempt"]), str(record["manifest_sha256"])
        builder = actor.parse(record["builder"])
        if not re.fullmatch(r"[\w-]+", attempt):
            raise ValueError(f"an attempt cannot be called {attempt!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise NotReady(
            f"{slot / READY} is not a record of this package: {error}",
            hint=f"remove {slot}, or choose another target",
        ) from None
    return Ready(attempt, digest, builder, found.uid)


def newest(place: Place, key: str) -> tuple[int | None, int]:
    """Return the highest number of an environment for `key` that may be used, and the number for the next one."""
    following = 0
    for number in sorted(_numbers(place, key), reverse=True):
        found = slot(place, key, number)
        names = files.names(found.path)  # it was listed, and no slot ever goes
        doomed = found.pins.name in names and DOOMED in files.names(found.pins)
        if doomed or READY in names:
            following = max(following, number + 1)
        if READY in names and not doomed:
            return number, following
    return None, following


def slot(place: Place, key: str, number: int) -> Slot:
    """Return the slot for the environment `number` of `key`."""
    return Slot(place, f"{key}.{number}" if number else key)


def slot_of(environment: Path) -> Slot:
    """Return the slot that `environment`, the path of a generation, is in."""
    path = environment.parent.parent
    home = path.parent.parent
    target = home.with_name(home.name.removeprefix(".").removesuffix(".d"))
    return Slot(Place(source=target, target=target, foreign=False), path.name)


def slots(place: Place) -> list[Slot]:
    """Return all slots of the store, which need not exist."""
    return [Slot(place, name) for name in sorted(Slot(place, ".").names()) if _SLOT.fullmatch(name)]


def listed(directory: Path) -> frozenset[str]:
    """Return the names in a directory of a slot; none when somebody who needed the room has deleted it."""
    try:
        return files.names(directory)
    except FileNotFoundError:
        return frozenset()


def _numbers(place: Place, key: str) -> set[int]:
    parts = (found.name.partition(".") for found in slots(place))
    return {int(number or 0) for stem, _, number in parts if stem == key}


def point(place: Place, attempt: Path) -> None:
    """Make the target a relative symlink to `attempt`; what is there and not ours is put aside.

    Raises:
        NotReady: It cannot be.
    """
    text = os.path.relpath(attempt, place.target.parent)
    try:
        if place.foreign and files.is_listed(place.target) and not place.target.is_symlink():
            place.target.rename(place.home / f"replaced-{secrets.token_hex(4)}")
        if not _points(place.target, text):
            files.swap_link(place.target, text)
    except OSError as error:
        raise NotReady(
            f"{place.target} cannot be made to point to the environment: {error.strerror}",
            where=str(attempt),
            hint="remove what is there, or make its directory writable",
        ) from None


def _points(link: Path, text: str) -> bool:
    return files.is_listed(link) and link.is_symlink() and os.readlink(link) == text  # noqa: PTH115 - compared as text


def _record_of(attempt: Path) -> Path:
    return attempt.with_name(f"{attempt.name}.json")


def _dump(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode("ascii")
