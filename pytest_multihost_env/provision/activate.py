"""Shell code that makes an environment the one that a shell uses, or makes the shell's `eval` fail."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Generation

SHELLS = ("sh", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "fish")


def script(generation: Generation, shell: str = "sh") -> str:
    """Return text that `shell` evaluates to use `generation`; evaluated twice it changes nothing more.

    `VIRTUAL_ENV` is set, `PATH` begins with the environment's programs, `PYTHONHOME` is gone.

    Raises:
        UsageProblem: The shell is not one of `SHELLS`.
    """
    return _FAMILIES[_family(shell)][0](generation.path)


def failure_script(shell: str, message: str) -> str:
    """Return text that prints `message` on standard error and makes the `eval` of it fail; the shell goes on.

    Raises:
        UsageProblem: The shell is not one of `SHELLS`.
    """
    return _FAMILIES[_family(shell)][1](message)


def _family(shell: str) -> str:
    name = Path(shell).name.lstrip("-")
    if name not in SHELLS:
        raise UsageProblem(
            f"there is no activation for the shell {shell!r}", expected=", ".join(SHELLS), hint="use --shell=sh"
        )
    return {"csh": "csh", "tcsh": "csh", "fish": "fish"}.get(name, "posix")


def _posix(path: Path) -> str:
    env, programs = shlex.quote(str(path)), shlex.quote(str(path / "bin"))
    return (
        f"VIRTUAL_ENV={env}; export VIRTUAL_ENV; "
        f'case ":${{PATH-}}:" in :{programs}:*) ;; *) PATH={programs}"${{PATH:+:$PATH}}" ;; esac; export PATH; '
        "unset PYTHONHOME; hash -r 2>/dev/null || :\n"
    )


def _posix_failure(message: str) -> str:
    return f"printf '%s\\n' {shlex.quote(message)} >&2; false\n"


def _csh(path: Path) -> str:
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


def _fish(path: Path) -> str:
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


_FAMILIES: dict[str, tuple[Callable[[Path], str], Callable[[str], str]]] = {
    "posix": (_posix, _posix_failure),
    "csh": (_csh, _csh_failure),
    "fish": (_fish, _fish_failure),
}
