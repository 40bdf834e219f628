"""Programs on several hosts that are asked in turns, so that one acts while the others look."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from pytest_multihost_env.launch.job import Job
from pytest_multihost_env.model import Place


class Talk:
    """One program on each host; a host that stops answering is left out from then on.

    Args:
        job: Its ranks are supervisors, one on each host; None when no host could be reached.
        order: What the supervisor of a place is told to start; the program takes messages from its channel and sends
            one for each.
        silent: Why a host cannot take part, by its name.

    Attributes:
        silent: Why a host does not take part, or does no longer, by its name.
    """

    def __init__(self, job: Job | None, order: Callable[[Place], Mapping[str, object]], silent: Mapping[str, str]):
        self.silent = dict(silent)
        self._job = job
        self._ranks: dict[str, int] = {}
        for place in job.placement.places if job is not None else ():
            self._ranks[place.host] = place.rank
            self._tell(place.host, order(place))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that answer, in rank order."""
        return tuple(host for host in self._ranks if host not in self.silent)

    def ask(self, questions: Mapping[str, Mapping[str, object]], timeout: float) -> dict[str, dict[str, Any]]:
        """Return what each host answers to its question; one that gives no answer in time is silent from then on."""
        waiting = [host for host in questions if host in self.hosts]
        for host in waiting:
            self._tell(host, {"t": "tell", "m": dict(questions[host])})
        answers: dict[str, dict[str, Any]] = {}
        end = time.monotonic() + timeout
        while (open_ := [h for h in waiting if h not in answers and h not in self.silent]) and self._job is not None:
            if time.monotonic() >= end:
                self.silent |= dict.fromkeys(open_, f"gave no answer within {timeout:g} s")
                break
            for rank, message in self._job.poll(end - time.monotonic()):
                self._heard(rank, message, answers)
        return answers

    def _tell(self, host: str, message: Mapping[str, object]) -> None:
        assert self._job is not None  # noqa: S101 - only a job gives ranks
        self._job.send(self._ranks[host], message)

    def _heard(self, rank: int, message: Mapping[str, Any], answers: dict[str, dict[str, Any]]) -> None:
        host = next(name for name, number in self._ranks.items() if number == rank)
        match message["t"]:
            case "child":
                answers[host] = message["m"]
            case "exit":
                lines = str(message["output"]).strip().splitlines()
                said = f": {lines[-1]}" if lines else ""
                self.silent.setdefault(host, f"the program ended there with code {message['code']}{said}")
            case "failed" | "lost":
                self.silent.setdefault(host, str(message["why"]))
            case "abandoned":
                self.silent.setdefault(host, "the launcher ended")

    def close(self) -> None:
        """End the programs; nothing is left running."""
        if self._job is not None:
            self._job.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
