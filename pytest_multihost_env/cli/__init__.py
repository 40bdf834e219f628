"""The command `multihost-env`: each stage on its own, for people, scripts and CI."""

from pytest_multihost_env.cli.root import command, main

__all__ = ["command", "main"]
