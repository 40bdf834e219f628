"""Who uses an environment, and how one is taken away that nobody uses.

    .python_env.d/v1/<slot>/pins/<host>.<boot8>.<pid>.<start>.<random>   one process uses it
    .python_env.d/v1/<slot>/pins/DOOMED                                  it is being taken away; stays for ever

Whoever wants to use the environment of a slot, its builder too:

    U1  makes its pin in `pins/`
    U2  lists `pins/`; when DOOMED is there it takes its pin back and starts over, in a slot with a higher number

Whoever takes it away:

    G1  passes over a slot with a living pin
    G2  makes DOOMED in `pins/`, by the call that refuses an existing name
    G3  lists `pins/`; when a living pin is there it stops, and a later gc goes on from here
    G4  deletes READY, then what it has listed of attempts, lease and failures, then dead pins; never DOOMED

Nobody ever uses what is being deleted:

* U1 and G2 each make a name in one directory and then list that directory, so at least one of the two sees the other's
  name: if U2 saw no DOOMED, then G2 came after U2, so G3 came after U1 and saw the pin.  That both names stand in *one*
  directory matters on NFS: making a name tells the client the directory's version before and after (RFC 8881, 2.8
  `change_info4`; RFC 1813, `wcc_data`), so the listing that follows comes from no cache that is older than that.
* DOOMED is never taken back.  If it were, a gc that had passed G3 could sleep, and delete under those who came later.
* A slot's directory and number are never used again, and G4 deletes by names that it listed after G2; names of attempts
  are random.  So a gc that sleeps for a week and goes on can delete only what was doomed.  What stays of a slot is
  DOOMED and empty directories.
* A gc that dies anywhere leaves DOOMED or nothing.  With DOOMED nobody comes in any more, and the next gc goes on at G3.
  Two of them at the same time delete the same names.
* A builder that was taken for dead may still publish in a doomed slot, even a tree that lost files.  It is used by
  nobody: U2 holds for everybody, its builder included.

A pin lives while its process does.  On the process's own host that is seen.  From any other host a pin counts as dead
when its file is older than `SILENT` (`MUTE` for a process that cannot beat: a shell), both times stamped by the server
of the files: the pin's by its last beat, "now" by a file that was just written beside it.  Times are long: a job may be
suspended for hours, and the price of a pin too many is disk space.  (Where each host stamps its own files, as on Lustre,
the age is off by as much as two clocks differ, which is little against a day.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import actor, publish
from pytest_multihost_env.provision.actor import Actor
from pytest_multihost_env.provision.publish import DOOMED, Doomed, Slot

BEAT = 60.0
"""Seconds between two beats of a process that can."""

SILENT = 24 * 3600.0
"""Seconds after its last beat for which a pin from another host still counts."""

MUTE = 7 * 24 * 3600.0
"""The same for a pin whose process cannot beat."""


class Pin:
    """One pin that this process made, or made for a shell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = time.monotonic()

    def beat(self) -> None:
        """Show that the process lives, if it is time again.  Cheap: may be called for every test."""
        if time.monotonic() - self._last >= BEAT:
            self._last = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self.path)  # without times: the file server's own clock stamps it (utimensat(2))

    def release(self) -> None:
        """Give the environment free; never fails."""
        files.delete_file(self.path)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A pin as somebody else sees it.

    Attributes:
        path: Its file.
        user: Whose it is; None when the file does not say.
        silent: Seconds since its last beat by the file server's clock; None when that is not known.
        lives: It counts.
    """

    path: Path
    user: Actor | None
    silent: float | None
    lives: bool

    def __str__(self) -> str:
        who = str(self.user) if self.user is not None else f"somebody ({self.path.name})"
        return who if self.silent is None else f"{who}, last sign {_span(self.silent)} ago"


def hold(slot: Slot, user: Actor, notify: Callable[[str], None], *, beats: bool = True) -> Pin | None:
    """Pin the environment of `slot` for the process `user`; None when the store refuses, which is said.

    Raises:
        Doomed: It is being taken away.
    """
    pin = Pin(slot.pins / f"{_prefix(user)}.{secrets.token_hex(4)}")
    record = json.dumps({"user": dataclasses.asdict(user), "beats": beats}).encode("ascii")
    refusal = _write(pin.path, record)
    if slot.is_doomed() if refusal else DOOMED in files.names(slot.pins):
        pin.release()
        raise Doomed(slot.path)
    if refusal is None:
        return pin
    notify(f"{slot.path} cannot be pinned ({refusal.strerror}): `multihost-env gc` may take it away while it is in use")
    return None


def _write(path: Path, data: bytes) -> OSError | None:
    for _ in range(2):
        try:
            files.write_new(path, data, durable=False)
        except OSError as error:
            if error.errno != errno.ENOENT:
                return error
            refusal = error
            with contextlib.suppress(OSError):
                path.parent.mkdir(mode=0o755)
        else:
            return None
    return refusal


def stay(environment: Path, notify: Callable[[str], None]) -> list[Pin]:
    """Return the pins of this process on the `environment` that it runs in, made now when it has none.

    A process keeps its pins when it becomes another program: number and start time stay.

    Raises:
        NotReady: The environment is being taken away.
    """
    slot = publish.slot_of(environment)
    prefix = f"{_prefix(actor.myself())}."
    with contextlib.suppress(OSError):
        mine = [Pin(slot.pins / name) for name in sorted(files.names(slot.pins)) if name.startswith(prefix)]
        if mine:
            return mine
    try:
        pin = hold(slot, actor.myself(), notify)
    except Doomed:
        raise NotReady(f"{environment} is being taken away by `multihost-env gc`", hint="provision again") from None
    return [pin] if pin is not None else []


def _prefix(user: Actor) -> str:
    boot = hashlib.sha256(f"{user.boot}\0{user.pids}".encode()).hexdigest()[:8]
    host = re.sub(r"[^\w-]", "_", user.host.partition(".")[0])[:32] or "host"
    return f"{host}.{boot}.{user.pid}.{user.started}"


def found(slot: Slot, now: float | None) -> list[Found]:
    """Return the pins of `slot`.

    Args:
        slot: Where to look.
        now: What the file server's clock shows (`files.server_time`); None: then pins of other hosts count.

    Raises:
        OSError: The slot cannot be listed.
    """
    if slot.pins.name not in slot.names():
        return []
    names = sorted(files.names(slot.pins))
    looks = (_look(slot.pins / name, now) for name in names if name != DOOMED and not name.startswith("."))
    return [look for look in looks if look is not None]


def _look(path: Path, now: float | None) -> Found | None:
    try:
        changed = path.lstat().st_mtime
        data = files.read_record(path).data
    except FileNotFoundError:
        return None  # it was released meanwhile
    except OSError:
        return Found(path, None, None, lives=True)
    silent = None if now is None else max(0.0, now - changed)
    try:
        record = json.loads(data)
        user, limit = actor.parse(record["user"]), SILENT if record["beats"] else MUTE
    except (ValueError, KeyError, TypeError):
        user, limit = None, MUTE  # it may just be being written
    if user is not None and user.is_near():
        return Found(path, user, silent, lives=not user.is_gone())
    return Found(path, user, silent, lives=silent is None or silent < limit)


def living(pins: Iterable[Found]) -> list[Found]:
    """Return the pins that count."""
    return [pin for pin in pins if pin.lives]


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
