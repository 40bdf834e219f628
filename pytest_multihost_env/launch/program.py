"""The one program that a supervisor runs: its pipes, its last words, its end.  Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Sequence

from pytest_multihost_env import wire

TAIL = 64 << 10
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Tail:
    """The last `TAIL` bytes of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Append, and forget the oldest."""
        self._data += data
        if len(self._data) > 2 * TAIL:
            del self._data[:-TAIL]

    def take(self) -> str:
        """Return the text and start anew."""
        text = bytes(self._data[-TAIL:]).decode("utf-8", "replace")
        self._data.clear()
        return text


class Program:
    """The one program that a supervisor runs, and its pipes."""

    def __init__(self, order: wire.Message) -> None:
        self.stream = bool(order.get("stream"))
        ours, theirs = socket.socketpair()
        self.stacks, stacks_end = os.pipe()
        self.output, output_end = os.pipe()
        self.errors, errors_end = os.pipe() if order.get("split") else (-1, output_end)
        ends = {"{channel}": str(theirs.fileno()), "{stacks}": str(stacks_end)}
        argv = list(order["argv"]) if order.get("literal") else [ends.get(part, part) for part in order["argv"]]
        for end in (theirs.fileno(), stacks_end):
            os.set_inheritable(end, True)
        try:
            # Hydra hands its ranks a socket by number (PMI_FD), so what is inheritable must stay open.
            self.process = subprocess.Popen(
                argv,
                env=order["env"],
                cwd=order["cwd"],
                stdin=subprocess.PIPE if order.get("stdin") is not None else subprocess.DEVNULL,
                stdout=output_end,
                stderr=errors_end,
                close_fds=False,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        finally:
            theirs.close()
            for end in {stacks_end, output_end, errors_end}:
                os.close(end)
        self.channel = ours
        self.decoder = wire.Decoder()
        self.tail = Tail()
        self.watched: list[int] = []
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(order["stdin"].encode())
                self.process.stdin.close()

    def watch(self, descriptors: Sequence[int]) -> None:
        """Open the files behind these descriptors of the program, to read them when it has died.

        pytest captures into unnamed files: what a crashing rank wrote would be gone with it.
        """
        for number in descriptors:
            with contextlib.suppress(OSError):
                file = os.open(f"/proc/{self.process.pid}/fd/{number}", os.O_RDONLY)
                if stat.S_ISREG(os.fstat(file).st_mode):
                    self.watched.append(file)
                else:
                    os.close(file)

    def last_words(self) -> str:
        """Return what the program wrote that nobody has read yet."""
        for file in self.watched:
            size = os.fstat(file).st_size
            self.tail.add(os.pread(file, TAIL, max(0, size - TAIL)))
            os.close(file)
        self.watched = []
        return self.tail.take()

    def catches(self, number: int) -> bool:
        """Whether the program handles a signal, which would otherwise kill it (proc_pid_status(5), SigCgt)."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123
                masks = [line.split()[1] for line in status if line.startswith("SigCgt:")]
        except OSError:
            return False
        return bool(masks) and bool(int(masks[0], 16) >> (number - 1) & 1)

    def kill(self, number: int) -> None:
        """Send a signal to the program and everything in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
