"""The far end: one small supervisor for each rank.  Standard library only; started by a launcher.

    python -P bootstrap.py ADDRESS[,ADDRESS...] [--ranks 0,1 --key-on-stdin | --rank-from VARIABLE]

It connects to the controller, proves itself, says hello, and then does what it is told: start one program with
exactly the environment that the channel delivered, relay what that program says, have it show its stacks, end it.
When the channel is gone, so is the program: nothing that we started outlives the controller, whatever became of
mpirun or ssh.

Messages to the controller:  hello, started, failed, child, output, stacks, exit, abandoned
Messages from it:            silence, start, tell, dump, stop
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from pytest_multihost_env import wire
from pytest_multihost_env.launch import localcaches, secretfiles
from pytest_multihost_env.launch.program import Program

KEY_VARIABLE = "MULTIHOST_ENV_CHANNEL_KEY"
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
CONNECT_LIMIT = 20.0
STACKS_QUIET = 0.25
LAST_WORDS = 0.5


def own_rank(environ: Mapping[str, str], names: Sequence[str] = RANK_VARIABLES) -> int:
    """Return the rank that the launcher gave to this process, from the first of `names` that holds one.

    The variables are those of Open MPI and PRRTE (prte-map), MPICH's Hydra (PMI) and srun(1).
    """
    for name in names:
        if environ.get(name, "").isdigit():
            return int(environ[name])
    raise SystemExit(f"multihost-env: none of {', '.join(names)} is set: no launcher started this process")


def _system() -> list[str]:
    """Return this host's C library, as `glibc 2.36`, and its kind of machine."""
    library = ""
    with contextlib.suppress(ValueError, OSError):
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    return [library, os.uname().machine]


def connect(addresses: Sequence[str], key: bytes) -> socket.socket:
    """Return a proven connection to the first address that answers; try for `CONNECT_LIMIT` seconds.

    The controller listens before it starts anything: where every address refuses, it has given the job up.
    """
    end = time.monotonic() + CONNECT_LIMIT
    reason = "no address was given"
    refused = 0
    while time.monotonic() < end and refused < len(addresses):
        refused = 0
        for address in addresses:
            host, _, port = address.rpartition(":")
            try:
                sock = socket.create_connection((host, int(port)), timeout=3)
                sock.settimeout(5)
                wire.introduce(sock, key)
            except (OSError, wire.WireError) as error:
                reason = f"{address}: {error}"
                refused += isinstance(error, ConnectionRefusedError)
                continue
            wire.keep_alive(sock)
            sock.settimeout(None)
            return sock
        time.sleep(0.1)
    raise SystemExit(f"multihost-env: {socket.gethostname()}: the controller cannot be reached: {reason}")


