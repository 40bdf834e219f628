"""Writes a path into the activate scripts of each shell, in that shell's own quotes."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, slots=True)
class Shell:
    """The lines that name the environment in one kind of activate script, and how a path is quoted there.

    Of such a line, `value` is replaced as a whole, however the installer has encoded the path in it.
    """

    lines: tuple[re.Pattern[str], ...]
    quote: Callable[[str], str]


def _csh(path: str) -> str:
    # History is expanded even between single quotes, also in a script that is sourced; a backslash before it outside of
    # them helps whether history is on or off.
    return shlex.quote(path).replace("!", "'\\!'")


def _fish(path: str) -> str:
    # Between single quotes fish knows exactly these two escapes.
    return "'" + path.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _nu(path: str) -> str:
    return json.dumps(path, ensure_ascii=False)


def _bat(path: str) -> str:
    return path.replace("%", "%%")


def _lines(*heads_and_tails: tuple[str, str]) -> tuple[re.Pattern[str], ...]:
    return tuple(
        re.compile(rf"^(?P<head>{head})(?P<value>\S.*?)(?P<tail>{tail}\s*)$", re.MULTILINE)
        for head, tail in heads_and_tails
    )


_DEACTIVATE = r"\"/\"'bin'\"/deactivate\.csh\""
_SH = Shell(
    _lines(
        (r"\s*(?:export )?VIRTUAL_ENV=", ""),
        (r"\s*if \[ ! -d ", r" \](?: &&|; then)"),  # virtualenv's questions whether it was moved
        (r'\s*echo "Virtual environment directory" ', ' "does not exist!" >&2'),
    ),
    shlex.quote,
)
SHELLS = {
    "activate": _SH,
    "activate.sh": _SH,
    "activate.csh": Shell(
        _lines(
            ("setenv VIRTUAL_ENV ", ""),
            ("set _virtualenv_dir=", ""),
            ("set deactivate_script = ", _DEACTIVATE),
            (r"if \(\$\?_OLD_VIRTUAL_PATH\) source ", _DEACTIVATE),
        ),
        _csh,
    ),
    "activate.fish": Shell(_lines(("set -gx VIRTUAL_ENV ", "")), _fish),
    "activate.nu": Shell(_lines((r"\s*(?:const|let) virtual_env = ", "")), _nu),
    "activate.xsh": Shell(_lines((r"\s*self\.embedded_virtual_env = self\._fs_path\(", r", required=True\)")), ascii),
    "activate.bat": Shell(_lines((r'@for %%i in \("', r'"\) do @set "VIRTUAL_ENV=%%~fi"')), _bat),
}
_CYGPATH = re.compile(r"^\$\(cygpath (?:-u )?(?P<value>[^$]*)\)$")


def activate(name: str, text: str, env: str) -> str:
    """Return the activate script `name` with `env` as the environment that it activates."""
    shell = SHELLS[name]

    def line(match: re.Match[str]) -> str:
        value = match["value"]
        windows = _CYGPATH.match(value)
        if windows:
            value = f"$(cygpath {shell.quote(env)})"
        elif not _computed(value):
            value = shell.quote(env)
        return match["head"] + value + match["tail"]

    for pattern in shell.lines:
        text = pattern.sub(line, text)
    return text


def named(text: str) -> str | None:
    """Return the environment that `bin/activate` with this text activates, or None when it works that out."""
    for match in _SH.lines[0].finditer(text):
        value = match["value"]
        if not _computed(value) and "$(" not in value:
            try:
                words = shlex.split(value)
            except ValueError:
                continue
            if len(words) == 1 and words[0].startswith("/"):
                return words[0]
    return None


def _computed(value: str) -> bool:
    """Whether the line is no installer's answer, but the script's own way to another one (`VIRTUAL_ENV="$CURRENT_ENV"`).

    What `uv venv --relocatable` writes counts as an answer: bash and zsh can work it out, dash and ksh cannot.
    """
    return not (value.lstrip("'\"r#").startswith(("/", "__import__")) or "$(dirname -- " in value)
