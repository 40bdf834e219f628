"""`$NAME`, `${NAME}`, `${NAME:-default}` and `$$` in a value, filled in from the shell that starts the job."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_multihost_env.errors import UsageProblem

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_DOLLAR = re.compile(rf"\$(?:(?P<dollar>\$)|(?P<plain>{_NAME})|\{{(?P<braced>{_NAME})(?::-(?P<default>[^}}]*))?\}}|)")


def expand(text: str, environ: Mapping[str, str], *, key: str, where: str) -> str:
    """Return `text` with its variables filled in; what comes out of one is not expanded again.

    The default of `${NAME:-default}` stands for a variable that is not set or empty, as in a shell.

    Args:
        text: The value as it is written.
        environ: The environment of this process.
        key: What the value is called, for the error.
        where: The file and line that it stands in, for the error.

    Raises:
        UsageProblem: A variable is not set and has no default, or a `$` belongs to nothing.
    """

    def filled(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        name = match["plain"] or match["braced"]
        if name is None:
            raise UsageProblem(
                f"{key} has a $ that is not followed by the name of a variable",
                where=where,
                expected="$NAME, ${NAME} or ${NAME:-default}",
                hint="write $$ for a dollar sign",
            )
        if match["default"] is not None:
            return environ.get(name) or match["default"]
        if name not in environ:
            raise UsageProblem(
                f"{key} uses {name}, which is not set",
                where=where,
                expected=f"{name} in the shell that starts the job: there it is filled in",
                hint=f"export {name}, or write ${{{name}:-default}}; $$ is a dollar sign",
            )
        return environ[name]

    return _DOLLAR.sub(filled, text)