class Supervisor:
    """One rank's far end: a single-threaded loop over the channel, the program's pipes and signals."""

    def __init__(self, sock: socket.socket, rank: int, lifeline: int) -> None:
        self.sock = sock
        self.rank = rank
        self.lifeline = lifeline
        self.decoder = wire.Decoder()
        self.program: Program | None = None
        self.files: secretfiles.SecretFiles | None = None
        self.selector = selectors.DefaultSelector()
        self.kill_at: float | None = None
        self.running = True

    def send(self, kind: str, **fields: object) -> None:
        """Send one message; a channel that is gone ends the program."""
        try:
            self.sock.sendall(wire.encode({"t": kind, **fields}))
        except OSError:
            self.end()

    def end(self) -> None:
        """Kill the program at once and leave the loop."""
        if self.program is not None:
            self.program.kill(signal.SIGKILL)
        self.running = False

    def loop(self) -> None:
        """Serve until told to stop or until the channel is gone."""
        wake, notify = socket.socketpair()
        wake.setblocking(False)
        notify.setblocking(False)
        signal.set_wakeup_fd(notify.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)
        self.selector.register(self.sock, selectors.EVENT_READ, self._from_controller)
        self.selector.register(self.lifeline, selectors.EVENT_READ, self._launcher_gone)
        self.selector.register(wake, selectors.EVENT_READ, lambda: self._signals(wake))
        self.send(
            "hello",
            rank=self.rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            protocol=wire.PROTOCOL,
            python=sys.version.split()[0],
            executable=sys.executable,
            system=_system(),
        )
        while self.running:
            limit = None if self.kill_at is None else max(0.0, self.kill_at - time.monotonic())
            for key, _ in self.selector.select(limit):
                key.data()
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.end()
        self._reap()
        self._remove_secrets()

    def _from_controller(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
            messages = self.decoder.feed(data) if data else None
        except (OSError, wire.WireError):
            messages = None
        if messages is None:
            self.end()
            return
        for message in messages:
            self._obey(message)

    def _obey(self, message: wire.Message) -> None:
        kind = message.get("t")
        if kind == "start":
            self._start(message)
        elif kind == "tell" and self.program is not None:
            with contextlib.suppress(OSError):
                self.program.channel.sendall(wire.encode(message["m"]))
        elif kind == "silence":
            wire.keep_alive(self.sock, int(message["seconds"]))
        elif kind == "dump":
            self._dump()
        elif kind == "stop":
            self._stop(float(message.get("grace", 0)))

    def _start(self, order: wire.Message) -> None:
        keep = frozenset(order.get("keep", ()))
        beginnings = tuple(name for name in keep if name.endswith("_"))
        kept = {name: value for name, value in os.environ.items() if name in keep or name.startswith(beginnings)}
        env = {**kept, **order["env"]}
        order["env"] = {name: value for name, value in env.items() if value is not None}
        cwd = order["cwd"]
        if not os.path.isdir(cwd):  # noqa: PTH112 - pathlib would cost every rank 5 ms
            self.send("failed", why=f"the working directory {cwd} does not exist on this host")
            return
        if not self._place_caches(order) or not self._place_secrets(order):
            return
        try:
            self.program = Program(order)
        except OSError as error:
            self._remove_secrets()
            self.send("failed", why=f"{order['argv'][0]} cannot be run on this host: {error.strerror}")
            return
        self.selector.register(self.program.channel, selectors.EVENT_READ, self._from_program)
        self.selector.register(self.program.output, selectors.EVENT_READ, self._output)
        if self.program.errors >= 0:
            self.selector.register(self.program.errors, selectors.EVENT_READ, self._errors)
        self.send("started", pid=self.program.process.pid)

    def _place_caches(self, order: wire.Message) -> bool:
        """Make the directories that stand in variables as caches of this host."""
        try:
            order["env"] |= localcaches.make(order.get("caches", ()), order["env"])
        except OSError as error:
            self.send("failed", why=f"the caches cannot be made on this host: {error}")
            return False
        return True

    def _place_secrets(self, order: wire.Message) -> bool:
        """Make the files of secrets, and have no core be written in which secrets would stand."""
        if order.get("private"):
            # A limit of 1 also keeps a core from a program behind a pipe, which 0 does not (core(5)).
            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (min(1, hard) if hard >= 0 else 1, hard))
        if not order.get("files"):
            return True
        try:
            self.files = secretfiles.SecretFiles(order["files"])
        except OSError as error:
            self.send("failed", why=f"the files of secrets cannot be made on this host: {error}")
            return False
        order["env"] |= self.files.variables
        return True

    def _remove_secrets(self) -> None:
        if self.files is not None:
            self.files.remove()
            self.files = None

    def _from_program(self) -> None:
        program = self.program
        assert program is not None  # noqa: S101 - registered together with the program
        try:
            data = program.channel.recv(1 << 18)
            messages = program.decoder.feed(data) if data else None
        except (OSError, wire.WireError) as error:
            self.send("output", data=f"\nmultihost-env: the program's channel broke: {error}\n")
            program.kill(signal.SIGKILL)
            messages = None
        if messages is None:
            self.selector.unregister(program.channel)
            return
        for message in messages:
            if message.get("ev") == "watch":
                program.watch(message["fds"])
            else:
                self.send("child", m=message)

    def _output(self) -> None:
        program = self.program
        assert program is not None  # noqa: S101 - registered together with the program
        data = os.read(program.output, 1 << 16)
        if not data:
            self.selector.unregister(program.output)
        elif program.stream:
            self.send("output", data=data.decode("utf-8", "replace"))
        else:
            program.tail.add(data)

    def _errors(self) -> None:
        program = self.program
        assert program is not None  # noqa: S101 - registered together with the program
        data = os.read(program.errors, 1 << 16)
        if data:
            program.tail.add(data)
        else:
            self.selector.unregister(program.errors)

    def _dump(self) -> None:
        """Have the program write its Python stacks (faulthandler answers even inside a blocked collective)."""
        program = self.program
        text = b""
        if program is not None and program.process.poll() is None and not program.catches(signal.SIGUSR1):
            text = b"(no stack: the program has taken SIGUSR1 for itself)"
        elif program is not None and program.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                program.process.send_signal(signal.SIGUSR1)
            with selectors.DefaultSelector() as quiet:
                quiet.register(program.stacks, selectors.EVENT_READ)
                limit = 2.0
                while quiet.select(limit):
                    chunk = os.read(program.stacks, 1 << 16)
                    if not chunk:
                        break
                    text += chunk
                    limit = STACKS_QUIET
        tail = program.tail.take() if program is not None else ""
        self.send("stacks", text=text.decode("utf-8", "replace"), output=tail)

    def _stop(self, grace: float) -> None:
        if self.program is None or self.program.process.poll() is not None or grace <= 0:
            self.end()
            return
        self.program.kill(signal.SIGTERM)
        self.kill_at = time.monotonic() + grace

    def _signals(self, wake: socket.socket) -> None:
        for number in wake.recv(64):
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGTERM and self.kill_at is None:
                self._stop(LAST_WORDS)

    def _launcher_gone(self) -> None:
        """The launcher has ended the job, so the program ends now, before it can report a success.

        MPICH's MPI_Abort returns: it counts on the launcher to kill the caller in time.
        """
        self.selector.unregister(self.lifeline)
        if self.program is not None:
            self.program.kill(signal.SIGKILL)
        self.send("abandoned")
        self.kill_at = time.monotonic() + LAST_WORDS

    def _reap(self) -> None:
        program = self.program
        if program is None or program.process.poll() is None:
            if program is not None and not self.running:
                program.process.wait()
            else:
                return
        program.kill(signal.SIGKILL)
        self._drain()
        self._remove_secrets()
        self.program = None
        self.send("exit", code=program.process.returncode, output=program.last_words())
        if self.kill_at is not None:
            self.running = False

    def _drain(self) -> None:
        """Relay what is already in the pipes, without waiting for grandchildren that hold them open."""
        end = time.monotonic() + 1
        sources = {key.fileobj for key in self.selector.get_map().values() if key.data in self._readers}
        while time.monotonic() < end:
            ready = [key for key, _ in self.selector.select(0) if key.data in self._readers]
            for key in ready:
                key.data()
            if not ready:
                break
        for source in sources:
            with contextlib.suppress(KeyError, ValueError):
                self.selector.unregister(source)

    @property
    def _readers(self) -> tuple[Callable[[], None], ...]:
        return (self._from_program, self._output, self._errors)


