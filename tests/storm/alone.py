"""One provisioner at a time, in a process of its own: under strace, with another clock, on a file system of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_multihost_env import provision
from pytest_multihost_env.model import Generation
from tests.integration.tiny import TinyBuilder, finish
from tests.storm import oracle
from tests.storm.field import ROOT

CALLS = (
    "link", "linkat", "symlink", "symlinkat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir",
    "mkdirat", "chmod", "fchmod", "fchmodat", "fsync", "fdatasync", "syncfs", "openat", "write", "close", "getdents64",
)  # fmt: skip
CHANGING = frozenset(CALLS) - {"openat", "close", "getdents64"}


def program(source: Path, target: Path, *options: str) -> list[str]:
    """Return the command that provisions; it looks at the outcome with `oracle` and says what it found."""
    return [sys.executable, "-m", "tests.storm.provisioner", str(source), str(target), *options]


def run(argv: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `argv` to its end."""
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=env, timeout=110)


def calls(argv: Sequence[str], log: Path) -> list[tuple[str, int]]:
    """Return the system calls of `argv` that touch an environment, in order: name, and how many of the name came before.

    Only those of the first thread count, as strace counts for each thread.
    """
    done = run(["strace", "-f", "-y", "--seccomp-bpf", "-o", str(log), "-e", f"trace={','.join(CALLS)}", *argv])
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in log.read_text(errors="replace").splitlines()]
    seen: dict[str, int] = {}
    found = []
    for pid, text in lines:
        name = re.match(r"\w+", text)
        if pid != lines[0][0] or name is None or name[0] not in CALLS:
            continue
        seen[name[0]] = seen.get(name[0], 0) + 1
        if "python_env" in text:
            found.append((name[0], seen[name[0]]))
    return found


def tampered(argv: Sequence[str], call: str, effect: str, when: str) -> list[str]:
    """Return `argv` under strace, with `effect` on `call` when `when`, as strace's `--inject` has them.

    Without `--seccomp-bpf`: with it strace 6.1 injects nothing here.
    """
    inject = f"inject={call}:{effect}:when={when}"
    return ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *argv]


def ensure(source: Path, target: Path) -> Generation:
    """Provision in this process, and patiently: what seems to be held is waited for."""
    request = provision.ProvisionRequest(source, target, ttl=2.0, beat=0.4, timeout=60)
    return provision.ensure(request, notify=lambda text: None, recipe=provision.Recipe(TinyBuilder(), finish))


def whole(source: Path, target: Path) -> Generation:
    """Provision; check that the outcome is complete, and that no other tree is left beside it.  Return it."""
    made = ensure(source, target)
    assert not oracle.lacks(made.path, source)
    assert [path.name for path in made.path.parent.iterdir() if path.is_dir()] == [made.path.name]
    assert target.samefile(made.path)
    return made


def other_clock(shift: str) -> list[str]:
    """Return what makes the command that follows believe that it is `shift` ("+1h") from now.

    The library itself, not the program `faketime`: that one stays as a parent, and moves the monotonic clock too, in
    which threads then wait for an hour.
    """
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return ["env", f"LD_PRELOAD={library}", f"FAKETIME={shift}", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
