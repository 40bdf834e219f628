"""The life of one host's first process, as its keeper sees it: fork it, wait for its words, stop it, end it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from tests.testbed import linux

_READY_LIMIT = 20.0
_FREEZE_LIMIT = 5.0


@dataclass
class Running:
    """A host that was booted: its first process, and its network, which outlives a mere kill of the processes."""

    init: int
    start: str
    network: int
    up: bool = True


def fork_first_process(main: Callable[[], NoReturn]) -> int:
    """Run `main` as the first process of a new pid namespace, as a child of ours, and return its pid.

    A process can make such a namespace once only, so another one does it and ends; we adopt its child.
    """
    heard, say = os.pipe()
    helper = os.fork()
    if not helper:
        try:
            linux.unshare(linux.NEW_PID)
            init = os.fork()
            if not init:
                main()
            os.write(say, str(init).encode())
        except OSError as error:
            os.write(say, str(error).encode())
        finally:
            os._exit(0)
    os.close(say)
    os.waitpid(helper, 0)
    answer = os.read(heard, 4096).decode()
    os.close(heard)
    if not answer.isdigit():
        raise OSError(answer)
    return int(answer)


def expect(name: str, ends: tuple[int, int], word: str) -> None:
    ready, _, _ = select.select([ends[0]], [], [], _READY_LIMIT)
    heard = os.read(ends[0], 4096).decode(errors="replace").strip() if ready else "no answer"
    if heard != word:
        raise OSError(f"{name} did not come up: {heard or 'its first process ended'}")


def stop_all(listing: Callable[[], list[int]]) -> None:
    """Send SIGSTOP to all that `listing` returns, again and again, until none of them moves any more.

    Raises:
        OSError: Some went on for too long.
    """
    limit = time.monotonic() + _FREEZE_LIMIT
    told: set[int] = set()
    while moving := [pid for pid in listing() if not _stands_still(pid, told)]:
        for pid in moving:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        told.update(moving)
        if time.monotonic() > limit:
            raise OSError(f"these do not stop: {moving}")


def _stands_still(pid: int, told: set[int]) -> bool:
    """Say whether a process is stopped, or will be before it runs again.

    One that sleeps in the kernel, such as the parent of an unfinished vfork(2), stops only when it wakes.
    """
    state = linux.stat_fields(pid)[:1]
    return state in ([], ["T"], ["Z"]) or (state == ["D"] and pid in told)


def end(one: Running) -> None:
    """Kill a host's first process, with which the kernel kills all others, and wait until they are gone."""
    if one.up:
        os.kill(one.init, signal.SIGKILL)
        os.waitpid(one.init, 0)
        one.up = False


def close_all_but(kept: set[int]) -> None:
    for descriptor in set(linux.numbers_in("/proc/self/fd")) - kept:
        with suppress(OSError):
            os.close(descriptor)
