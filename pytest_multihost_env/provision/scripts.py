"""Reads and writes the first lines of scripts that a virtual environment's Python runs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import tempfile
from pathlib import Path

from pytest_multihost_env.errors import NotReady

KERNEL_LIMIT = 127
"""Bytes of a `#!` line that every Linux reads (execve(2)); newer kernels read 255, but hosts differ."""

# pip, uv and distlib end the shell's part with an empty command of its own, conda with a comment.
_POLYGLOT = re.compile(rb"#!/bin/sh\r?\n'''exec' (?P<command>[^\n]*?)(?:\n' '''| #''')\r?\n")


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """How a script says what runs it: the program, its options as written, and the bytes that say so."""

    program: str
    options: str
    length: int


def read(content: bytes) -> Header | None:
    """Return what runs the script `content`; None when nothing is said, or is worked out when it runs.

    Both forms are understood: `#!/env/bin/python -E`, and the text that is a shell script and a Python string at
    once, which installers write where a path is long or has a space.
    """
    match = _POLYGLOT.match(content)
    if match:
        command = os.fsdecode(match["command"])
        computed = re.search(r"\$\(|`", re.sub(r"'[^']*'", "", command))
        if computed or '"$0" "$@"' not in command:
            return None
        try:
            words = shlex.split(command)
        except ValueError:
            return None
        return Header(words[0], shlex.join(words[1 : words.index("$0")]), match.end())
    if not content.startswith(b"#!"):
        return None
    line, newline, _ = content.partition(b"\n")
    program, _, options = os.fsdecode(line[2:]).strip().partition(" ")
    return Header(program, options.strip(), len(line) + len(newline))


def header(program: str, options: str = "") -> bytes:
    """Return the first line or lines of a script that `program` shall run.

    Raises:
        NotReady: No form can hold the path.
    """
    check_path(program)
    line = os.fsencode(f"#!{program}" + (f" {options}" if options else ""))
    if len(line) <= KERNEL_LIMIT and not re.search(r"\s", program + options):  # one argument at most
        return line + b"\n"
    # For sh: the word exec and its arguments.  For Python: one string, which three quotes begin and end; shlex
    # never puts three of them in a row.
    command = f"{shlex.quote(program)} {options}".strip()
    return os.fsencode(f"#!/bin/sh\n'''exec' {command} \"$0\" \"$@\"\n' '''\n")


def check_path(path: str) -> None:
    """Raise when `path` cannot be written into scripts and search paths.

    Raises:
        NotReady: It holds a colon, a backslash or a line break.
    """
    bad = [character for character in ":\\\n\r" if character in path]
    if bad:
        raise NotReady(
            f"the path holds {bad[0]!r}, which scripts and search paths cannot express",
            where=path,
            hint="choose another directory (--multihost-target)",
        )


def entry_point(program: str, module: str, attribute: str) -> bytes:
    """Return a console script by which `program` calls `attribute` of `module` (entry points specification)."""
    first = attribute.partition(".")[0]
    body = f'import sys\n\nfrom {module} import {first}\n\nif __name__ == "__main__":\n    sys.exit({attribute}())\n'
    return header(program) + body.encode()


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of the file `path`, which keeps its mode; also where the file is read-only."""
    mode = path.stat().st_mode & 0o777
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:32]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        fresh = Path(name)
        fresh.chmod(mode)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
