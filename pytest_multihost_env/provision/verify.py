"""Whether a published environment is still what was published, down to every byte, and still stands on its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import OUTSIDE
from pytest_multihost_env.provision import manifest
from pytest_multihost_env.provision.adopt import is_relocated
from pytest_multihost_env.provision.compare import Difference, compare
from pytest_multihost_env.provision.hashing import look_again
from pytest_multihost_env.provision.publish import READY, Ready, read_ready
from pytest_multihost_env.provision.trust import NOBODY_ELSE, Trust, trusted_path

Prove = Callable[[Path, Path | None], str]
"""`prove(env, source)` returns a sentence about what was proven, or raises `NotReady`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Attributes:
        path: The environment.
        digest: sha256 of its manifest as it is now.
        published: The digest that was published; "" when no record stands beside the environment.
        header: Where it came from.
        relocated: The directory that it was made for, when that is another one; else "".
        differing: Paths that changed, and what about them.
        missing: Paths that are gone.
        extra: Paths that came; bytecode that Python adds is not counted.
        proof: What the hermetic proof showed; "" when it failed or was not tried.
        problem: Why the proof failed or was not tried.
    """

    path: Path
    digest: str
    published: str
    header: manifest.Header
    relocated: str
    differing: tuple[Difference, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    proof: str
    problem: str

    @property
    def digest_ok(self) -> bool:
        """Whether the manifest is the one that was published."""
        return self.digest == self.published

    def __bool__(self) -> bool:
        """Whether everything is as it was published, and proven."""
        changed = self.differing or self.missing or self.extra or self.relocated or self.problem
        return self.digest_ok and not changed


def verify(target: Path, *, digest: str = "", trust: Trust = NOBODY_ELSE, prove: Prove | None = None) -> Verified:
    """Compare the environment at `target` with its manifest and prove that it stands on its own.

    Args:
        target: The symlink that `ensure` made, or the environment itself.
        digest: What the manifest's digest must be; "": what the record beside the environment says.
        trust: Whom to trust besides this user and root.
        prove: Runs the environment; None: the hermetic proof.

    Raises:
        NotReady: There is no environment, or it has no manifest.
    """
    path = _environment(target)
    try:
        data = manifest.read(path)
        known = manifest.parse(data)
    except (OSError, ValueError) as error:
        what = "no manifest" if isinstance(error, FileNotFoundError) else f"no manifest that can be read: {error}"
        raise NotReady(
            f"{path} has {what}",
            expected="an environment that multihost-env made",
            hint="provision it (`multihost-env provision SOURCE TARGET`), then verify",
        ) from None
    found = compare(known.entries, look_again(path, known.entries))
    relocated = known.header.path if is_relocated(known.header, path) else ""
    if found or relocated:
        proof, problem = "", "not tried: the environment was changed or moved, and what it runs is not known"
    else:
        proof, problem = _proven(path, Path(known.header.source), trust, prove or _hermetic(known.header))
    return Verified(
        path=path,
        digest=manifest.digest(data),
        published=digest or _published(path),
        header=known.header,
        relocated=relocated,
        differing=found.differing,
        missing=found.missing,
        extra=found.extra,
        proof=proof,
        problem=problem,
    )


def _environment(target: Path) -> Path:
    path = target.absolute()
    if path.is_symlink():
        path = path.parent / path.readlink()
    if not path.is_dir():
        raise NotReady(f"{target} is not an environment", hint="provision it first, or name another")
    return path


def _published(path: Path) -> str:
    ready = _record_beside(path)
    return ready.digest if ready is not None and ready.attempt == path.name else ""


def _record_beside(path: Path) -> Ready | None:
    slot = path.parent.parent
    if path.parent.name != "att" or not files.is_listed(slot / READY):
        return None
    return read_ready(slot)


def _proven(path: Path, source: Path, trust: Trust, prove: Prove) -> tuple[str, str]:
    try:
        trusted_path(path / "bin" / "python", trust)
        return prove(path, source if source.exists() else None), ""
    except NotReady as error:
        return "", str(error)
    except OSError as error:
        return "", f"{error.filename}: {error.strerror}"


def _hermetic(header: manifest.Header) -> Prove:
    from pytest_multihost_env.provision import abi, hermetic

    allowed = json.loads(header.facts.get(OUTSIDE, "[]"))

    def prove(path: Path, source: Path | None) -> str:
        abi.require(header.facts, str(path))
        proof = hermetic.prove(path, original=source, allowed=allowed)
        hidden = ", ".join(str(one) for one in proof.hidden) or "nothing"
        alone = f"with {', '.join(allowed)}, as allowed" if allowed else "alone"
        sight = f"; {proof.in_sight}" if proof.in_sight else ""
        return f"Python {proof.python} runs from {proof.prefix} {alone}; out of sight meanwhile: {hidden}{sight}"

    return prove
