"""Start programs: the only place that does, beside the far end.

`run` is for a program that is part of a step: it is killed when this process dies, and with everything that it started
when its time is over.  `start` is for a program that outlives the call.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

GRACE = 2.0
"""Seconds between TERM and KILL."""

_PR_SET_PDEATHSIG = 1

Stream = int | IO[bytes] | None
Popen = subprocess.Popen[bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended.

    Attributes:
        code: Its exit code; negative, the signal that ended it.
        stdout: What it wrote there, as text.
        stderr: What it wrote there, as text.
        timed_out: The time limit ended it.
    """

    code: int
    stdout: str
    stderr: str
    timed_out: bool

    def __bool__(self) -> bool:
        """Whether it ended by itself with 0."""
        return self.code == 0 and not self.timed_out


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Popen:
    """Start `argv` in a session and process group of its own, so that a signal to ours does not reach it.

    Args:
        argv: The program and its arguments; no shell sees them.
        env: Its whole environment; None: ours.
        stdin: As in `subprocess.Popen`; nothing to read unless given.
        stdout: As in `subprocess.Popen`.
        stderr: As in `subprocess.Popen`.

    Raises:
        OSError: It could not be started.
    """
    return subprocess.Popen(
        list(argv), env=_environment(env), stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
    )


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str | None = None,  # noqa: A002 - the name that subprocess.run taught everybody
    timeout: float,
) -> Finished:
    """Run `argv` to its end and return what it wrote.

    Its process group gets TERM and, `GRACE` seconds later, KILL when `timeout` seconds are over or when this call is
    interrupted.  The kernel kills it when the calling thread ends (`PR_SET_PDEATHSIG`, prctl(2)), and a watchman kills
    the rest of its group when this process is gone, whatever became of it: an installer starts others.

    Raises:
        OSError: It could not be started.
    """
    child = subprocess.Popen(
        list(argv),
        env=_environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_die_with_parent(),  # noqa: PLW1509 - calls nothing but prctl, getppid and _exit
    )
    try:
        with _watchman(child.pid):
            data = None if input is None else input.encode("utf-8", "surrogateescape")  # file names, it may be
            out, err = child.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired:
        out, err = _end(child)
        return Finished(_code(child), _text(out), _text(err), timed_out=True)
    except BaseException:
        _end(child)
        raise
    return Finished(child.returncode, _text(out), _text(err), timed_out=False)


@contextlib.contextmanager
def _watchman(group: int) -> Iterator[None]:
    """Have the process group killed if this process ends during the block: its end of a pipe closes then."""
    argv = ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$1"', "multihost-watchman", str(group)]
    watchman = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the caller's group is not for it
    )
    try:
        yield
    finally:
        watchman.kill()
        watchman.wait()
        assert watchman.stdin is not None  # noqa: S101 - it was asked for
        watchman.stdin.close()


def kill_group(pid: int, number: int) -> None:
    """Send a signal to the process group that `pid` leads; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _end(child: Popen) -> tuple[bytes, bytes]:
    """Stop the group and return what it wrote so far."""
    kill_group(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        output = child.communicate(timeout=GRACE)
        kill_group(child.pid, signal.SIGKILL)
        return output
    kill_group(child.pid, signal.SIGKILL)
    try:
        return child.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired as expired:
        # A grandchild left the group and keeps our pipe open: it shall not keep us too.
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        return expired.stdout or b"", expired.stderr or b""


def _code(child: Popen) -> int:
    code = child.poll()
    return -signal.SIGKILL if code is None else code


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _environment(env: Mapping[str, str] | None) -> dict[str, str] | None:
    return None if env is None else dict(env)


def _die_with_parent() -> Callable[[], None]:
    """Return what the child calls before exec; the library is looked up here, since the child must not import."""
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os._exit(127)

    return arm
