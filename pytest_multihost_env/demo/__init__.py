"""The demonstration: one machine, nothing but the installed package, every claim measured."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_multihost_env.table import Look


def run(look: Look, *, keep: bool = False) -> int:
    """Show the product at work in a temporary directory; return 0 when all of it was as it should be, else 1.

    Args:
        look: How the text is to look.
        keep: Leave the directory in place and say where it is.

    Raises:
        MultihostError: A step could not be done at all.
    """
    from pytest_multihost_env import files
    from pytest_multihost_env.demo.narrator import Narrator
    from pytest_multihost_env.demo.steps import Demonstration

    directory = Path(tempfile.mkdtemp(prefix="multihost-demo-"))
    narrator = Narrator(look)
    began = time.monotonic()
    try:
        proven = Demonstration(directory, narrator).run()
        narrator.summary(proven, time.monotonic() - began)
    finally:
        if keep:
            narrator.line(f"everything is still in {directory}")
        else:
            files.remove_tree(directory)
    return 0 if all(claim.good for claim in proven) else 1
