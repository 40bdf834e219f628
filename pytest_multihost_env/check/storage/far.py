"""What every host runs while a directory is looked at: it does one step after the other, as the controller asks.

    python -P -m pytest_multihost_env.check.storage.far CHANNEL

Standard library only.  A question is `{"do": STEP, ...}`; its answer is what the step found, or `{"problem": ...}`.
Everything is made below one directory that all hosts have in common, in a part of the host's own; a second process,
which outlives this one however it ends, takes that part away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_multihost_env import files, filesystem, wire
from pytest_multihost_env.check.storage import locks, sight, trials

Answer = dict[str, Any]
_CLEARING = 60
"""Seconds that the clearing up may take."""

_DESCRIPTORS = 4096


class Visitor:
    """One host's steps.  The names of the makers are the numbers of their hosts."""

    def __init__(self) -> None:
        self._work = Path()
        self._mine = Path()
        self._held = locks.Held()
        self._lifeline = -1

    def begin(self, question: Mapping[str, Any]) -> Answer:
        """Make this host's part, and find out what it can by itself."""
        directory = Path(question["directory"])
        self._work, self._mine = directory / question["name"], directory / question["name"] / question["me"]
        found: Answer = {
            "uid": os.geteuid(),
            "machine": _machine(),
            "directory": os.path.realpath(directory),
            "mount": _mount(directory),
        }
        try:
            if not directory.is_dir():
                raise OSError(errno.ENOTDIR if directory.exists() else errno.ENOENT, "", str(directory))
            self._lifeline = attend(self._work, self._mine)
            with contextlib.suppress(FileExistsError):  # another host was first; it is not asked for by name
                self._work.mkdir(mode=0o755)
            self._mine.mkdir(mode=0o755)
            trials.writes(self._mine)
            own = self._mine / "own"
            own.mkdir()
            found |= trials.facts(own)
            locks.prepare(self._mine)
            sight.prepare(self._mine)
        except OSError as error:
            found["problem"] = _problem(error)
        return found

    def meet(self, question: Mapping[str, Any]) -> Answer:
        """Wait until the parts of all others are listed; say whom those belong to that are."""
        wanted = set(question["others"])
        began = time.monotonic()
        while not wanted <= (listed := set(os.listdir(self._work))):  # noqa: PTH208
            if time.monotonic() - began > question["patience"]:
                break
            time.sleep(0.02)
        return {"owners": {name: (self._work / name).lstat().st_uid for name in sorted(wanted & listed)}}

    def hold(self, _question: Mapping[str, Any]) -> Answer:
        """Take this host's locks."""
        return {"locks": self._held.take(self._mine)}

    def attempt(self, question: Mapping[str, Any]) -> Answer:
        """Try the locks that the makers hold."""
        return {"locks": {name: locks.attempt(self._work / name) for name in question["makers"]}}

    def prime(self, question: Mapping[str, Any]) -> Answer:
        """Give the locks up, and look at what the makers have not made yet."""
        self._held.release()
        for name in question["makers"]:
            sight.prime(self._work / name)
        return {}

    def change(self, _question: Mapping[str, Any]) -> Answer:
        """Make what the others wait for."""
        sight.change(self._mine)
        return {}

    def watch(self, question: Mapping[str, Any]) -> Answer:
        """Wait for what the makers have made."""
        return {"seen": sight.watch([self._work / name for name in question["makers"]], question["patience"])}

    def end(self, question: Mapping[str, Any]) -> Answer:
        """Take away this host's part, or with `all` what any host has left; say what could not be."""
        self._held.release()
        clear(self._work, self._work if question.get("all") else self._mine)
        left = False
        with contextlib.suppress(OSError):  # where the directory cannot be listed, nothing was made
            left = self._work.name in files.names(self._work.parent)
        return {"left": left}


STEPS = {
    step.__name__: step
    for step in (
        Visitor.begin,
        Visitor.meet,
        Visitor.hold,
        Visitor.attempt,
        Visitor.prime,
        Visitor.change,
        Visitor.watch,
        Visitor.end,
    )
}


def clear(work: Path, part: Path) -> None:
    """Remove `part`, and the common directory once it is empty."""
    with contextlib.suppress(OSError):
        if work.name in files.names(work.parent):
            files.remove_tree(part)
            work.rmdir()


def attend(work: Path, mine: Path) -> int:
    """Start the process that removes `mine` once the descriptor that this returns is closed, by whatever end."""
    watched, lifeline = os.pipe()
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()  # what ends this program is sent to its process group
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, watched)
        os.closerange(watched + 1, tell)
        os.write(tell, b".")
        os.closerange(watched + 1, _DESCRIPTORS)
        os.read(watched, 1)
        signal.alarm(_CLEARING)  # a file system that hangs must not keep it
        clear(work, mine)
        os._exit(0)
    os.close(watched)
    os.close(tell)
    os.read(ready, 1)  # before it is out of reach, nothing may be made
    os.close(ready)
    return lifeline


def _mount(directory: Path) -> Answer:
    mount = filesystem.mount_of(directory)
    return {"point": mount.point, "kind": mount.kind, "source": mount.source, "options": list(mount.options)}


def _machine() -> str:
    """Return what two names of one machine have in common; containers on one machine see mounts of their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/mnt').st_ino}"  # noqa: PTH116 - it is not a file
    except OSError:
        return f"unknown-{os.urandom(8).hex()}"


def _problem(error: OSError) -> Answer:
    return {"errno": filesystem.code(error), "says": os.strerror(error.errno or 0), "path": str(error.filename or "")}


def answer(visitor: Visitor, question: Mapping[str, Any]) -> Answer:
    """Return what the step that `question` names found."""
    try:
        return STEPS[question["do"]](visitor, question)
    except OSError as error:
        return {"problem": _problem(error)}


def main() -> None:
    """Answer questions until the channel ends."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    os.umask(0o022)  # where users are mapped, a host must still be able to look
    decoder, visitor = wire.Decoder(), Visitor()
    while data := channel.recv(1 << 16):
        for question in decoder.feed(data):
            channel.sendall(wire.encode(answer(visitor, question)))


if __name__ == "__main__":
    main()