def shelter(addresses: Sequence[str], key: bytes, ranks: Sequence[int]) -> None:
    """Supervise each rank in a session of its own, out of the launcher's reach, and wait for all of them.

    A launcher that ends the job kills the process that it started, at once (Hydra) or soon (Open MPI).  That process
    is this one; the supervisors see it go, end their programs, and live to say what the last words were.
    """
    secretfiles.sweep()
    lifeline, held = os.pipe()
    for rank in ranks:
        if os.fork() == 0:
            os.close(held)
            os.setsid()
            Supervisor(connect(addresses, key), rank, lifeline).loop()
            os._exit(0)
    os.close(lifeline)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    for _ in ranks:
        os.wait()


def by_hand(ranks: Sequence[int]) -> None:
    """Say where these ranks are: somebody has pasted the launcher's command, and no controller waits for them."""
    for rank in ranks:
        print(f"multihost-env: rank {rank} on {socket.gethostname()}, {sys.executable} in {os.getcwd()}")  # noqa: PTH109


def main(argv: Sequence[str] | None = None) -> None:
    """Supervise the rank that the launcher made of this process, or several when told which."""
    parser = argparse.ArgumentParser(prog="bootstrap")
    parser.add_argument("addresses")
    parser.add_argument("--ranks", default="")
    parser.add_argument("--rank-from", action="append")
    parser.add_argument("--key-on-stdin", action="store_true")
    options = parser.parse_args(argv)
    text = sys.stdin.readline().strip() if options.key_on_stdin else os.environ.pop(KEY_VARIABLE, "")
    key = bytes.fromhex(text)
    ranks = (
        [int(rank) for rank in options.ranks.split(",")]
        if options.ranks
        else [own_rank(os.environ, options.rank_from or RANK_VARIABLES)]
    )
    if not key:
        by_hand(ranks)
        return
    shelter(options.addresses.split(","), key, ranks)


if __name__ == "__main__":
    main()
