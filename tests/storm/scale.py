"""How often, and from which seed."""

from __future__ import annotations

import os

FULL = os.environ.get("MULTIHOST_STORM") == "full"
SEED = int(os.environ.get("MULTIHOST_STORM_SEED", "20261125"))
"""Every storm says its seed when it fails; this variable repeats it."""


def scaled(quick: int, full: int) -> int:
    """Return how often to do something: a little in the suite, all of it in a storm."""
    return full if FULL else quick
