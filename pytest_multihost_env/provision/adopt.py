"""Whether what stands in a slot may be used: it is whole, it stands where it was made for, and nobody else wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env.model import Checked, Generation
from pytest_multihost_env.provision import abi, manifest
from pytest_multihost_env.provision.publish import Ready, Slot, listed
from pytest_multihost_env.provision.trust import Trust, trusted_owner, trusted_path


class Damaged(Exception):
    """The environment that stands is not what was published; another has to be made."""


Look = Callable[[Path, bytes], Checked]
"""`look(env, manifest)` looks at a published environment and says how; or raises `Damaged`."""


def adopt(slot: Slot, ready: Ready, key: str, trust: Trust, look: Look | None = None) -> Generation:
    """Return the environment that `ready` names, after the quick checks, and those of `look`.

    Raises:
        Damaged: Its manifest or its interpreter is not what was published, it was moved, or `look` says so.
        NotReady: Somebody else could have written it, or this host cannot run it.
    """
    path = slot.attempts / ready.attempt
    trusted_path(slot.path, trust)
    trusted_owner(slot.path / "READY", ready.uid, trust)
    if ready.attempt not in listed(slot.attempts):
        raise Damaged(f"{path} is gone")
    try:
        data = manifest.read(path)
        header = manifest.parse_header(data)
    except (OSError, ValueError) as error:
        raise Damaged(f"{path / manifest.NAME} cannot be read: {error}") from None
    if manifest.digest(data) != ready.digest:
        raise Damaged(f"{path / manifest.NAME} was changed after it was published")
    if header.key != key:
        raise Damaged(f"{path} was made for another key")
    if is_relocated(header, path):
        raise Damaged(f"{path} was relocated: it was made for {header.path}")
    abi.require(header.facts, str(path))
    generation = Generation(
        path=path,
        key=key,
        digest=ready.digest,
        reused=True,
        built_by=f"{ready.builder.host}:{ready.builder.pid}",
        added=header.added,
        seconds=0.0,
        facts=header.facts,
    )
    _check_python(generation, trust)
    return generation if look is None else dataclasses.replace(generation, checked=look(path, data))


def is_relocated(header: manifest.Header, path: Path) -> bool:
    """Return whether the environment at `path` was made for another directory (other names of the same are fine)."""
    made = Path(header.path)
    return made != path and not (made.exists() and made.samefile(path))


def _check_python(generation: Generation, trust: Trust) -> None:
    python = generation.python
    try:
        trusted_path(python, trust)
    except OSError as error:
        raise Damaged(f"{python} is not there: {error.strerror}") from None
    if not python.is_file():
        raise Damaged(f"{python} is not a file")
