"""Who is let in at a job's door, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from pytest_multihost_env import wire
from pytest_multihost_env.errors import LaunchFailed
from pytest_multihost_env.launch import door
from pytest_multihost_env.model import Place, Placement

KEY = b"k" * 32
HERE = Placement((Place(0, "localhost", 0),))


def knock(peer: Callable[[socket.socket], object]) -> door.Arrival | None:
    (listener,) = door.listeners(HERE, local_only=True)

    def visit() -> None:
        with socket.create_connection(listener.getsockname(), timeout=5) as sock:
            try:
                peer(sock)
                sock.recv(1)  # until the door is answered
            except (OSError, wire.WireError):
                pass

    visitor = threading.Thread(target=visit)
    visitor.start()
    with listener:
        arrival = door.admit(listener, KEY)
    if arrival is not None:
        arrival.sock.close()
    visitor.join()
    return arrival


def introduced(*messages: bytes) -> Callable[[socket.socket], object]:
    def peer(sock: socket.socket) -> None:
        wire.introduce(sock, KEY)
        for message in messages:
            sock.sendall(message)

    return peer


def test_one_of_ours_comes_in_with_what_it_said() -> None:
    hello = wire.encode({"t": "hello", "rank": 3, "host": "n1", "pid": 7})
    arrival = knock(introduced(hello + wire.encode({"t": "started"})))
    assert arrival is not None
    assert (arrival.rank, arrival.host, arrival.pid) == (3, "n1", 7)
    assert arrival.rest in [(), ({"t": "started"},)]


@pytest.mark.parametrize(
    "peer",
    [
        lambda sock: wire.introduce(sock, b"x" * 32),
        lambda sock: sock.sendall(b"GET / HTTP/1.0\r\n\r\n" * 10),
        introduced(wire.encode({"t": "hello"})),
        introduced(wire.encode({"t": "hello", "rank": "0"})),
        introduced(wire.encode({"t": "exit", "rank": 0})),
        introduced(b"\x00\x00\x00\x02[]"),
        introduced(b"\xff\xff\xff\xff"),
    ],
)
def test_strangers_and_babblers_are_turned_away(peer: Callable[[socket.socket], object]) -> None:
    assert knock(peer) is None


def test_a_job_of_this_machine_listens_to_nobody_else() -> None:
    (listener,) = door.listeners(HERE, local_only=True)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_host_without_an_address_is_named() -> None:
    with pytest.raises(LaunchFailed, match=r"no-such-host\.invalid"):
        door.listeners(Placement((Place(0, "no-such-host.invalid", 0),)), local_only=False)
