"""What one host finds out about a directory by itself.  Standard library only; a part of `far`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_multihost_env import filesystem

YES = "yes"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_FICLONE = 0x40049409
_ROUNDS, _LIMIT = 32, 0.3
"""How often a call is timed, and for how many seconds at most."""


def run_all(directory: Path) -> dict[str, str]:
    """Return what each trial found, by its name: a word, or `cannot: ERRNO`."""
    found = {}
    for name, trial in TRIALS.items():
        place = directory / name
        try:
            place.mkdir()
            found[name] = trial(place)
        except OSError as error:
            found[name] = f"cannot: {filesystem.code(error)}"
    return found


def _replace(place: Path) -> str:
    """Whether a rename takes the place of a file, as every swap of TARGET needs."""
    (place / "old").write_bytes(b"old")
    (place / "new").write_bytes(b"new")
    (place / "new").replace(place / "old")
    return YES if (place / "old").read_bytes() == b"new" else "no"


def _rename_over(place: Path) -> str:
    """Whether a rename refuses to take the place of a directory that is not empty."""
    for name in ("one", "two"):
        (place / name).mkdir()
        (place / name / "content").touch()
    try:
        (place / "one").rename(place / "two")
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return filesystem.REFUSES
        raise
    return "replaces"


def _exchange(place: Path) -> str:
    one, two = place / "one", place / "two"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return "unknown: the C library has no renameat2"
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE):
        return f"no: {errno.errorcode.get(ctypes.get_errno(), '?')}"
    return YES if one.read_bytes() == b"two" else "no"


def _copies(copy: Callable[[int, int], object]) -> Callable[[Path], str]:
    def trial(place: Path) -> str:
        content = b"content" * 8192
        (place / "from").write_bytes(content)
        with (place / "from").open("rb") as source, (place / "to").open("wb") as target:
            try:
                copy(source.fileno(), target.fileno())
            except OSError as error:
                return f"no: {filesystem.code(error)}"
        return YES if (place / "to").read_bytes() == content else "copies wrongly"

    return trial


def _clone(source: int, target: int) -> None:
    fcntl.ioctl(target, _FICLONE, source)


def _copy_range(source: int, target: int) -> None:
    left = os.fstat(source).st_size
    while left:
        done = os.copy_file_range(source, target, left)
        if not done:
            raise OSError(errno.EIO, "it stops early")
        left -= done


def _execute(place: Path) -> str:
    script = place / "script"
    script.write_bytes(b"#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    code = subprocess.run([str(script)], stdin=subprocess.DEVNULL, check=False).returncode
    return YES if code == 7 else f"no: it ended with {code}"


def _modes(place: Path) -> str:
    file = place / "file"
    file.touch()
    for mode in (0o640, 0o555):
        file.chmod(mode)
        if stat.S_IMODE(file.stat().st_mode) != mode:
            return f"no: {mode:o} became {stat.S_IMODE(file.stat().st_mode):o}"
    return YES


TRIALS: dict[str, Callable[[Path], str]] = {
    "exclusive": lambda place: filesystem.refusal(filesystem.exclusive, place),
    "link": lambda place: filesystem.refusal(filesystem.link, place),
    "symlink": lambda place: filesystem.refusal(filesystem.symlink, place),
    "replace": _replace,
    "rename_over": _rename_over,
    "exchange": _exchange,
    "reflink": _copies(_clone),
    "copy_range": _copies(_copy_range),
    "execute": _execute,
    "modes": _modes,
}


def space(directory: Path) -> dict[str, int]:
    """Return what is free for this user; 0 in `all_files` where the file system does not count files."""
    status = os.statvfs(directory)
    return {
        "bytes": status.f_bavail * status.f_frsize,
        "all_bytes": status.f_blocks * status.f_frsize,
        "files": status.f_favail,
        "all_files": status.f_files,
    }


def latency(directory: Path) -> dict[str, float]:
    """Return the median µs that it takes to create, to look at, and to remove a file."""
    times: dict[str, list[float]] = {"create": [], "stat": [], "unlink": []}
    end = time.monotonic() + _LIMIT
    for number in range(_ROUNDS):
        path = str(directory / f"{number}")
        moments = [time.perf_counter()]
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        moments.append(time.perf_counter())
        os.stat(path)  # noqa: PTH116 - what is timed is the call
        moments.append(time.perf_counter())
        os.unlink(path)  # noqa: PTH108
        moments.append(time.perf_counter())
        for name, start, stop in zip(times, moments, moments[1:], strict=False):
            times[name].append((stop - start) * 1e6)
        if time.monotonic() > end:
            break
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def writes(directory: Path) -> None:
    """Write a page and have it on disk.

    Raises:
        OSError: It cannot be.
    """
    path = directory / "page"
    filesystem.exclusive(b"x" * 4096, path)
    with contextlib.suppress(OSError):
        path.unlink()


def facts(directory: Path) -> dict[str, Any]:
    """Return everything, from `directory`, which is this host's own."""
    return {
        "space": space(directory),
        "trials": run_all(directory),
        "latency": latency(directory),
        "owner": directory.stat().st_uid,
        "group": directory.stat().st_gid,
    }
