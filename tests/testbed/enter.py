"""Run one command on a host, in all its namespaces, and end it with everything below it when we are killed.

Started by `bed.py` as `python -m tests.testbed.enter FD`, with FD a file that holds the order as JSON (so that no
search for a text in command lines ever finds us).  Three processes: this one stays outside, since a process cannot
change its own pid namespace; its child is inside, adopts all orphans of the command, and kills the whole tree at a
signal that the kernel sends it when we end; the grandchild becomes the command.  Signals are passed on, and the way
in which the command ended is repeated.  What the command left running when it ended by itself goes on, as with ssh.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

from tests.testbed import linux

_PASSED_ON = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_OWNER_GONE = signal.SIGRTMAX
_WATCHED = _PASSED_ON | {signal.SIGCHLD, _OWNER_GONE}
NOT_STARTED = 127


def main(order: dict[str, Any]) -> NoReturn:
    """Carry out the order: init, start, argv, cwd, env, uid, gid, frozen."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    for descriptor in linux.numbers_in("/proc/self/fd"):
        with suppress(OSError):
            os.set_inheritable(descriptor, descriptor < 3)
    _join(order["init"], order["start"])
    alive, ours = os.pipe()
    inside = os.fork()
    if not inside:
        os.close(ours)
        _supervise(order, alive)
    os.close(alive)
    _let_go_of_output()
    _follow(inside, kill_tree=False)


def _join(init: int, start: str) -> None:
    """Enter the namespaces of the host whose first process is `init`."""
    kinds = ["user", "net", "uts", "ipc", "pid", "mnt"]
    descriptors = [os.open(f"/proc/{init}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    if linux.start_time(init) != start:
        raise ProcessLookupError("the host is not up")
    for kind, descriptor in zip(kinds, descriptors, strict=True):
        if kind == "user":
            if linux.namespace_id("self", kind) == linux.namespace_id(init, kind):
                continue
            linux.join(descriptor, linux.NEW_USER)
            os.setgid(0)
            os.setuid(0)
            os.setgroups([])
        else:
            linux.join(descriptor)


def _supervise(order: dict[str, Any], alive: int) -> NoReturn:
    """Inside the host: start the command, adopt its orphans, wait for it."""
    linux.adopt_orphans()
    linux.die_with_parent(_OWNER_GONE)
    os.set_blocking(alive, False)
    with suppress(BlockingIOError):
        if not os.read(alive, 1):
            os._exit(1)  # The one outside ended before the kernel knew whom to tell.
    if os.path.exists(order["frozen"]):  # noqa: PTH110 - every import must be done before the host's files are ours
        os.kill(os.getpid(), signal.SIGSTOP)
    command = os.fork()
    if not command:
        _become_command(order)
    _let_go_of_output()
    _follow(command, kill_tree=True)


def _become_command(order: dict[str, Any]) -> NoReturn:
    for name in signal.valid_signals():
        if signal.getsignal(name) == signal.SIG_IGN:  # by Python, or by who started us
            signal.signal(name, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    try:
        os.setgroups([order["gid"]])
        os.setgid(order["gid"])
        os.setuid(order["uid"])
        os.chdir(order["cwd"])
        os.execvpe(order["argv"][0], order["argv"], order["env"])
    except OSError as error:
        os.write(2, f"{order['host']}: cannot start {order['argv'][0]!r} in {order['cwd']!r}: {error}\n".encode())
    os._exit(NOT_STARTED)


def _let_go_of_output() -> None:
    """Hold none of the command's streams: who reads or writes them must see when the command closes its own."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def _follow(child: int, *, kill_tree: bool) -> NoReturn:
    """Pass signals on to the child until it ends, then end as it did."""
    while True:
        heard = signal.sigwait(_WATCHED)
        if heard == signal.SIGCHLD:
            _reap(child)
        elif heard == _OWNER_GONE and kill_tree:
            _kill_tree()
            os._exit(1)
        else:
            with suppress(ProcessLookupError):
                os.kill(child, heard)


def _reap(child: int) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid == child:
                _end_like(os.waitstatus_to_exitcode(status))


def _end_like(code: int) -> NoReturn:
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _kill_tree() -> None:
    """Kill all descendants until there are none: as their reaper we are the parent of every one in the end."""
    while descendants := _descendants(os.getpid()):
        for pid in descendants:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _descendants(root: int) -> list[int]:
    parents = {}
    for pid in linux.numbers_in("/proc"):
        if (fields := linux.stat_fields(pid)) and fields[0] not in "XZ":
            parents[pid] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


if __name__ == "__main__":
    with open(int(sys.argv[1]), encoding="utf-8") as _order:  # noqa: PTH123 - a descriptor
        _loaded = json.load(_order)
    try:
        main(_loaded)
    except OSError as _error:
        os.write(2, f"{_loaded['host']}: {_error}\n".encode())
        os._exit(NOT_STARTED)
