"""What a check of the doctor may look at and ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_multihost_env.errors import MultihostError
from pytest_multihost_env.model import Completed


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A job, as the doctor sees it.

    Attributes:
        hosts: Its hosts.
        target: Where its environment would be made.
        python: The interpreter that its ranks run.
        launcher: Says which launcher would start them; raises `UsageProblem` when there is none.
        run: Runs a command once on every host.
        distrusted: Says why nothing below a directory would be run; None when it would.
    """

    hosts: tuple[str, ...]
    target: Path
    python: Path
    launcher: Callable[[], str]
    run: Callable[[tuple[str, ...]], Mapping[str, Completed]]
    distrusted: Callable[[Path], MultihostError | None]
