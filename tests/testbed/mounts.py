"""One directory mounted once for each of several hosts, by `stalefs`; and commands that run on such a host.

    with StaleMounts(base, ("n1", "n2")) as storage:
        subprocess.run(storage.command("n1", ["touch", storage.shared / "new"]))
        with storage.faults("n2", refuse={"link": "EPERM"}):
            ...

A command sees its host's mount at `storage.shared`, the same path on all hosts, and its host's name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 30.0

_NOISE = "Ignoring invalid max threads value"  # libfuse 3.14.0 says it of its own default
_ENTER = 'hostname "$1" && mount --bind "$2" "$3" && shift 3 && exec "$@"'


class Unavailable(Exception):
    """This machine cannot hold such mounts; the text says why."""


def why_not() -> str:
    """Return why this machine cannot mount a FUSE file system for several hosts, or ""."""
    if importlib.util.find_spec("mfusepy") is None:
        return "the package mfusepy is not installed"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there, or not for this user"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed (Debian: fuse3)"
    probe = [*_namespaces(), "true"]
    done = subprocess.run(probe, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"hosts cannot be told apart: {done.stderr.strip()}"


def _namespaces() -> list[str]:
    root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *root, "--mount", "--uts", "--propagation", "private"]


class StaleMounts:
    """A shared directory of several hosts, each with its own stale caches.

    Args:
        base: An empty directory for all of it.
        hosts: Names of the hosts.
        cache: Seconds for which a mount trusts what it knows of names and attributes.
        seed: Of the faults that come by chance.
    """

    def __init__(self, base: Path, hosts: Sequence[str], *, cache: float = 5.0, seed: int = 0) -> None:
        self.hosts = tuple(hosts)
        self.backing = base / "backing"
        self.shared = base / "shared"
        self.mounts = {host: base / f"mount {host}" for host in hosts}
        self._logs = {host: base / f"log {host}" for host in hosts}
        self._faults = {host: base / f"faults {host}" for host in hosts}
        self._cache, self._seed = cache, seed
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Mount all.

        Raises:
            Unavailable: This machine cannot.
        """
        reason = why_not()
        if reason:
            raise Unavailable(reason)
        for directory in (self.backing, self.shared, *self.mounts.values()):
            directory.mkdir(parents=True, exist_ok=True)
        try:
            for number, host in enumerate(self.hosts):
                self._serve(host, self._seed + number)
            for host in self.hosts:
                self._await(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _serve(self, host: str, seed: int) -> None:
        argv = [sys.executable, "-m", "tests.testbed.stalefs", str(self.backing), str(self.mounts[host])]
        argv += ["--cache", str(self._cache), "--faults", str(self._faults[host]), "--seed", str(seed)]
        with self._logs[host].open("wb") as log:
            self._servers[host] = subprocess.Popen(
                [*argv, "--owner", str(os.getpid())], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )

    def _await(self, host: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not self.mounts[host].is_mount():
            if self._servers[host].poll() is not None or time.monotonic() > deadline:
                text = self._logs[host].read_text(errors="replace").strip()[-500:]
                problem = f"{self.mounts[host]} cannot be mounted: {text}"
                raise Unavailable(problem) if "not permitted" in text else RuntimeError(problem)
            time.sleep(0.01)

    def close(self) -> None:
        """Unmount all, whoever still uses it, and end the servers."""
        for host, server in self._servers.items():
            program = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            subprocess.run([*program, str(self.mounts[host])], capture_output=True)
            server.terminate()
        for server in self._servers.values():
            try:
                server.wait(2)
            except subprocess.TimeoutExpired:
                server.kill()  # a process that still has a file open there gets ENOTCONN from now on
                server.wait()
        self._servers.clear()

    def command(self, host: str, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """Return `argv` as a command that runs on `host` and sees its mount at `shared`."""
        enter = ["sh", "-c", _ENTER, "sh", host, str(self.mounts[host]), str(self.shared)]
        return [*_namespaces(), *enter, *map(os.fspath, argv)]

    @contextlib.contextmanager
    def faults(self, host: str | None = None, **faults: Any) -> Iterator[None]:
        """Let the mount of `host` (None: all of them) have `stalefs.Faults(**faults)` until the block ends."""
        hosts = self.hosts if host is None else (host,)
        for one in hosts:
            _put(self._faults[one], faults)
        try:
            yield
        finally:
            for one in hosts:
                _put(self._faults[one], {})

    def trouble(self) -> str:
        """Return what the servers had to say, which is nothing when they work."""
        lines = [
            f"{host}: {line}"
            for host, log in self._logs.items()
            for line in log.read_text(errors="replace").splitlines()
            if line and not line.startswith(_NOISE)
        ]
        return "\n".join(lines)


def _put(path: Path, faults: dict[str, Any]) -> None:
    from tests.testbed.stalefs import Faults

    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(dataclasses.asdict(Faults(**faults))))
    temporary.replace(path)
