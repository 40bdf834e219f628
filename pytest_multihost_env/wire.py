"""Frames and the handshake between the controller and the far end.  Standard library only.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON: one object.  Nothing is ever unpickled.
Both ends prove that they know the session's key before the first frame is looked at (HMAC-SHA256 over both
nonces, RFC 2104).  `multiprocessing.connection` offers the same kind of handshake, but with MD5 up to
Python 3.11, which a FIPS machine refuses, and it blocks in the middle of a frame, which a frozen host never ends.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import struct
from collections.abc import Mapping
from typing import Any

Message = dict[str, Any]

PROTOCOL = 1
MAX_FRAME = 64 << 20
NONCE = 32
_HEAD = struct.Struct(">I")
_MAGIC = b"multihost-env/1\n"


class WireError(Exception):
    """The peer is not one of ours, or broke the protocol."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return `message` as one frame.

    Raises:
        WireError: It is larger than a frame may be.
    """
    body = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME:
        raise WireError(f"a message of {len(body)} bytes is larger than the limit of {MAX_FRAME}")
    return _HEAD.pack(len(body)) + body


class Decoder:
    """Cuts a byte stream into messages; keeps what is not yet whole."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes.

        Raises:
            WireError: A frame is too large, or is not a JSON object.
        """
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while len(self._buffer) - start >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer, start)
            if length > self._limit:
                raise WireError(f"a frame of {length} bytes is larger than the limit of {self._limit}")
            end = start + _HEAD.size + length
            if len(self._buffer) < end:
                break
            messages.append(_parse(bytes(self._buffer[start + _HEAD.size : end])))
            start = end
        del self._buffer[:start]
        return messages


def _parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise WireError(f"a frame is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("a frame is not a JSON object")
    return message


def _proof(key: bytes, role: bytes, nonces: bytes) -> bytes:
    return hmac.new(key, _MAGIC + role + nonces, hashlib.sha256).digest()


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise WireError("the peer closed the channel during the handshake")
        data += chunk
    return data


def greet(sock: socket.socket, key: bytes) -> None:
    """Prove to the peer that connected that we know `key`, and have it prove the same.

    The socket's time limit bounds each step.

    Raises:
        WireError: The peer does not know the key.
        OSError: The peer went away or took too long.
    """
    theirs = _exactly(sock, len(_MAGIC) + NONCE)
    if theirs[: len(_MAGIC)] != _MAGIC:
        raise WireError("the peer speaks another protocol")
    ours = secrets.token_bytes(NONCE)
    nonces = theirs[len(_MAGIC) :] + ours
    sock.sendall(ours + _proof(key, b"controller", nonces))
    if not hmac.compare_digest(_exactly(sock, 32), _proof(key, b"rank", nonces)):
        raise WireError("the peer does not know this session's key")


def introduce(sock: socket.socket, key: bytes) -> None:
    """The connecting side of `greet`.

    Raises:
        WireError: The controller does not know the key.
        OSError: The controller went away or took too long.
    """
    ours = secrets.token_bytes(NONCE)
    sock.sendall(_MAGIC + ours)
    answer = _exactly(sock, NONCE + 32)
    nonces = ours + answer[:NONCE]
    if not hmac.compare_digest(answer[NONCE:], _proof(key, b"controller", nonces)):
        raise WireError("the controller does not know this session's key")
    sock.sendall(_proof(key, b"rank", nonces))


def keep_alive(sock: socket.socket, seconds: int = 20) -> None:
    """Have the kernel end the connection when the other host is silent for `seconds` at most (tcp(7)).

    The kernel looks at the time only when a probe is due, so the last one comes a quarter earlier.
    """
    quarter = max(1, seconds // 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, quarter)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, quarter)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 750)
