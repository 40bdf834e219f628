"""A world for callers in which every step of a file system waits to be granted, so that a schedule can be chosen.

The callers are threads that run the real `ensure` on a real directory.  The functions of `os` that look at or change
files, the clock, `sleep`, the host's name and the process table are the world's: a caller stops before each such call
until the world lets it go on, to be interleaved with the others, to die there (nothing that it does afterwards has any
effect), to have the reply to its next change lost, or to be shown a listing of a moment ago.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import io
import os
import pkgutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from unittest import mock

from pytest_multihost_env import provision
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import actor
from tests.integration import tiny

for _module in pkgutil.iter_modules(provision.__path__, f"{provision.__name__}."):
    # A caller that waits in the middle of an import would make the others wait for the import's lock.
    with contextlib.suppress(ImportError):  # some need an extra, and are for it alone
        importlib.import_module(_module.name)

STEPS = (
    "open", "fdopen", "link", "symlink", "rename", "replace", "unlink", "rmdir", "mkdir", "listdir", "scandir", "chmod",
    "fchmod", "fsync",
)  # fmt: skip
CHANGES = {"link": 1, "symlink": 1, "rename": 1, "replace": 1}
"""What can lose its reply, and which argument is the name that it makes."""


class Dead(BaseException):
    """The caller was killed; only its thread has to come to its end."""


class Stuck(Exception):
    """A caller takes more steps than any should."""


@dataclasses.dataclass
class Caller:
    """One call of `ensure`, in a process of its own on a host of its own."""

    host: str
    pid: int
    thread: threading.Thread | None = None
    result: Generation | None = None
    problem: BaseException | None = None
    alive: bool = True
    dying: bool = False
    ended: bool = False
    task: Callable[[], Any] | None = None
    holds: bool = False
    loses: bool = False
    stale: bool = False
    faulty: bool = False
    clock: float = 0.0
    steps: int = 0
    turn: threading.Semaphore = dataclasses.field(default_factory=lambda: threading.Semaphore(0))
    seen: dict[str, list[str]] = dataclasses.field(default_factory=dict)


class World:
    """Callers on one shared directory, and who of them moves."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.callers: list[Caller] = []
        self._by_thread: dict[int, Caller] = {}
        self._moved = threading.Semaphore(0)
        self._chairs: dict[str, Caller] = {}
        self._patches = contextlib.ExitStack()
        self._real = {name: getattr(os, name) for name in STEPS}
        self._listdir = os.listdir

    def __enter__(self) -> Self:
        patch = lambda *args: self._patches.enter_context(mock.patch.object(*args))  # noqa: E731
        for name in STEPS:
            patch(os, name, self._wrapped(name))
        patch(io, "open", self._stepping(io.open))
        sleep, monotonic = time.sleep, time.monotonic
        patch(time, "sleep", lambda seconds: self._sleep(seconds, sleep))
        patch(time, "monotonic", lambda: me.clock if (me := self._me()) else monotonic())
        start_of, place = actor._start_of, actor._place
        patch(actor, "_place", lambda: (me.host, "boot", "pids") if (me := self._me()) else place())
        patch(actor, "_start_of", lambda pid: self._start_of(pid) if self._me() else start_of(pid))
        getpid = os.getpid
        patch(os, "getpid", lambda: me.pid if (me := self._me()) else getpid())
        patch(sys.modules["pytest_multihost_env.provision.ensure"], "Chair", lambda path, notify: _Chair(self))
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self.callers:
            self.kill(caller)
        self._patches.close()

    # -- what the rules do -------------------------------------------------------------------------------------------

    def start(self, host: str, task: Callable[[], Any] | None = None, *, holds: bool = False) -> Caller:
        """Return a new caller, which has not moved yet.

        Args:
            host: Where it runs.
            task: What it does; None: it provisions.
            holds: It lives on when it is done, until it is killed.
        """
        caller = Caller(host, pid=100_000 + len(self.callers), task=task or self.provision, holds=holds)
        caller.thread = threading.Thread(target=self._run, args=(caller,), daemon=True)
        self.callers.append(caller)
        caller.thread.start()
        self._moved.acquire()
        return caller

    def move(self, caller: Caller, steps: int = 1) -> None:
        """Let `caller` take so many steps, or come to its end."""
        for _ in range(steps):
            if caller.ended:
                return
            caller.turn.release()
            self._moved.acquire()

    def kill(self, caller: Caller) -> None:
        """End `caller` where it stands."""
        caller.alive, caller.dying = False, True
        while not caller.ended:
            caller.turn.release()
            self._moved.acquire()
        assert caller.thread is not None
        caller.thread.join()
        self._chairs = {host: holder for host, holder in self._chairs.items() if holder is not caller}

    # -- what the callers meet ---------------------------------------------------------------------------------------

    def _run(self, caller: Caller) -> None:
        self._by_thread[threading.get_ident()] = caller
        try:
            self._step()
            assert caller.task is not None
            caller.result = caller.task()
        except Dead:
            pass
        except Exception as problem:
            caller.problem = problem
        finally:
            del self._by_thread[threading.get_ident()]
            caller.ended, caller.alive = True, caller.holds and caller.result is not None and not caller.dying
            self._chairs = {host: holder for host, holder in self._chairs.items() if holder is not caller}
            self._moved.release()

    def provision(self, *, force: bool = False, uses: bool = False) -> Generation:
        """Provision as a process that uses the environment for as long as it lives, or as one that only makes it."""
        request = provision.ProvisionRequest(self.source, self.target, force=force, ttl=1.0, beat=1e6, timeout=1e6)
        recipe = provision.Recipe(tiny.TinyBuilder(), tiny.finish)
        user = actor.myself() if uses else None
        return provision.ensure(request, notify=lambda text: None, recipe=recipe, user=user)

    def _me(self) -> Caller | None:
        return self._by_thread.get(threading.get_ident())

    def _step(self) -> Caller | None:
        me = self._me()
        if me is None:
            return None
        if me.dying:
            raise Dead
        self._moved.release()
        me.turn.acquire()
        if me.dying:
            raise Dead
        me.steps += 1
        me.clock += 0.001
        if me.steps > 20_000:
            raise Stuck(f"{me.host}, pid {me.pid}")
        return me

    def _stepping(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._step()
            return real(*args, **kwargs)

        return call

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            me = self._step()
            if me is None:
                return real(*args, **kwargs)
            if name == "listdir":
                return self._listed(me, args[0] if args else ".")
            answer = real(*args, **kwargs)
            if name in CHANGES:
                me.seen.pop(str(Path(os.fsdecode(args[CHANGES[name]])).parent), None)
                if me.loses:
                    me.loses, me.faulty = False, True
                    raise OSError(errno.EIO, "the reply is lost", os.fsdecode(args[0]))
            return answer

        return call

    def _listed(self, me: Caller, directory: Any) -> list[str]:
        names = self._listdir(directory)
        if not isinstance(directory, (str, Path)):
            return names
        path = str(directory)
        if me.stale and path in me.seen:
            me.stale, me.faulty = False, True
            # What this host knows of before; but what is gone or there by its own doing it knows.
            return list(me.seen[path])
        me.seen[path] = names
        return names

    def _sleep(self, seconds: float, real: Callable[[float], None]) -> None:
        me = self._step()
        if me is None:
            real(seconds)
        else:
            me.clock += seconds

    def _start_of(self, pid: int) -> str | None:
        return next((str(one.pid) for one in self.callers if one.pid == pid and one.alive), None)

    def chair(self, caller: Caller) -> bool:
        """Return whether `caller` is its host's contender."""
        return self._chairs.setdefault(caller.host, caller) is caller

    def stand_up(self, caller: Caller) -> None:
        """Free the seat that `caller` has."""
        if self._chairs.get(caller.host) is caller:
            del self._chairs[caller.host]

    def current(self) -> Caller:
        """Return the caller whose thread this is."""
        me = self._me()
        assert me is not None
        return me


class _Chair:
    """Stands in for `election.Chair`, whose lock is the kernel's."""

    def __init__(self, world: World) -> None:
        self._world = world

    def take(self) -> bool:
        return self._world.chair(self._world.current())

    def leave(self) -> None:
        self._world.stand_up(self._world.current())
