"""One launcher call and the channels to the ranks that it started: start, listen, talk, end.

Single-threaded: whoever owns a job calls `poll`, which waits for messages of all ranks at once.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import re
import secrets
import selectors
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pytest_multihost_env import process, wire
from pytest_multihost_env.environ import mpi_setting
from pytest_multihost_env.errors import LaunchFailed
from pytest_multihost_env.launch import bootstrap, door, misplaced, paste
from pytest_multihost_env.model import Command, LaunchSpec, Placement
from pytest_multihost_env.protocols import Launcher

START_LIMIT = 60.0
SEND_LIMIT = 20.0
LOOK = 1.0
_SLICE = 0.2
_NOISE = re.compile(r"setpgid|lacks support for cpu binding")
"""Lines of launchers that never say why a start failed."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A launcher, the executable that was found for it, and how to call it.

    Attributes:
        launcher: Computes the command.
        executable: Its program, "" when it needs none.
        version: As `(5, 0, 11)`; empty when unknown.
        extra_args: The user's own arguments.
        answers: What the launcher's questions brought.
        silence: Seconds after which a host of which nothing is heard is lost.
    """

    launcher: Launcher
    executable: str = ""
    version: tuple[int, ...] = ()
    extra_args: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    silence: int = 20


@dataclasses.dataclass
class Member:
    """One rank's supervisor, as the controller knows it."""

    rank: int
    host: str
    sock: socket.socket
    decoder: wire.Decoder
    pid: int = 0
    lost: str | None = None
    system: tuple[str, ...] = ()


