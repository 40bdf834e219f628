"""Errors that say what was wrong, where, and how to mend it.

Only the faces (`cli`, `plugin`) print them and turn them into an exit code; everything below raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Self


class MultihostError(Exception):
    """A problem that a person can mend.

    Args:
        what: One sentence: what was found.
        where: The file, line, key, host or path that it is about.
        expected: What would have been right, when that is not obvious.
        hint: The remedy, as something to do.
        details: What helps to find the cause, by label: what another program said, the command that was run.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.hint = hint
        self.details = dict(details or {})

    def reworded(self, change: Callable[[str], str]) -> Self:
        """Return the same error with every text as `change` has it."""
        return type(self)(
            change(self.what),
            where=self.where and change(self.where),
            expected=self.expected and change(self.expected),
            hint=self.hint and change(self.hint),
            details={label: change(text) for label, text in self.details.items()},
        )

    def __str__(self) -> str:
        lines = [self.what]
        known = {"where": self.where, "expected": self.expected, "remedy": self.hint}
        for label, value in (known | self.details).items():
            if value:
                lines.append(f"  {label}: " + value.replace("\n", "\n    "))
        return "\n".join(lines)


class UsageProblem(MultihostError):
    """What the user typed or configured cannot be acted on (exit code 2, pytest's 4)."""

    exit_code = 2


class NotReady(MultihostError):
    """The environment could not be provisioned or proven (exit code 3)."""

    exit_code = 3


class Passing(NotReady):
    """It could not be done this time, and nothing says that the next try fails too: no space, no network."""


class LaunchFailed(MultihostError):
    """A launcher ended, or its ranks did not all report in, before the first test (exit code 4)."""

    exit_code = 4


class Misplaced(LaunchFailed):
    """Ranks started, and not on the hosts that they were for: asking the hosts one by one would tell no more."""


class PlacementImpossible(MultihostError):
    """The hosts of this job cannot hold the ranks that a test asks for: a skip, or a failure when strict."""


class ProtocolError(MultihostError):
    """The other end of a channel said something that it may not say."""
