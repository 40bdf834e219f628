"""Shell code that makes an environment the one that a shell uses, or makes the shell's `eval` fail."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Generation


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """Shells that evaluate the same text.

    Attributes:
        names: Their names.
        code: Text that makes a directory the environment that the shell uses, given that and the shell's `PATH`.
        failure: Text that prints a message on standard error and makes the evaluation of it fail.
    """

    names: tuple[str, ...]
    code: Callable[[Path, str], str]
    failure: Callable[[str], str]


def script(generation: Generation, shell: str = "sh", *, path: str = "") -> str:
    """Return text that `shell` evaluates to use `generation`; evaluated twice it changes nothing more.

    `VIRTUAL_ENV` is set, `PATH` begins with the environment's programs, `PYTHONHOME` is gone.

    Args:
        generation: The environment.
        shell: The shell, by its name or path.
        path: The shell's `PATH`, for one that does not evaluate text.

    Raises:
        UsageProblem: The shell is not one of `SHELLS`.
    """
    return _family(shell).code(generation.path, path)


def failure_script(shell: str, message: str) -> str:
    """Return text that prints `message` on standard error and makes the `eval` of it fail; the shell goes on.

    Raises:
        UsageProblem: The shell is not one of `SHELLS`.
    """
    return _family(shell).failure(message)


def _family(shell: str) -> Family:
    name = Path(shell).name.lstrip("-")
    for family in _FAMILIES:
        if name in family.names:
            return family
    raise UsageProblem(
        f"there is no activation for the shell {shell!r}", expected=", ".join(SHELLS), hint="use --shell=sh"
    )


def _posix(path: Path, _path: str) -> str:
    env, programs = shlex.quote(str(path)), shlex.quote(str(path / "bin"))
    return (
        f"VIRTUAL_ENV={env}; export VIRTUAL_ENV; "
        f'case ":${{PATH-}}:" in :{programs}:*) ;; *) PATH={programs}"${{PATH:+:$PATH}}" ;; esac; export PATH; '
        "unset PYTHONHOME; hash -r 2>/dev/null || :\n"
    )


def _posix_failure(message: str) -> str:
    return f"printf '%s\\n' {shlex.quote(message)} >&2; false\n"


def _csh(path: Path, _path: str) -> str:
    env, programs = _csh_quote(str(path)), _csh_quote(str(path / "bin"))
    return (
        f"setenv VIRTUAL_ENV {env}; "
        f'if ("$path[1]" != {programs}) setenv PATH {programs}":$PATH"; '
        "unsetenv PYTHONHOME; rehash\n"
    )


def _csh_failure(message: str) -> str:
    # csh has no redirection to standard error of a builtin; a shell within it has, and it is the last to answer.
    program = "while [ $# -gt 0 ]; do printf '%s\\n' \"$1\" >&2; shift; done; exit 1"
    lines = " ".join(_csh_quote(line) for line in message.splitlines())
    return f"sh -c {_csh_quote(program)} sh {lines}\n"


def _csh_quote(text: str) -> str:
    """Quote for csh, where `!` is history even between quotes."""
    return "'" + text.replace("'", "'\\''").replace("!", "'\\!'") + "'"


def _fish(path: Path, _path: str) -> str:
    env, programs = _fish_quote(str(path)), _fish_quote(str(path / "bin"))
    return (
        f"set -gx VIRTUAL_ENV {env}; "
        f'if test "$PATH[1]" != {programs}; set -gx PATH {programs} $PATH; end; '
        "set -e PYTHONHOME; true\n"
    )


def _fish_failure(message: str) -> str:
    return f"printf '%s\\n' {_fish_quote(message)} >&2; false\n"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _nu(path: Path, search: str) -> str:
    # nushell evaluates no text; it loads a record, which its `from json` makes of this.
    programs = str(path / "bin")
    rest = [part for part in search.split(os.pathsep) if part and part != programs]
    return json.dumps({"VIRTUAL_ENV": str(path), "PATH": [programs, *rest], "PYTHONHOME": ""}) + "\n"


def _nu_failure(message: str) -> str:
    return json.dumps(message) + "\n"  # a text is no record, so load-env fails; nushell itself cannot print it


_FAMILIES = (
    Family(("sh", "bash", "dash", "ksh", "zsh"), _posix, _posix_failure),
    Family(("csh", "tcsh"), _csh, _csh_failure),
    Family(("fish",), _fish, _fish_failure),
    Family(("nu",), _nu, _nu_failure),
)
SHELLS = tuple(name for family in _FAMILIES for name in family.names)
