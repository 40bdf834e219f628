"""Looks through a tree in a second process, begun before it is known whether that is of use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pytest_multihost_env import process
from pytest_multihost_env.provision import manifest, walk
from pytest_multihost_env.provision.walk import Whole


class Ahead:
    """A walk through `root`, which runs while this process does something else; on one processor there is none.

    Threads would only take the interpreter from each other, and a fork of a process that has some is not safe.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._child: process.Popen | None = None
        if len(os.sched_getaffinity(0)) < 2:
            return
        program = [sys.executable, "-I", "-S", walk.__file__, str(root), manifest.NAME]
        try:
            self._child = process.start(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError:
            return

    def result(self) -> Whole:
        """Return what it found, once it has, or else what a walk of this process does.

        Raises:
            OSError: A directory cannot be listed.
        """
        try:
            return (
                walk.load(self._child.stdout.read()) if self._child is not None and self._child.stdout else self._own()
            )
        except ValueError:  # it could not begin, or did not get to the end
            return self._own()

    def _own(self) -> Whole:
        return walk.whole(str(self._root), manifest.NAME)

    def close(self) -> None:
        """End it, wanted or not."""
        if self._child is not None:
            self._child.kill()
            if self._child.stdout is not None:
                self._child.stdout.close()
            self._child.wait()