class Job:
    """Ranks that one launcher call started.

    Args:
        program: Launcher and executable.
        placement: One place for each rank.
        python: The interpreter that the ranks run, at this path on every host.
        environ: The environment of the launcher itself.
        local_only: All ranks run on this machine.
        as_root: The user is root.
    """

    def __init__(
        self,
        program: Program,
        placement: Placement,
        *,
        python: Path,
        environ: Mapping[str, str],
        local_only: bool,
        as_root: bool,
    ) -> None:
        self.placement = placement
        self.members: dict[int, Member] = {}
        self._key = secrets.token_bytes(32)
        self._environ = environ
        self._selector = selectors.DefaultSelector()
        self._listeners = door.listeners(placement, local_only=local_only)
        self._processes: list[process.Popen] = []
        self._logs: list[IO[bytes]] = []
        self._scripts: list[IO[str]] = []
        self._launcher_ended = False
        self._local_only = local_only
        self._pending: collections.deque[tuple[int, wire.Message]] = collections.deque()
        where = ",".join(f"{host}:{port}" for host, port in (s.getsockname()[:2] for s in self._listeners))
        spec = LaunchSpec(
            placement=placement,
            program=(str(python), "-P", bootstrap.__file__, where),
            executable=program.executable,
            version=program.version,
            forward=tuple(sorted(name for name in environ if mpi_setting(name))),
            secret=self._key.hex(),
            secret_name=bootstrap.KEY_VARIABLE,
            extra_args=program.extra_args,
            answers=program.answers,
            silence=program.silence,
            local_only=local_only,
            as_root=as_root,
        )
        self._silence = program.silence
        self.commands = program.launcher.commands(spec)

    @property
    def command_lines(self) -> tuple[str, ...]:
        """The exact commands, free of secrets, ready to be pasted into this shell."""
        without = {bootstrap.KEY_VARIABLE, *self._environ}
        return tuple(paste.line(command, without=without) for command in self.commands)

    def start(self, limit: float = START_LIMIT) -> None:
        """Start all ranks and wait until each has proven itself.

        Raises:
            LaunchFailed: The launcher ended, not every rank said hello within `limit` seconds, or one is elsewhere.
        """
        end = time.monotonic() + limit
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ, None)
        try:
            for command in self.commands:
                self._spawn(command)
            while len(self.members) < self.placement.size:
                self._wait(min(_SLICE, max(0.0, end - time.monotonic())))
                if len(self.members) < self.placement.size:
                    self._check_start(late=time.monotonic() > end, limit=limit)
            if not self._local_only:
                misplaced.refuse(self.placement, {rank: member.host for rank, member in self.members.items()})
        except BaseException:
            self.close()
            raise
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self._listeners = []

    def _spawn(self, command: Command) -> None:
        log = tempfile.TemporaryFile(prefix="multihost-launcher-")  # noqa: SIM115 - lives as long as the job
        self._logs.append(log)
        scripts = {name: self._script(text) for name, text in command.scripts.items()}
        env = {name: value.format_map(scripts) if scripts else value for name, value in command.env.items()}
        # What the user has set in the shell is the user's wish, but for the key of this very job.
        env |= {name: value for name, value in self._environ.items() if name != bootstrap.KEY_VARIABLE}
        stdin = subprocess.PIPE if command.stdin is not None else subprocess.DEVNULL
        try:
            started = process.start(command.argv, env=env, stdin=stdin, stdout=log, stderr=log)
        except OSError as error:
            raise LaunchFailed(
                f"the launcher cannot be started: {error.strerror}",
                where=command.argv[0],
                hint="choose another one with --multihost-launcher",
            ) from None
        self._processes.append(started)
        if command.stdin is not None and started.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                started.stdin.write(command.stdin.encode())
                started.stdin.close()

    def _script(self, text: str) -> str:
        """Return a path without blanks under which the launcher finds `text`, as long as this process lives."""
        number = os.memfd_create("multihost-script", os.MFD_CLOEXEC)
        file = os.fdopen(number, "w", encoding="utf-8")
        file.write(text)
        file.flush()
        self._scripts.append(file)
        return f"/proc/{os.getpid()}/fd/{number}"

    def _check_start(self, *, late: bool, limit: float) -> None:
        codes = [proc.poll() for proc in self._processes]
        ended = [code for code in codes if code is not None]
        if not late and not any(code != 0 for code in ended) and len(ended) < len(codes):
            return
        missing = [place for place in self.placement.places if place.rank not in self.members]
        said = self.launcher_output().strip()
        if ended:
            what = f"the launcher ended with code {ended[0]} before {_ranks(len(missing))} had started"
        else:
            what = f"{_ranks(len(missing))} did not report in within {limit:.0f} s"
        raise LaunchFailed(
            f"{what}: {_gist(said)}",
            where=", ".join(f"rank {place.rank}@{place.host}" for place in missing[:16]),
            details={"the launcher said": said or "(nothing)", "command": "\n".join(self.command_lines)},
        )

    def launcher_output(self, limit: int = 4000) -> str:
        """Return the tail of what the launcher itself has printed."""
        texts = []
        for log in self._logs:
            if log.closed:
                continue
            log.seek(0, 2)
            log.seek(max(0, log.tell() - limit))
            texts.append(log.read().decode("utf-8", "replace"))
        return "".join(texts)

    def launcher_codes(self) -> tuple[int | None, ...]:
        """Return the exit code of each launcher process; None while it runs."""
        return tuple(proc.poll() for proc in self._processes)

    # Talking --------------------------------------------------------------------------------------------------------

    def send(self, rank: int, message: Mapping[str, object]) -> None:
        """Send one message to the supervisor of `rank`; a rank that cannot be reached is marked as lost."""
        member = self.members[rank]
        if member.lost is not None:
            return
        try:
            member.sock.sendall(wire.encode(message))
        except OSError as error:
            self._lose(member, f"the channel broke: {error.strerror or error}")

    def poll(self, timeout: float) -> list[tuple[int, wire.Message]]:
        """Return `(rank, message)` pairs that arrive within `timeout` seconds, at least one unless it is over.

        A channel that ends gives one message `{"t": "lost", "why": ...}`; the end of the launcher that all ranks have
        in common gives one `{"t": "abandoned"}` for each.
        """
        end = time.monotonic() + timeout
        while not self._pending:
            self._wait(min(LOOK, max(0.0, end - time.monotonic())))
            self._look_at_launcher()
            if time.monotonic() >= end:
                break
        events = list(self._pending)
        self._pending.clear()
        return events

    def _look_at_launcher(self) -> None:
        if self._launcher_ended or len(self._processes) != 1 or self._processes[0].poll() is None:
            return
        self._launcher_ended = True
        self._pending.extend((member.rank, {"t": "abandoned"}) for member in self.members.values() if not member.lost)

    def _wait(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, Member):
                self._read(key.data)
            elif isinstance(key.fileobj, socket.socket):
                self._accept(key.fileobj)

    def _read(self, member: Member) -> None:
        try:
            data = member.sock.recv(1 << 18)
            messages = member.decoder.feed(data) if data else None
        except TimeoutError:
            self._lose(member, f"nothing was heard of its host for {self._silence} s")
            return
        except (OSError, wire.WireError) as error:
            self._lose(member, f"the channel broke: {error}")
            return
        if messages is None:
            self._lose(member, "the channel was closed by the other side")
            return
        self._pending.extend((member.rank, message) for message in messages)

    def _lose(self, member: Member, why: str) -> None:
        if member.lost is None:
            member.lost = why
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(member.sock)
            member.sock.close()
            self._pending.append((member.rank, {"t": "lost", "why": why}))

    def _accept(self, listener: socket.socket) -> None:
        """Let a peer in that knows the key and is a rank that is still missing."""
        arrival = door.admit(listener, self._key)
        if arrival is None:
            return
        if arrival.rank in self.members or not 0 <= arrival.rank < self.placement.size:
            arrival.sock.close()
            return
        wire.keep_alive(arrival.sock, self._silence)
        arrival.sock.settimeout(SEND_LIMIT)
        member = Member(arrival.rank, arrival.host, arrival.sock, arrival.decoder, arrival.pid, system=arrival.system)
        self.members[arrival.rank] = member
        self._selector.register(arrival.sock, selectors.EVENT_READ, member)
        self.send(arrival.rank, {"t": "silence", "seconds": self._silence})
        self._pending.extend((arrival.rank, message) for message in arrival.rest)

    # Ending ---------------------------------------------------------------------------------------------------------

    def close(self, grace: float = 0.0) -> str:
        """End every rank and the launcher and return the launcher's last words; nothing is left running.

        Args:
            grace: Seconds between SIGTERM and SIGKILL for the ranks' programs.
        """
        for member in self.members.values():
            self.send(member.rank, {"t": "stop", "grace": grace})
        end = time.monotonic() + grace + 2.0
        while any(member.lost is None for member in self.members.values()) and time.monotonic() < end:
            self._wait(_SLICE)
        for member in self.members.values():
            if member.lost is None and self._local_only:
                _kill_supervisor(member.pid)
            self._lose(member, "closed")
        for listener in self._listeners:
            listener.close()
        for proc in self._processes:
            _end(proc)
        said = self.launcher_output()
        for log in self._logs:
            log.close()
        for script in self._scripts:
            script.close()
        self._selector.close()
        return said


def _end(proc: process.Popen) -> None:
    """End a launcher: it gets a moment to go by itself, then SIGTERM, then SIGKILL for its whole group.

    SIGTERM before SIGKILL, and never a single SIGINT: Open MPI leaves a rank behind after the one, Hydra after the other.
    """
    for number, patience in ((0, 1.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                process.kill_group(proc.pid, signal.SIGKILL)
            elif number:
                proc.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            proc.wait(patience)
            break
    if proc.stdin is not None:
        proc.stdin.close()


def _kill_supervisor(pid: int) -> None:
    """Kill a supervisor of this machine that does not listen (it may be stopped); its program dies with it."""
    with contextlib.suppress(OSError):
        if bootstrap.__file__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"


def _gist(said: str) -> str:
    """Return the line that most likely says why: ssh and shells speak first, then come the launchers' paragraphs."""
    lines = [line.strip() for line in said.splitlines() if not _NOISE.search(line) and line.strip(" -=")]
    return lines[0] if lines else "it said nothing"
