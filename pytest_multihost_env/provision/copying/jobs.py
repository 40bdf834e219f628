"""What the one who shares out the work and those who do it hand to each other; all of it fits into lines of JSON."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Setup(NamedTuple):
    """What holds for a whole copy.

    Attributes:
        source: The directory to copy; absolute, as it was named.
        real: The same without symlinks.
        destination: The copy, which exists and is empty; absolute.
        umask: The permission bits that making a file takes away in the worker's process.
        portion: How many files of one directory a worker copies before it hands the rest back.
        algorithm: Take digests by this one, "blake3" or "sha256"; "": take none.
    """

    source: str
    real: str
    destination: str
    umask: int
    portion: int
    algorithm: str


class Job(NamedTuple):
    """Work for one worker.

    Attributes:
        directories: Make these (relative names; "" is the top, which is there), list them, copy what is in them.
        files: Copy these: a directory's relative name, and names in it.
        times: Give these directories their times: relative name, access and change in nanoseconds.
    """

    directories: list[str]
    files: list[tuple[str, list[str]]]
    times: list[tuple[str, int, int]]


class Trouble(NamedTuple):
    """Why a worker could not go on: `errno` of an OSError, or 0 and a sentence; the path; what to do about it."""

    errno: int
    text: str
    path: str
    hint: str


class Report:
    """What came of a job.

    Attributes:
        names: How many names the job came to: those in it, and those that its listings showed.
        below: Directories that it found, to be done.
        rest: Files that it found and left, to be done: directory, names.
        files: Number of files copied.
        size: Their bytes.
        links: Number of symlinks copied.
        passed: Number of names that were left out on purpose, or that are bytecode and were gone.
        made: Directories made: name, permission bits, access and change in nanoseconds.
        outside: Symlinks that lead out of the source.
        read: With digests: name, inode, size, change in nanoseconds and digest of each file made.
        trouble: Why the job was not finished.
    """

    def __init__(self) -> None:
        self.names = 0
        self.below: list[str] = []
        self.rest: list[tuple[str, list[str]]] = []
        self.files = 0
        self.size = 0
        self.links = 0
        self.passed = 0
        self.made: list[tuple[str, int, int, int]] = []
        self.outside: list[str] = []
        self.read: list[tuple[str, int, int, int, str]] = []
        self.trouble: Trouble | None = None

    @property
    def adds_up(self) -> bool:
        """Whether something became of every name."""
        left = sum(len(names) for _, names in self.rest)
        return self.names == self.files + self.links + self.passed + len(self.below) + left

    def line(self) -> bytes:
        """Return it as a line."""
        return line(vars(self))


def report_of(text: bytes) -> Report:
    """Return the report that a line of `Report.line` says."""
    report = Report()
    vars(report).update(json.loads(text))
    if report.trouble is not None:
        report.trouble = Trouble(*report.trouble)
    return report


def line(value: Any) -> bytes:
    """Return `value` as a line; names that are not UTF-8 survive as escapes."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
