"""Runs the set-up commands of the configuration file inside the new environment, before it is proven and published."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from pytest_multihost_env import process
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import uv

LIMIT = 3600.0
"""Seconds that one command may take."""

_TAIL = 30

Command = tuple[str, ...]


def run(commands: Sequence[Command], env: Path, directory: Path, work: Work) -> None:
    """Run each command with the programs of `env` first; no shell sees it.

    It gets what a build gets of this process's environment (see `uv.PASSED`) and the environment's own `PATH` and
    `VIRTUAL_ENV`: no secret, and nothing that another host of the job would have differently without saying so.

    Args:
        commands: Programs with their arguments.
        env: The environment, at its final path.
        directory: Where they run.
        work: Shows which one runs.

    Raises:
        NotReady: One failed; with its exit code and the end of what it wrote.
    """
    around = environment(env)
    for command in commands:
        work.progress.begin(f"running {shlex.join(command)[:60]}")
        try:
            _run(command, around, directory)
        finally:
            work.progress.end()


def environment(env: Path) -> dict[str, str]:
    """Return the environment of a command that runs inside `env`."""
    given = {name: value for name, value in uv.environment(os.environ).items() if not name.startswith("UV_")}
    path = os.pathsep.join([str(env / "bin"), given.get("PATH", os.defpath)])
    return {**given, "PATH": path, "VIRTUAL_ENV": str(env), "PYTHONNOUSERSITE": "1"}


def _run(command: Command, around: dict[str, str], directory: Path) -> None:
    shown = f"the set-up command {shlex.join(command)}"
    program = shutil.which(command[0], path=around["PATH"])
    if program is None:
        raise NotReady(
            f"{shown} cannot be started: there is no program {command[0]!r}",
            where="setup",
            expected=f"a program on PATH: {around['PATH']}",
            hint="install it into the environment, or correct the key `setup`",
        )
    try:
        done = process.run([program, *command[1:]], env=around, cwd=directory, timeout=LIMIT)
    except OSError as error:
        raise NotReady(
            f"{shown} cannot be started: {error.strerror}", where=str(error.filename), hint="mend it"
        ) from None
    if not done:
        how = f"did not end within {LIMIT:g} s" if done.timed_out else f"ended with {done.code}"
        said = uv.redacted(f"{done.stdout}\n{done.stderr}").strip().splitlines()[-_TAIL:]
        raise NotReady(
            f"{shown} {how}",
            where=f"setup, in {directory}",
            hint="mend what it says, or remove it from the key `setup`",
            details={"it wrote": "\n".join(said) or "nothing"},
        )
