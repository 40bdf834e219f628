"""Writes a path into the activate scripts of each shell, in that shell's own quotes."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, slots=True)
class Shell:
    """The line that names the environment in one kind of activate script, and how a path is quoted there."""

    line: re.Pattern[str]
    quote: Callable[[str], str]


def _csh(path: str) -> str:
    # History is expanded even between single quotes, also in a script that is sourced.
    return shlex.quote(path).replace("!", "\\!")


def _fish(path: str) -> str:
    # Between single quotes fish knows exactly these two escapes.
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _nu(path: str) -> str:
    return json.dumps(path, ensure_ascii=False)


_VALUE = r"(?P<value>\S.*?)"
_SH = Shell(re.compile(rf"^(?P<head>\s*(?:export )?VIRTUAL_ENV=){_VALUE}(?P<tail>\s*)$", re.MULTILINE), shlex.quote)
SHELLS = {
    "activate": _SH,
    "activate.sh": _SH,
    "activate.csh": Shell(re.compile(rf"^(?P<head>setenv VIRTUAL_ENV ){_VALUE}(?P<tail>\s*)$", re.MULTILINE), _csh),
    "activate.fish": Shell(re.compile(rf"^(?P<head>set -gx VIRTUAL_ENV ){_VALUE}(?P<tail>\s*)$", re.MULTILINE), _fish),
    "activate.nu": Shell(
        re.compile(rf"^(?P<head>\s*(?:const|let) virtual_env = ){_VALUE}(?P<tail>\s*)$", re.MULTILINE), _nu
    ),
}
_CYGPATH = re.compile(r"^\$\(cygpath (?:-u )?(?P<value>[^$]*)\)$")


def activate(name: str, text: str, env: str) -> str:
    """Return the activate script `name` with `env` as the environment that it activates.

    A script that finds its place by itself when it is sourced (`uv venv --relocatable`) stays as it is.
    """
    shell = SHELLS[name]

    def line(match: re.Match[str]) -> str:
        value = match["value"]
        windows = _CYGPATH.match(value)
        if windows:
            value = f"$(cygpath {shell.quote(env)})"
        elif not _computed(value):
            value = shell.quote(env)
        return match["head"] + value + match["tail"]

    return shell.line.sub(line, text)


def named(text: str) -> str | None:
    """Return the environment that `bin/activate` with this text activates, or None when it works that out."""
    for match in _SH.line.finditer(text):
        value = match["value"]
        if not _computed(value):
            try:
                words = shlex.split(value)
            except ValueError:
                continue
            if len(words) == 1 and words[0].startswith("/"):
                return words[0]
    return None


def _computed(value: str) -> bool:
    """Whether the shell would work out the value; an absolute path in any quotes is written by an installer."""
    return not value.lstrip("'\"r#").startswith("/")
