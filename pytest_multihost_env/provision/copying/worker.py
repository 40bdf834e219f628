"""A worker's main loop, in a process of its own: a line in is a job, a line out says what came of it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import BinaryIO

from .entries import Entries
from .jobs import Job, Setup

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do jobs from standard input until it ends: the parent has closed it, or is gone."""
    parent, modules = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        return
    os.umask(0)  # modes are copied; so no file needs a second call to get its own
    sys.path += modules  # where the digest's module lies
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(lines: BinaryIO, answers: BinaryIO) -> None:
    """Answer every line of `lines`; the first says what holds for all of them."""
    first = lines.readline()
    if not first:
        return
    entries = Entries(Setup(*json.loads(first)))
    for line in lines:
        answers.write(entries.do(Job(*json.loads(line))).line())
        answers.flush()
