"""Several hosts on this one machine, as tests see them: run things there, look at them, break and heal them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.testbed.client import CHECKOUT, KeeperClient, Unavailable, python_command, python_environment, refusal
from tests.testbed.faults import Faults
from tests.testbed.files import Account
from tests.testbed.host import CLEAN_PATH

__all__ = ["Testbed", "Unavailable"]

_PRIVATE = (Path("/tmp"), Path("/run"), Path("/dev/shm"))
_END_LIMIT = 5.0
"""Seconds to wait for a killed command's last process."""


class Testbed:
    """N hosts, each a set of namespaces with its own sshd, on a network that leads nowhere else.

    Args:
        hosts: How many; they are called n1, n2, ...
        users: Ordinary users that may log in everywhere.  Those that the machine does not know exist on the hosts only.
        rootless: Build it from user namespaces; by default whenever we are not root.
        expose: Directories below /tmp, /run or /dev/shm that the hosts are to see in spite of having their own.
            The running Python and the checkout are seen in any case.
        local_size: Limit of the node-local directory.
        tmp_size: Limit of each of /tmp, /run and /dev/shm.

    Attributes:
        names: The names of the hosts.
        addresses: Their IPv4 addresses, by name.
        accounts: root and the users, with their numbers and homes (which are on the shared storage), by name.
        shared: A directory that this process and all hosts see at this same path; everybody may write there.
        local: A directory at the same path on each host and of its own on each; elsewhere it is empty.
        faults: What can be broken.

    Raises:
        Unavailable: On entering: this machine cannot hold a testbed, and why.
    """

    __test__ = False

    names: tuple[str, ...]
    addresses: dict[str, str]
    accounts: dict[str, Account]
    shared: Path
    local: Path

    def __init__(
        self,
        hosts: int = 3,
        users: Sequence[str] = ("alice",),
        *,
        rootless: bool | None = None,
        expose: Sequence[Path] = (),
        local_size: str = "512m",
        tmp_size: str = "512m",
    ) -> None:
        self._rootless = os.geteuid() != 0 if rootless is None else rootless
        self._wanted = {
            "hosts": hosts,
            "users": list(users),
            "expose": _hidden_by_private([*expose, CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)]),
            "sizes": {"local": local_size, "tmp": tmp_size},
        }
        self._keeper: KeeperClient | None = None
        self._running: dict[str, tuple[int, str]] = {}
        self.names = tuple(f"n{number}" for number in range(1, hosts + 1))
        self.faults = Faults(self)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Make the network and boot all hosts."""
        reason = refusal(rootless=self._rootless)
        if reason is not None:
            raise Unavailable(reason)
        self._keeper = KeeperClient(rootless=self._rootless)
        try:
            made = self._keeper.open(**self._wanted)
            self.addresses = made["addresses"]
            self.accounts = {name: Account(**fields) for name, fields in made["accounts"].items()}
            self.shared, self.local = Path(made["root"], "shared"), Path(made["root"], "local")
            self.boot(*self.names)
        except OSError as error:
            self.down()
            raise Unavailable(str(error)) from error

    def down(self) -> None:
        """End all hosts and remove every trace of them."""
        if self._keeper is not None:
            self._keeper.close()
        self._keeper = None
        self._running = {}

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Have the keeper do something; for the parts of this package."""
        if self._keeper is None:
            raise OSError("the testbed is not up")
        return self._keeper.call(do, **request)

    def boot(self, *hosts: str) -> None:
        """Start hosts, or start them again: with nothing but what lies on the common file systems."""
        answer = self.ask("boot", hosts=list(hosts))
        self._running = {name: (init, start) for name, (init, start) in answer["running"].items()}

    def cut(self, host: str, how: str) -> None:
        """End a host in the way of `kill` or `crash` (see `faults`); `boot` starts it again."""
        self._running.pop(host, None)
        self.ask(how, host=host)

    def popen(
        self,
        host: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        user: str | None = None,
        cwd: str | os.PathLike[str] = "/",
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a command on a host.

        `terminate` and `send_signal` reach the command; `kill` ends it and everything that it has started.

        Args:
            host: Where.
            argv: The command, never a shell's line.
            user: Who runs it; root when None.
            cwd: Its working directory there.
            env: Variables on top of a login's few (PATH, HOME, USER, LOGNAME, SHELL, LANG).
            **options: For `subprocess.Popen`: stdin, stdout, stderr, ...  No other descriptor reaches the command.

        Raises:
            OSError: The host is down.
        """
        if host not in self._running:
            raise OSError(f"{host} is down")
        order = os.memfd_create("order", 0)
        try:
            with open(order, "w", encoding="utf-8", closefd=False) as stream:
                json.dump(self._order(host, argv, user, cwd, env), stream)
            os.lseek(order, 0, os.SEEK_SET)
            settings: dict[str, Any] = {"start_new_session": True, "encoding": "utf-8", "errors": "backslashreplace"}
            settings |= options
            settings |= {"pass_fds": (order, *options.get("pass_fds", ())), "env": python_environment(), "cwd": "/"}
            process: subprocess.Popen[str] = subprocess.Popen(python_command("enter", order), **settings)
        finally:
            os.close(order)
        return process

    def _order(
        self,
        host: str,
        argv: Sequence[str | os.PathLike[str]],
        user: str | None,
        cwd: str | os.PathLike[str],
        env: Mapping[str, str] | None,
    ) -> dict[str, Any]:
        account = self.accounts[user or "root"]
        login = {"PATH": CLEAN_PATH, "HOME": account.home, "SHELL": "/bin/bash", "LANG": "C.UTF-8"}
        init, start = self._running[host]
        return {
            "host": host,
            "init": init,
            "start": start,
            "argv": [os.fspath(word) for word in argv],
            "cwd": os.fspath(cwd),
            "env": login | {"USER": account.name, "LOGNAME": account.name} | dict(env or {}),
            "uid": account.uid,
            "gid": account.gid,
            "frozen": str(self._frozen_mark(host)),
        }

    def _frozen_mark(self, host: str) -> Path:
        return self.shared.parent / f"frozen-{host}"

    def run(
        self,
        host: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: str | None = None,  # noqa: A002 - subprocess.run calls it so
        timeout: float | None = None,
        check: bool = False,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and return what it said; the other arguments are those of `popen`.

        Raises:
            subprocess.TimeoutExpired: It took too long; it and everything below it are gone then.
            subprocess.CalledProcessError: With `check`: it failed.
            OSError: The host is down.
        """
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        streams["stdin"] = subprocess.DEVNULL if input is None else subprocess.PIPE
        ended, held = os.pipe()
        try:
            process = self.popen(host, argv, pass_fds=(held,), **streams | options)
        except BaseException:
            os.close(ended)
            raise
        finally:
            os.close(held)
        with process:
            try:
                output, errors = process.communicate(input, timeout)
            except BaseException as error:
                process.kill()
                if not self._frozen_mark(host).exists():  # there nothing can end before the thaw
                    select.select([ended], [], [], _END_LIMIT)
                if isinstance(error, subprocess.TimeoutExpired):
                    error.cmd = [host, *argv]
                raise
            finally:
                os.close(ended)
        done = subprocess.CompletedProcess([os.fspath(word) for word in argv], process.returncode, output, errors)
        if check and done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
        return done

    def processes(self, host: str, text: str = "") -> list[tuple[int, str]]:
        """Return pid (as the host sees it) and command line of the processes that carry `text`.

        Looked for in command lines (arguments joined by spaces) and environments.
        """
        return [(pid, line) for pid, line in self.ask("processes", host=host, text=text)["processes"]]


def _hidden_by_private(paths: Sequence[Path]) -> list[str]:
    """Return those directories that a host's own /tmp, /run and /dev/shm would hide, the outermost only."""
    hidden = {path.resolve() for path in paths if any(path.resolve().is_relative_to(top) for top in _PRIVATE)}
    return [str(path) for path in sorted(hidden) if not any(other in path.parents for other in hidden)]
