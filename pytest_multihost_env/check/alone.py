"""Imports one module in a process of its own.  Part of the program `snapshot`: the standard library only.

A module that prints, raises, calls `sys.exit` or `os._exit`, crashes or hangs speaks only for itself, and what it
maps into memory is known to be its own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import select
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

LIBRARIES = (
    ("mpi", re.compile(r"libmpi(ch|_abi|_intel)?[-.]")),
    ("cuda", re.compile(r"libcuda[-.]")),
    ("cudart", re.compile(r"libcudart[-.]")),
    ("nccl", re.compile(r"libnccl[-.]")),
    ("openblas", re.compile(r"lib(scipy_)?openblas\w*[-.]")),
    ("mkl", re.compile(r"libmkl_\w+[-.]")),
    ("blis", re.compile(r"libblis\w*[-.]")),
    ("fabric", re.compile(r"lib(fabric|ucp)[-.]")),
)


def import_alone(name: str, path: list[str], timeout: float) -> dict[str, Any]:
    """Import `name` in a process of its own and return what came of it."""
    deadline = time.monotonic() + timeout
    read, write = os.pipe()
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _import_here(name, path, timeout, write, output.fileno())
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # here as well as there: whoever comes first
        os.close(write)
        try:
            line = _first_line(read, pid, deadline)
        finally:
            os.close(read)
        result = _parsed(line)
        if result is None:
            result = {"ok": False, "error": _how_it_ended(pid, deadline, timeout)}
        else:
            _end(pid)
        if not result["ok"]:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - 2000))
            result["output"] = output.read().decode("utf-8", "replace")
    return result


def _import_here(name: str, path: list[str], timeout: float, write: int, output: int) -> NoReturn:
    """In the forked child: import, answer, and end without running anything that the module left behind."""
    leave, dump, send = os._exit, json.dumps, os.write
    try:
        os.setpgid(0, 0)
        _die_with_parent()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        low, high = sorted((write, output))
        for start, end in ((3, low), (low + 1, high), (high + 1, 4096)):
            os.closerange(start, end)  # a process that the module leaves behind must not hold the answer's pipe
        signal.alarm(int(timeout) + 5)  # the parent may be gone when the time is up
        os.environ.setdefault("MPI4PY_RC_INITIALIZE", "0")  # a look at mpi4py.MPI must not start MPI
        sys.path[:0] = path
        sys.argv = [""]
        try:
            module = importlib.import_module(name)
            answer = {"ok": True, **_describe(module), "libraries": mapped_libraries()}
        except BaseException as error:  # noqa: BLE001 - SystemExit at import is the very thing to report
            answer = {"ok": False, "error": _last_line(error)}
        # What the module printed waits in Python's buffers, which leaving like this would lose.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        data = dump(answer).encode() + b"\n"
        while data:
            data = data[send(write, data) :]
    finally:
        leave(0)


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone (PR_SET_PDEATHSIG, prctl(2))."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
    return text + " (it ends the interpreter when it is imported)" if isinstance(error, SystemExit) else text


def _describe(module: ModuleType) -> dict[str, str | None]:
    version = None
    with contextlib.suppress(Exception):
        version = getattr(module, "__version__", None)
    file = getattr(module, "__file__", None)
    if file is None:  # a namespace package has only places
        with contextlib.suppress(Exception):
            file = next(iter(module.__path__), None)
    return {
        "version": str(version) if isinstance(version, str) else None,
        "file": str(Path(file).absolute()) if isinstance(file, str) else None,
    }


def _first_line(read: int, pid: int, deadline: float) -> bytes:
    """Return what the child wrote up to a newline, or less when it ended or the time is up."""
    data = b""
    while not data.endswith(b"\n"):
        wait = min(0.2, deadline - time.monotonic())
        if wait <= 0:
            break
        if select.select([read], [], [], wait)[0]:
            chunk = os.read(read, 1 << 16)
            if not chunk:
                break
            data += chunk
        elif os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break  # a process that the module left behind still holds the pipe
    return data


def _parsed(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        result = json.loads(line)
        if isinstance(result, dict) and line.endswith(b"\n"):
            return result
    return None


def _how_it_ended(pid: int, deadline: float, timeout: float) -> str:
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() >= deadline:
            _end(pid)
            return f"no end of the import after {timeout:g} s"
        time.sleep(0.01)
    code = _end(pid)
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name} while it was imported"
        return f"killed by signal {-code} while it was imported"
    return f"ended the interpreter with exit code {code} while it was imported"


def _end(pid: int) -> int:
    """End the child, unless it has ended, and what it left behind; return its exit code or minus its signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # before it is waited for: until then nobody else can get the number
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def mapped_libraries() -> list[dict[str, str | None]]:
    """Return the libraries of interest that this process has mapped, each with its file and build id."""
    paths: set[str] = set()
    with contextlib.suppress(OSError), Path("/proc/self/maps").open(encoding="utf-8", errors="surrogateescape") as maps:
        paths = {line.split(None, 5)[5].rstrip("\n") for line in maps if line.count("/")}
    found: list[dict[str, str | None]] = []
    for path in sorted(paths):
        base = Path(path).name
        family = next((family for family, pattern in LIBRARIES if pattern.match(base)), None)
        if family and ".so" in base:
            found.append({"family": family, "path": path, "build_id": build_id(path)})
    return found


def build_id(path: str) -> str | None:
    """Return the GNU build id of a 64-bit little-endian ELF file as hex, or None (elf(5))."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
            if head[:6] != b"\x7fELF\x02\x01":
                return None
            (table,) = struct.unpack_from("<Q", head, 32)
            size, count = struct.unpack_from("<HH", head, 54)
            file.seek(table)
            headers = file.read(size * count)
            for index in range(count):
                kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", headers, index * size)
                if kind == 4:  # PT_NOTE
                    file.seek(offset)
                    found = _note(file.read(min(length, 1 << 16)))
                    if found:
                        return found
    except (OSError, struct.error):
        return None
    return None


def _note(data: bytes) -> str | None:
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        name = at + 12
        body = name + (name_size + 3 & ~3)
        if kind == 3 and data[name : name + name_size] == b"GNU\0":
            return data[body : body + size].hex()
        at = body + (size + 3 & ~3)
    return None
