"""Builders make a tree out of one kind of SOURCE (see `protocols.Builder`)."""

from __future__ import annotations

from pytest_multihost_env.provision.builders.venv import VenvBuilder

__all__ = ["VenvBuilder"]
