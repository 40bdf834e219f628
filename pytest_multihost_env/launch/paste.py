"""The command of a launcher as one line of a POSIX shell: for the report, and to be pasted.

Pasted, it starts the same ranks in the same way.  Without the key of a job they have nobody to talk to: each says
where it is and ends (`bootstrap.by_hand`).
"""

from __future__ import annotations

import shlex
from collections.abc import Collection

from pytest_multihost_env.model import Command


def line(command: Command, *, without: Collection[str] = ()) -> str:
    """Return `command` with the variables that it needs, but for those of the names in `without`.

    A script that only exists while the job lives is written anew, to a file that `mktemp` names.
    """
    words = [f"{name}={_value(text, command)}" for name, text in command.env.items() if name not in without]
    words += [shlex.quote(word) for word in command.argv]
    if command.stdin is not None:
        words.append("</dev/null")
    return "".join(map(_made_anew, command.scripts.items())) + " ".join(words)


def _made_anew(script: tuple[str, str]) -> str:
    name, text = script
    return f"""{name}=$(mktemp) && printf '%s\\n' {shlex.join(text.splitlines())} >"${name}" && """


def _value(text: str, command: Command) -> str:
    if not command.scripts:
        return shlex.quote(text)
    return shlex.quote(text).format_map({name: f"'\"${name}\"'" for name in command.scripts})
