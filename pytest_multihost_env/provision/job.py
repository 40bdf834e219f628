"""One call's task: what is wanted, how it is built, and where the builders of it meet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest_multihost_env
from pytest_multihost_env.config import Settings
from pytest_multihost_env.model import STAT, Generation
from pytest_multihost_env.protocols import Progress
from pytest_multihost_env.provision import manifest, sharing, trust
from pytest_multihost_env.provision.adopt import Look, adopt
from pytest_multihost_env.provision.publish import Slot
from pytest_multihost_env.provision.recipe import Recipe
from pytest_multihost_env.provision.sharing import NOBODY, Sharing
from pytest_multihost_env.provision.target import Amount, Place
from pytest_multihost_env.provision.trust import NOBODY_ELSE, Trust

Notify = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class ProvisionRequest:
    """What is wanted.

    Attributes:
        source: What to provision.
        target: Where, on storage that all hosts share.
        force: Build anew even when what stands is good, and put aside a foreign environment at `target`.
        timeout: Seconds to wait for another builder.
        ttl: Seconds without a beat after which a builder on another host counts as dead.
        beat: Seconds between two beats.
        overlay: Requirements that the environment gets when the source lacks them.
        trust: Whom to trust besides this user and root.
        sharing: With whom what is made is shared.
        python: The Python for a source that does not bring one: a path, a program on PATH, a version; None: ours.
        requirements: Requirements files that are installed on top, without what they require.
        setup: Commands that are run in the environment before it is proven.
        directory: Where they run; None: where the source is.
        allow_outside: Distributions that may be imported from outside of the environment.
        verify: How closely what stands is looked at before it is used again: one of `model.TIERS`.
    """

    source: Path
    target: Path
    force: bool = False
    timeout: float = 1800.0
    ttl: float = 20.0
    beat: float = 5.0
    overlay: tuple[str, ...] = (f"pytest-multihost-env=={pytest_multihost_env.__version__}",)
    trust: Trust = NOBODY_ELSE
    sharing: Sharing = NOBODY
    python: str | None = None
    requirements: tuple[Path, ...] = ()
    setup: tuple[tuple[str, ...], ...] = ()
    directory: Path | None = None
    allow_outside: tuple[str, ...] = ()
    verify: str = STAT

    @classmethod
    def from_settings(cls, settings: Settings, *, force: bool = False) -> ProvisionRequest:
        """Return what `settings`, which name a source, ask for."""
        assert settings.venv is not None  # noqa: S101 - whoever asks has looked
        return cls(
            source=settings.venv,
            target=settings.target,
            force=force,
            python=settings.python,
            requirements=settings.requirements,
            setup=settings.setup,
            directory=settings.rootdir,
            allow_outside=settings.allow_outside,
            verify=settings.verify,
            trust=trust_of(settings),
            sharing=sharing.parse(group_of(settings), settings.umask),
        )


def group_of(settings: Settings) -> int | None:
    """Return the group that `settings` share with, or None."""
    return None if settings.group is None else trust.group(settings.group)


def trust_of(settings: Settings) -> Trust:
    """Return whom `settings` trust."""
    return Trust(frozenset(map(trust.user, settings.owners)), group_of(settings))


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What one call has to do, once source and target were looked at."""

    request: ProvisionRequest
    recipe: Recipe
    place: Place
    key: str
    slot: Slot
    notify: Notify
    progress: Progress
    began: float
    amount: Amount | None = None

    def adopted(self, look: Look | None = None, listing: frozenset[str] | None = None) -> Generation | None:
        """Return what stands, which `look` finds good, or None while nothing does; `listing` of the slot, if at hand."""
        ready = self.slot.ready(listing)
        if ready is None:
            return None
        generation = adopt(self.slot, ready, self.key, self.request.trust, look)
        return dataclasses.replace(generation, seconds=time.monotonic() - self.began)


def key_of(place: Place, recipe: Recipe) -> str:
    """Return the fingerprint of what `recipe` makes for `place` on this kind of machine."""
    return _digest({"source": recipe.builder.fingerprint(place.source), "conditions": conditions(recipe)})[:20]


def conditions(recipe: Recipe) -> str:
    """Return the fingerprint of all that decides, besides the source, what `recipe` makes on this kind of machine."""
    parts = {
        "builder": recipe.builder.name,
        "options": recipe.options,
        "platform": [platform.system(), platform.machine(), *platform.libc_ver()],
        "tool": pytest_multihost_env.__version__,
        "manifest": manifest.FORMAT,
    }
    return _digest(parts)


def _digest(parts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
