"""Frames and the handshake: nobody gets in without the key, and nothing but JSON objects is ever read."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env import wire

KEY = b"k" * 32
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5)


@given(messages, st.integers(1, 50))
def test_messages_come_out_whole_however_the_stream_is_cut(sent: list[dict[str, object]], step: int) -> None:
    stream = b"".join(wire.encode(message) for message in sent)
    decoder = wire.Decoder()
    got = [message for at in range(0, len(stream), step) for message in decoder.feed(stream[at : at + step])]
    assert got == sent


@pytest.mark.parametrize("body", [b"[1]", b"1", b"{", b"\xff\xfe", pickle.dumps({"t": "hello"}), b"null"])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Decoder().feed(struct.pack(">I", len(body)) + body)


def test_a_frame_that_claims_to_be_huge_is_refused_before_it_comes() -> None:
    with pytest.raises(wire.WireError, match="larger than the limit"):
        wire.Decoder().feed(struct.pack(">I", wire.MAX_FRAME + 1))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(2)
    theirs.settimeout(2)
    with ours, theirs:
        yield ours, theirs


def meet(pair: tuple[socket.socket, socket.socket], peer: Callable[[socket.socket], object]) -> BaseException | None:
    """Greet a peer that behaves like `peer`, and return what came of it."""
    ours, theirs = pair

    def behave() -> None:
        try:
            peer(theirs)
        except (OSError, wire.WireError):
            pass
        finally:
            theirs.close()

    thread = threading.Thread(target=behave)
    thread.start()
    try:
        wire.greet(ours, KEY)
    except (OSError, wire.WireError) as error:
        return error
    finally:
        thread.join()
    return None


def test_both_ends_prove_the_key(pair: tuple[socket.socket, socket.socket]) -> None:
    assert meet(pair, lambda sock: wire.introduce(sock, KEY)) is None


STRANGERS: dict[str, Callable[[socket.socket], object]] = {
    "another key": lambda sock: wire.introduce(sock, b"x" * 32),
    "silent": lambda sock: sock.recv(1000),
    "says hello at once": lambda sock: sock.sendall(wire.encode({"t": "hello", "rank": 0}) * 10),
    "http": lambda sock: sock.sendall(b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100),
    "gone": lambda sock: sock.close(),
    # Knows our nonce and sends our own proof back at us.
    "mirror": lambda sock: (sock.sendall(b"multihost-env/1\n" + b"n" * 32), sock.sendall(sock.recv(64)[32:])),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_does_not_get_in(pair: tuple[socket.socket, socket.socket], stranger: str) -> None:
    assert meet(pair, STRANGERS[stranger]) is not None


def test_a_controller_without_the_key_learns_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair

    def impostor() -> None:
        ours.recv(48)
        ours.sendall(b"n" * 64)
        assert ours.recv(100) == b""

    thread = threading.Thread(target=impostor)
    thread.start()
    with pytest.raises(wire.WireError, match="controller does not know"):
        wire.introduce(theirs, KEY)
    theirs.close()
    thread.join()
