"""Asks another interpreter a question and returns its answer; in a clean process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_multihost_env import process
from pytest_multihost_env.errors import NotReady, Passing

CLEAN: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
"""Nothing of the caller's.  Open MPI refuses to start without a HOME; one that does not exist gives nothing away."""
_MISSING_LIBRARY = re.compile(r"error while loading shared libraries: ([^:]+):")


def run(
    argv: Sequence[str], *, env: Mapping[str, str] = CLEAN, stdin: str | None = None, timeout: float = 120
) -> process.Finished:
    """Run `argv` in `/` with exactly the environment `env` and return how it ended.

    Raises:
        NotReady: It cannot be started, or did not end within `timeout` seconds.
    """
    try:
        done = process.run(argv, env=env, cwd=Path("/"), input=stdin, timeout=timeout)
    except OSError as error:
        raise NotReady(
            f"{argv[0]} cannot be started: {error.strerror}",
            where=argv[0],
            hint="check that the file and the interpreter that it names exist and may be executed",
        ) from None
    if done.timed_out:
        raise Passing(
            f"{argv[0]} gave no answer within {timeout:g} s",
            where=argv[0],
            hint="look at the load of this machine and at the storage that it lies on, then try again",
        )
    return done


def question(words: Sequence[str], *, flags: Sequence[str] = ("-I", "-B")) -> list[str]:
    """Return the arguments, after the interpreter's own path, that ask it `words` (see `inside`)."""
    text = Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
    return [*flags, "-c", text, *words]


def interpreter(python: Path, words: Sequence[str], *, env: Mapping[str, str] = CLEAN, timeout: float = 120) -> Any:
    """Return what `python` answers to `words`.

    Raises:
        NotReady: It does not run; the error names the shared library when one is missing.
    """
    done = run([str(python), *question(words)], env=env, timeout=timeout)
    return answer(done, python)


def answer(done: process.Finished, python: Path) -> Any:
    """Return the answer that stands in the output of `done`.

    Raises:
        NotReady: There is none.
    """
    from pytest_multihost_env.provision import inside  # 10 ms, which a look at what stands need not spend

    answers = [line for line in done.stdout.splitlines() if line.startswith(inside.MARK)]
    if done.code == 0 and answers:
        return json.loads(answers[-1].removeprefix(inside.MARK))
    missing = _MISSING_LIBRARY.search(done.stderr)
    if missing:
        raise NotReady(
            f"the interpreter needs the shared library {missing[1]}, which is not found",
            where=str(python),
            hint="restore the Python installation that the environment was made from, or make the environment anew",
        )
    tail = "\n".join(done.stderr.strip().splitlines()[-6:])
    raise NotReady(
        f"the interpreter ended with {done.code}" + (f":\n{tail}" if tail else ""),
        where=str(python),
        hint="run it by hand with `env -i` to see why, or make the environment anew",
    )
