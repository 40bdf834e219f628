"""Start the keeper of a testbed and talk to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.testbed import linux

CHECKOUT = Path(__file__).resolve().parents[2]
_ANSWER_LIMIT = 60.0


class Unavailable(Exception):
    """This machine cannot hold a testbed; the message says why."""


def python_command(module: str, descriptor: int) -> list[str]:
    """Return the command that runs one of this package's programs without site-packages, for a quick start."""
    return [sys.executable, "-s", "-S", "-P", "-m", f"tests.testbed.{module}", str(descriptor)]


def python_environment() -> dict[str, str]:
    """Return the environment of these programs: nothing of ours, so that no search for a test's name finds them."""
    return {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def refusal(*, rootless: bool) -> str | None:
    """Return why no testbed is possible here; None when nothing is known to be missing."""
    return next(_refusals(rootless=rootless), None)


def _refusals(*, rootless: bool) -> Iterator[str]:
    if sys.platform != "linux":
        yield "a testbed is made of Linux namespaces"
        return
    path = python_environment()["PATH"]
    needed = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "ssh": "openssh-client", "sshd": "openssh-server"}
    needed |= {"ssh-keygen": "openssh-client", "mount": "mount"}
    if rootless:
        needed |= {"newuidmap": "uidmap", "newgidmap": "uidmap", "unshare": "util-linux"}
    for program, package in needed.items():
        if shutil.which(program, path=path) is None:
            yield f"{program} is missing: install the package {package}"
    if not rootless and os.geteuid() != 0:
        yield "it needs root"
    if rootless and os.geteuid() == 0:
        yield "rootless is for ordinary users: we are root"
    if rootless and "--map-auto" not in subprocess.run(["unshare", "--help"], capture_output=True, text=True).stdout:
        yield "unshare is too old for --map-auto: util-linux 2.38 has it"


class KeeperClient:
    """The owner's end of the socket to the keeper, which ends when this end is closed."""

    def __init__(self, *, rootless: bool) -> None:
        prefix = ["unshare", "--user", "--map-root-user", "--map-auto", "--"] if rootless else []
        self._lock = threading.Lock()
        self._socket, far = socket.socketpair()
        self._socket.settimeout(_ANSWER_LIMIT)
        with far:
            command = [*prefix, *python_command("keeper", far.fileno())]
            started = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                pass_fds=[far.fileno()],
                env=python_environment(),
                cwd="/",
            )
        self._stream = self._socket.makefile("r", encoding="utf-8")
        if started.returncode:
            self.close()
            raise Unavailable(f"its keeper does not start: {started.stderr.strip()[-500:]}")

    def call(self, do: str, **request: Any) -> dict[str, Any]:
        """Have the keeper do something and return its answer.

        Raises:
            OSError: It could not, or it is gone.
        """
        with self._lock:
            try:
                self._socket.sendall(json.dumps({"do": do, **request}).encode() + b"\n")
                line = self._stream.readline()
            except OSError as error:
                raise OSError(f"the testbed's keeper does not answer: {error}") from error
        if not line:
            raise OSError("the testbed's keeper has ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer

    def open(self, **request: Any) -> dict[str, Any]:
        """Have the keeper claim a testbed for this process."""
        owner = os.getpid()
        return self.call("open", owner=owner, owner_start=linux.start_time(owner), uid=os.geteuid(), **request)

    def close(self) -> None:
        """Have the keeper end everything, and wait until it has."""
        with suppress(OSError):
            self._socket.sendall(b'{"do": "close"}\n')
            while self._socket.recv(4096):
                pass
        self._stream.close()
        self._socket.close()
