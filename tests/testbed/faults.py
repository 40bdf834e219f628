"""Break the hosts and the network of a testbed; every fault is a context manager that heals on leaving."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.testbed.bed import Testbed

_FILL_LIMIT = 4 << 30


class Faults:
    """What can be broken, on one testbed."""

    def __init__(self, bed: Testbed) -> None:
        self._bed = bed

    @contextmanager
    def link_down(self, host: str) -> Iterator[None]:
        """Pull the host's cable: connections hang, nobody is told."""
        self._switch(host, "ip link set PORT down")
        try:
            yield
        finally:
            self._switch(host, "ip link set PORT up")

    @contextmanager
    def partition(self, *hosts: str) -> Iterator[None]:
        """Cut the network in two: these hosts see each other, and the rest see each other."""
        try:
            for host in hosts:
                self._switch(host, "ip link set PORT master br1")
            yield
        finally:
            for host in hosts:
                self._switch(host, "ip link set PORT master br0")

    @contextmanager
    def crash(self, host: str) -> Iterator[None]:
        """Cut the host's power: its peers see silence.  It is booted afterwards."""
        with self._booted_after(host):
            self._bed.cut(host, "crash")
            yield

    @contextmanager
    def kill(self, host: str) -> Iterator[None]:
        """End all the host's processes while its network goes on: peers see FIN and RST.  It is booted afterwards."""
        with self._booted_after(host):
            self._bed.cut(host, "kill")
            yield

    @contextmanager
    def freeze(self, host: str) -> Iterator[None]:
        """Stop all the host's processes: its network still answers, nothing else does."""
        try:
            self._bed.ask("freeze", host=host)
            yield
        finally:
            self._bed.ask("thaw", host=host)

    @contextmanager
    def hide(self, host: str, directory: str | os.PathLike[str]) -> Iterator[None]:
        """Put an empty read-only directory in the place of one, on this host only."""
        path = os.fspath(directory)
        self._as_root(host, "mount", "-t", "tmpfs", "-o", "ro,size=4k", "hidden", path)
        try:
            yield
        finally:
            self._as_root(host, "umount", "-l", path)

    @contextmanager
    def read_only(self, host: str, directory: str | os.PathLike[str]) -> Iterator[None]:
        """Refuse new writes to a directory on this host only (a file that is open for writing stays so)."""
        path = os.fspath(directory)
        # Remounting the file system itself fails while any file is open for writing.
        self._as_root(host, "mount", "--bind", path, path)
        try:
            self._as_root(host, "mount", "-o", "remount,bind,ro", path)
            yield
        finally:
            self._as_root(host, "umount", "-l", path)

    @contextmanager
    def fill(self, host: str, directory: str | os.PathLike[str]) -> Iterator[None]:
        """Leave no room on the file system of a directory.

        Raises:
            ValueError: There is so much room that filling it would harm the machine.
        """
        path = os.fspath(directory)
        room = int(self._as_root(host, "df", "--output=avail", "-B1", path).split()[-1])
        if room > _FILL_LIMIT:
            raise ValueError(f"{path} has {room >> 30} GiB of room: only a small file system of its own can be filled")
        filler = os.path.join(path, ".testbed-filler")  # noqa: PTH118 - a path on another host
        try:
            self._bed.run(host, ["dd", "if=/dev/zero", f"of={filler}", "bs=1M"])
            # What is left is less than a block of dd's: the last pages take single ones.
            self._bed.run(host, ["dd", "if=/dev/zero", f"of={filler}", "bs=4k", "oflag=append", "conv=notrunc"])
            yield
        finally:
            self._as_root(host, "rm", "-f", filler)

    @contextmanager
    def reject_port(self, host: str, port: int) -> Iterator[None]:
        """Have the host refuse connections to a TCP port, as if nothing listened."""
        with self._rule(host, f"reject-{port}", f"tcp dport {port} reject with tcp reset"):
            yield

    @contextmanager
    def drop_port(self, host: str, port: int) -> Iterator[None]:
        """Have the host ignore whatever comes for a TCP port, as a firewall does."""
        with self._rule(host, f"drop-{port}", f"tcp dport {port} drop"):
            yield

    @contextmanager
    def slow(self, host: str, rate: str) -> Iterator[None]:
        """Limit the host's link in both directions to a rate as tc(8) writes it, such as `10mbit`."""
        limit = f"root tbf rate {rate} burst 64kb latency 200ms"
        try:
            self._switch(host, f"tc qdisc replace dev PORT {limit}")
            self._as_root(host, "tc", "qdisc", "replace", "dev", "eth0", *limit.split())
            yield
        finally:
            _try_all(
                lambda: self._switch(host, "tc qdisc del dev PORT root"),
                lambda: self._as_root(host, "tc", "qdisc", "del", "dev", "eth0", "root"),
            )

    @contextmanager
    def _booted_after(self, host: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._bed.boot(host)

    @contextmanager
    def _rule(self, host: str, name: str, rule: str) -> Iterator[None]:
        chain = f"add table inet {name}; add chain inet {name} in {{ type filter hook input priority 0; }}; "
        self._as_root(host, "nft", f"{chain}add rule inet {name} in {rule}")
        try:
            yield
        finally:
            self._as_root(host, "nft", f"delete table inet {name}")

    def _switch(self, host: str, command: str) -> None:
        self._bed.ask("switch", host=host, argv=command.split())

    def _as_root(self, host: str, *argv: str) -> str:
        done = self._bed.run(host, argv, timeout=60)
        if done.returncode:
            raise OSError(f"{host}: {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout


def _try_all(*steps: Callable[[], object]) -> None:
    """Take every step, then raise the first error that there was."""
    errors = []
    for step in steps:
        try:
            step()
        except OSError as error:
            errors.append(error)
    if errors:
        raise errors[0]
