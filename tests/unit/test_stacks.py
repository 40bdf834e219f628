"""Dumps of faulthandler, taken from real processes, become lines that a person can read."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from pytest_multihost_env.gang.stacks import explain, main_thread, shorten_crash


def dump_of(special: Path, body: str) -> str:
    path = special / "prog.py"
    path.write_text(textwrap.dedent(body))
    done = subprocess.run([sys.executable, path], stderr=subprocess.PIPE, text=True, timeout=30)
    return done.stderr


BLOCKED = """
    import faulthandler, sys, threading
    gate = threading.Event()
    def other():
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        gate.set()
    def inner():
        threading.Thread(target=other).start()
        gate.wait()
    def outer():
        inner()
    outer()
"""


def test_the_main_thread_is_found_among_the_others(special: Path) -> None:
    frames = main_thread(dump_of(special, BLOCKED))
    names = [name for _, _, name in frames]
    assert names[-3:] == ["inner", "outer", "<module>"]
    assert frames[-1][0].endswith("prog.py")


def test_equal_stacks_are_told_once_with_their_ranks(special: Path) -> None:
    dump = dump_of(special, BLOCKED)
    text = explain({0: dump, 1: "(no answer: the process takes no signals)", 2: dump, 3: dump})
    assert text.startswith("ranks 0,2-3 stand at\n")
    assert "rank 1 stands at\n    (no answer" in text
    assert text.count("in outer") == 1
    assert explain({}) == ""


def test_a_crash_is_shown_by_its_own_frames(special: Path) -> None:
    output = dump_of(
        special,
        """
        import faulthandler, os, signal
        faulthandler.enable()
        def crashes():
            os.kill(os.getpid(), signal.SIGSEGV)
        crashes()
        """,
    )
    short = shorten_crash("before\n" + output)
    assert short.startswith("before\nFatal Python error: Segmentation fault, at\n")
    assert "in crashes" in short
    assert shorten_crash("nothing special") == "nothing special"
