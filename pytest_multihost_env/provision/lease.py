"""Who should build, among hosts that share only a directory.

The lease saves work; nothing is wrong when two hold it.  A claim is a numbered file made by a link that refuses an
existing name; its holder keeps changing a file of its own.  A watcher takes over when it has seen no change for the
lease's time on its own clock, or when it can see that the holder's process is gone; no two clocks are ever compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import threading
import time
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.provision import actor
from pytest_multihost_env.provision.actor import Actor

JUST_NOW = 0.05
"""Seconds for which a look is as good as another: less than the shortest pause between two."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sighting:
    """What one look at the lease's directory showed.

    Attributes:
        number: The newest claim; 0 when there is none.
        holder: Whose it is, when it could be read.
        beat: What the holder's beat file said: something new each time, and what it is doing.
        free: It was given back, or there is none.
    """

    number: int
    holder: Actor | None
    beat: bytes | None
    free: bool

    @property
    def doing(self) -> str:
        """What the holder was doing at its last beat, or ""."""
        return re.sub(r"[^ -~]", "?", (self.beat or b"").partition(b" ")[2].decode("ascii", "replace")).strip()


class Lease:
    """One contender's view of the lease in `directory`, which exists.

    Args:
        directory: Shared by all contenders.
        ttl: Seconds without a beat after which the holder has lost it.
        beat: Seconds between two beats of the holder.

    Attributes:
        number: The claim that is ours; 0 while none is.
        lost: Set when another has taken over.
        taken_from: From whom it was taken, and why; "" when it was free.
        doing: What the holder is doing, for those who wait.
    """

    def __init__(self, directory: Path, *, ttl: float, beat: float) -> None:
        self.directory = directory
        self.number = 0
        self.lost = threading.Event()
        self._ttl = ttl
        self._beat = beat
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.taken_from = ""
        self.doing = ""
        self._seen: Sighting | None = None
        self._seen_at = 0.0
        self._looked_at = 0.0
        self._claim_read: tuple[int, str, Actor] | None = None

    def look(self) -> Sighting:
        """Return what stands there now, and remember since when it has not changed.

        Raises:
            OSError: The directory cannot be listed.
        """
        listing = files.names(self.directory)
        number = max((int(name[1:]) for name in listing if _is_claim(name)), default=0)
        free = number == 0 or f"r{number:08d}" in listing
        holder, beat = (None, None) if free else self._read(number, listing)
        sighting = Sighting(number, holder, beat, free)
        self._looked_at = time.monotonic()
        if sighting != self._seen:
            self._seen, self._seen_at = sighting, time.monotonic()
        return sighting

    def seen(self) -> Sighting:
        """Return what the last look showed, if that was just now; else look.

        Raises:
            OSError: The directory cannot be listed.
        """
        if self._seen is None or time.monotonic() - self._looked_at > JUST_NOW:
            return self.look()
        return self._seen

    def _read(self, number: int, listing: frozenset[str]) -> tuple[Actor | None, bytes | None]:
        try:
            if self._claim_read is None or self._claim_read[0] != number:  # a claim never changes
                claim = json.loads(files.read_record(self.directory / f"c{number:08d}").data)
                self._claim_read = number, str(claim["token"]), actor.parse(claim["holder"])
            _, token, holder = self._claim_read
            beat = files.read_record(self.directory / f"h{token}").data if f"h{token}" in listing else None
        except (OSError, ValueError, KeyError, TypeError):
            return None, None
        return holder, beat

    @property
    def silence(self) -> float:
        """Seconds since the last change that this contender saw."""
        return time.monotonic() - self._seen_at

    @property
    def is_silent(self) -> bool:
        """Whether this contender has looked, and has seen no change for the lease's time."""
        return self._seen is not None and self.silence >= self._ttl

    def try_claim(self) -> bool:
        """Take the lease if it is free, or its holder is gone or silent; return whether it is ours now.

        Raises:
            OSError: The directory refuses.
        """
        sighting = self.look()
        gone = sighting.holder is not None and sighting.holder.is_gone()
        if not sighting.free and not gone and not self.is_silent:
            return False
        if not self._claim(sighting.number + 1):
            return False
        if not sighting.free:
            why = "which has ended" if gone else f"which has not been heard of for {self.silence:.0f} s"
            self.taken_from = f"{sighting.holder or 'somebody who left no name'}, {why}"
        return True

    def _claim(self, number: int) -> bool:
        beats = self.directory / f"h{self._token}"
        if beats.name not in files.names(self.directory):
            files.write_new(beats, self._sign())
        record = {"token": self._token, "holder": dataclasses.asdict(actor.myself())}
        standing = files.publish_once(self.directory / f"c{number:08d}", json.dumps(record).encode())
        if _token(standing) != self._token:
            return False
        self.number = number
        self._thread = threading.Thread(target=self._keep, name="multihost-lease", daemon=True)
        self._thread.start()
        return True

    def _keep(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self._beat):
            try:
                _overwrite(self.directory / f"h{self._token}", self._sign())
                if any(_is_claim(name) and int(name[1:]) > self.number for name in files.names(self.directory)):
                    break
                last = time.monotonic()
            except OSError:
                # One failed beat is nothing (a file server that restarts); silence for most of the time is.
                if time.monotonic() - last > 0.7 * self._ttl:
                    break
        else:
            return
        self.lost.set()

    def _sign(self) -> bytes:
        """Return what a beat says; always as many bytes, so that a reader never finds the end of an older one."""
        return f"{secrets.token_hex(8)} {self.doing}".encode("ascii", "replace").ljust(64)[:64]

    def release(self) -> None:
        """Give the lease back, or give up contending for it; never fails."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._beat + 1)
            with contextlib.suppress(OSError):
                files.write_new(self.directory / f"r{self.number:08d}", b"")
            self._thread = None
        with contextlib.suppress(OSError):
            if f"h{self._token}" in files.names(self.directory):
                files.delete_file(self.directory / f"h{self._token}")


def _is_claim(name: str) -> bool:
    return name[:1] == "c" and name[1:].isdecimal()


def _token(claim: bytes) -> str | None:
    """Return whose claim it is; None when it is not one of ours, which then counts as silent."""
    try:
        return str(json.loads(claim)["token"])
    except (ValueError, KeyError, TypeError):
        return None


def _overwrite(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
