"""Builders make a tree out of one kind of SOURCE (see `protocols.Builder`)."""

from __future__ import annotations

from pytest_multihost_env.protocols import Builder
from pytest_multihost_env.provision.builders.archive import ArchiveBuilder
from pytest_multihost_env.provision.builders.conda import CondaBuilder
from pytest_multihost_env.provision.builders.pylock import PylockBuilder
from pytest_multihost_env.provision.builders.requirements import RequirementsBuilder
from pytest_multihost_env.provision.builders.uvlock import UvLockBuilder
from pytest_multihost_env.provision.builders.venv import VenvBuilder

__all__ = [
    "ArchiveBuilder",
    "CondaBuilder",
    "PylockBuilder",
    "RequirementsBuilder",
    "UvLockBuilder",
    "VenvBuilder",
    "built_in",
]


def built_in() -> tuple[Builder, ...]:
    """Return the builders of this package, in the order in which they are asked; the registry adds them."""
    return (VenvBuilder(), ArchiveBuilder(), PylockBuilder(), UvLockBuilder(), CondaBuilder(), RequirementsBuilder())
