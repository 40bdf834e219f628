"""The door of a job: sockets that face its hosts and no others, and the proof that whoever comes in is one of ours."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Sequence

from pytest_multihost_env import wire
from pytest_multihost_env.errors import LaunchFailed
from pytest_multihost_env.model import Placement

HANDSHAKE_LIMIT = 5.0


@dataclasses.dataclass(frozen=True)
class Arrival:
    """A supervisor that proved itself and said hello; `rest` are the messages that came along with it."""

    rank: int
    host: str
    pid: int
    sock: socket.socket
    decoder: wire.Decoder
    rest: tuple[wire.Message, ...]
    system: tuple[str, ...] = ()


def listeners(placement: Placement, *, local_only: bool) -> list[socket.socket]:
    """Return listening sockets on the addresses of this machine that face the hosts of `placement`.

    Raises:
        LaunchFailed: A host has no address, or none of ours faces any of them.
    """
    return [_listen(address) for address in _facing(placement, local_only=local_only)]


def admit(listener: socket.socket, key: bytes) -> Arrival | None:
    """Let the peer in that waits at `listener`, or turn it away and return None."""
    sock, _ = listener.accept()
    sock.settimeout(HANDSHAKE_LIMIT)
    decoder = wire.Decoder()
    try:
        wire.greet(sock, key)
        messages: list[wire.Message] = []
        while not messages:
            data = sock.recv(1 << 16)
            if not data:
                raise wire.WireError("closed before hello")
            messages = decoder.feed(data)
        hello, *rest = messages
        if hello.get("t") != "hello" or not isinstance(hello.get("rank"), int):
            raise wire.WireError("not a hello")
    except (OSError, wire.WireError):
        sock.close()
        return None
    said = hello.get("system")
    system = tuple(map(str, said)) if isinstance(said, list) else ()
    host, pid = str(hello.get("host", "")), int(hello.get("pid", 0))
    return Arrival(hello["rank"], host, pid, sock, decoder, tuple(rest), system)


def _listen(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen(256)
    return sock


def _facing(placement: Placement, *, local_only: bool) -> Sequence[str]:
    """Return the addresses of this machine that face the hosts of `placement`, and no others.

    Connecting a datagram socket sends nothing: it only asks the kernel which address it would use.
    """
    if local_only:
        return ["127.0.0.1"]
    found: dict[str, None] = {}
    for host in placement.hosts:
        try:
            infos = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise LaunchFailed(
                f"host {host} has no address: {error.strerror}",
                where=host,
                hint="correct the name in --multihost-hosts or the hostfile",
            ) from None
        for family, kind, _, _, address in infos:
            with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                probe.connect(address)
                found[probe.getsockname()[0]] = None
                break
    facing = [address for address in found if not address.startswith("127.") and address != "::1"]
    if not facing:
        raise LaunchFailed(
            "this machine has no address that the other hosts could reach", where=", ".join(placement.hosts)
        )
    return facing
