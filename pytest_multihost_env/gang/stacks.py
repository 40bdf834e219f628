"""Makes many faulthandler dumps readable: equal stacks become one line, innermost frame of the test first."""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_multihost_env.gang.reconcile import ranks_text

_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.+)$')
_THREAD = re.compile(r"^(Current thread|Thread) ")
_OWN = ("/_pytest/", "/pluggy/", "/pytest_multihost_env/", "<frozen ")


def main_thread(dump: str) -> list[tuple[str, int, str]]:
    """Return `(file, line, function)` of the main thread, innermost first.

    faulthandler writes the main thread last, and marks as "current" the one that holds the interpreter lock.
    """
    stacks: list[list[tuple[str, int, str]]] = []
    for line in dump.splitlines():
        if _THREAD.match(line):
            stacks.append([])
        elif (match := _FRAME.match(line)) and stacks:
            stacks[-1].append((match["file"], int(match["line"]), match["name"]))
    return stacks[-1] if stacks else []


def of_test(frames: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """Return the frames above the test runner's own: the test, its fixtures and what they called."""
    own = [frame for frame in frames if not any(part in frame[0] for part in _OWN)]
    for index, frame in enumerate(frames):
        if any(part in frame[0] for part in _OWN):
            return frames[:index] or own
    return own


def _shown(file: str, line: int, name: str) -> str:
    """Return one frame with the line that it stands in, where that can be read here."""
    source = linecache.getline(file, line).strip()
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"    {path}:{line} in {name}" + (f":  {source}" if source else "")


def shorten_crash(output: str) -> str:
    """Return `output` with faulthandler's report of a crash cut down to the test's own frames."""
    head, mark, report = output.partition("Fatal Python error: ")
    frames = of_test(main_thread(report)) if mark else []
    if not frames:
        return output
    stack = "\n".join(_shown(*frame) for frame in frames[:12])
    return f"{head}{mark}{report.splitlines()[0]}, at\n{stack}"


def explain(dumps: Mapping[int, str]) -> str:
    """Return one block for each distinct stack, with the ranks that stand there; "" when there are none."""
    groups: dict[str, list[int]] = {}
    for rank in sorted(dumps):
        frames = of_test(main_thread(dumps[rank]))
        if frames:
            text = "\n".join(_shown(*frame) for frame in frames[:12])
        else:
            text = "    " + (dumps[rank].strip().replace("\n", "\n    ") or "(no stack)")[:2000]
        groups.setdefault(text, []).append(rank)
    return "\n".join(
        f"{ranks_text(ranks)} {'stands' if len(ranks) == 1 else 'stand'} at\n{text}" for text, ranks in groups.items()
    )
