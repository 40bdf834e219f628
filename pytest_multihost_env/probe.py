"""One look at the world, taken once: what the plan may know about this machine and this process."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Checked, Generation

ACTIVE = "MULTIHOST_ENV_ACTIVE"
"""Carries the generation from the process that provisioned it to the one that runs inside it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What was found.

    Attributes:
        environ: The environment of this process.
        hostname: As gethostname(2) says.
        as_root: Effective user id 0.
        cwd: Working directory.
        prefix: The environment that ranks run in: the generation, or the one that this process runs in.
        python: Its interpreter, absolute, not resolved (that would leave the environment).
        generation: What was provisioned, or None.
        source: What it was provisioned from, or "".
        mpi4py: mpi4py can be imported in `prefix`.
    """

    environ: Mapping[str, str]
    hostname: str
    as_root: bool
    cwd: Path
    prefix: Path
    python: Path
    generation: Generation | None
    source: str
    mpi4py: bool


def take(environ: Mapping[str, str] | None = None) -> Facts:
    """Return the facts of this process, now."""
    env = dict(os.environ if environ is None else environ)
    source, generation = active(env)
    prefix = generation.path if generation else Path(sys.prefix)
    inside = prefix.samefile(sys.prefix) if prefix.exists() else False
    return Facts(
        environ=env,
        hostname=socket.gethostname(),
        as_root=os.geteuid() == 0,
        cwd=Path.cwd(),
        prefix=prefix,
        python=generation.python if generation else Path(sys.executable),
        generation=generation,
        source=source,
        mpi4py=importlib.util.find_spec("mpi4py") is not None if inside else has_mpi4py(prefix),
    )


def has_mpi4py(prefix: Path) -> bool:
    """Return whether mpi4py is installed in the environment `prefix`, which this process does not run in."""
    return any(prefix.glob("lib/*/*/mpi4py"))


def announce(generation: Generation, source: Path) -> dict[str, str]:
    """Return the variable that tells the process inside `generation` where it is."""
    fields = dataclasses.asdict(generation) | {"path": str(generation.path), "source": str(source)}
    return {ACTIVE: json.dumps(fields)}


def active(environ: Mapping[str, str]) -> tuple[str, Generation | None]:
    """Return source and generation that `announce` put into `environ`; "" and None when it did not.

    Raises:
        UsageProblem: The variable is there and is not ours.
    """
    text = environ.get(ACTIVE)
    if not text:
        return "", None
    try:
        fields = json.loads(text)
        source = str(fields.pop("source"))
        checked = fields["checked"]
        fields |= {"path": Path(fields["path"]), "added": tuple(fields["added"])}
        fields["checked"] = None if checked is None else Checked(**checked)
        return source, Generation(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageProblem(
            f"the variable {ACTIVE} holds something that multihost-env did not put there: {error}",
            where=ACTIVE,
            hint=f"unset {ACTIVE}",
        ) from None
