"""Who builds: one process of one host, told apart from a later one with the same number."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import os
import socket
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Actor:
    """One process.

    Attributes:
        host: Its host's name.
        boot: The id of that boot of the kernel.
        pids: The namespaces in which `pid` and `started` count: that of process numbers, and that of the clock.
        pid: Its number there.
        started: When the kernel started it, in clock ticks after boot (proc(5), field 22).
        since: When it began what it is doing, as a person reads it; never compared.
    """

    host: str
    boot: str
    pids: str
    pid: int
    started: str
    since: str

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"

    @property
    def place(self) -> tuple[str, str, str]:
        """Equal for two processes that can see each other's number."""
        return self.host, self.boot, self.pids

    def is_near(self) -> bool:
        """Return whether this process can see that one, if it lives; without /proc it sees none."""
        return self.place == _place() and "" not in self.place

    def is_gone(self) -> bool:
        """Return whether it is certain, from here, that the process has ended."""
        if not self.is_near():
            return False
        start = _start_of(self.pid)
        return start != self.started and not (start is None and _is_hidden(self.pid))


def myself() -> Actor:
    """Return this process, beginning now."""
    return of(os.getpid())


def of(pid: int) -> Actor:
    """Return the process `pid` of this host, beginning now."""
    now = dt.datetime.now(dt.UTC).isoformat(sep=" ", timespec="seconds")
    return Actor(*_place(), pid=pid, started=_start_of(pid) or "", since=now)


def parse(record: Mapping[str, object]) -> Actor:
    """Return the actor that `dataclasses.asdict` made `record` of.

    Raises:
        ValueError: It is not such a record.
    """
    try:
        texts = {name: _text(record[name]) for name in ("host", "boot", "pids", "started", "since")}
        pid = record["pid"]
    except KeyError as error:
        raise ValueError(f"a process record lacks {error}") from None
    if not isinstance(pid, int):
        raise ValueError("a process record has a pid that is no number")  # noqa: TRY004 - the file is wrong, not a type
    return Actor(pid=pid, **texts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a process record has a field that is no text")  # noqa: TRY004 - the file is wrong, not a type
    return value


def _place() -> tuple[str, str, str]:
    return socket.gethostname(), _boot(), _pids()


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _pids() -> str:
    try:
        pids = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a name of the kernel's, not a path
    except OSError:
        return ""
    try:
        # In another time namespace /proc shows another start of the same process (time_namespaces(7)).
        return f"{pids} {os.readlink('/proc/self/ns/time')}"  # noqa: PTH115 - as above
    except OSError:  # before Linux 5.6
        return pids


def _start_of(pid: int) -> str | None:
    """Return when `pid` was started, or None when there is no such process or it only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in {"Z", "X"} else fields[19]


def _is_hidden(pid: int) -> bool:
    """Return whether `pid` is another user's, of whom /proc shows nothing here (proc(5), hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
