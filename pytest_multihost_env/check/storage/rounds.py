"""Asks the hosts in turns: some act, the controller hears that it is done, then the others look.

No clock of one host is compared with another's: what counts is when the controller has heard.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pytest_multihost_env.filesystem import PREFIX

FAR = "pytest_multihost_env.check.storage.far"
STEP_LIMIT = 20.0
"""Seconds that a host may take for one step, apart from what it is told to wait."""

NO_ANSWER = "gave no answer"
"""Begins the reason of a host that was reached and fell silent."""

MOST_MAKERS = 8
"""Each host looks at this many others: with sixty hosts, all pairs would be a load and say no more."""

Answer = Mapping[str, Any]


class Talk(Protocol):
    """A program on every host (`launch.talk.Talk` is one)."""

    silent: dict[str, str]

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that answer."""
        ...

    def ask(self, questions: Mapping[str, Mapping[str, object]], timeout: float) -> dict[str, dict[str, Any]]:
        """Return what each host answers."""
        ...


@dataclasses.dataclass(frozen=True)
class Measured:
    """What all hosts found, as they said it.

    Attributes:
        directory: What was looked at.
        patience: Seconds for which a late name was waited for.
        hosts: Every host of the job.
        silent: Why a host gave no answer.
        alone: What each host found by itself.
        met: To whom the parts of the makers belong, as each host sees it; None: it does not list that part.
        locks: What it got of each maker's locks; under its own name what became of its own.
        seen: After how many seconds it saw each maker's changes, by the way of looking.
        left: Hosts on which the directory of the look still stands.
        name: The name of that directory.
    """

    directory: Path
    patience: float
    hosts: tuple[str, ...]
    silent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    alone: Mapping[str, Answer] = dataclasses.field(default_factory=dict)
    met: Mapping[str, Mapping[str, int | None]] = dataclasses.field(default_factory=dict)
    locks: Mapping[str, Mapping[str, Mapping[str, str]]] = dataclasses.field(default_factory=dict)
    seen: Mapping[str, Mapping[str, Mapping[str, float]]] = dataclasses.field(default_factory=dict)
    left: tuple[str, ...] = ()
    name: str = ""


def measure(talk: Talk, hosts: Sequence[str], directory: Path, patience: float) -> Measured:
    """Have all hosts look at `directory`; nothing stays behind there but what `left` names."""
    return _Rounds(talk, tuple(hosts), directory, patience).measured()


class _Rounds:
    def __init__(self, talk: Talk, hosts: tuple[str, ...], directory: Path, patience: float) -> None:
        self.talk = talk
        self.hosts = hosts
        self.directory = directory
        self.patience = patience
        self.name = f"{PREFIX}{secrets.token_hex(8)}"
        self.number = {host: str(number) for number, host in enumerate(hosts)}
        self.host = {number: host for host, number in self.number.items()}

    def measured(self) -> Measured:
        """Return what came of all rounds."""
        alone = self._all(
            self.talk.hosts, "begin", lambda host: {"directory": str(self.directory), "me": self.number[host]}
        )
        able = tuple(host for host in self.hosts if host in alone and "problem" not in alone[host])
        met, locks, seen = self._together(able) if len(able) > 1 else ({}, {}, {})
        return Measured(
            directory=self.directory,
            patience=self.patience,
            hosts=self.hosts,
            alone=alone,
            met=met,
            locks=locks,
            seen=seen,
            left=self._clear(),
            silent=dict(self.talk.silent),
            name=self.name,
        )

    def _together(self, able: tuple[str, ...]) -> tuple[Any, Any, Any]:
        others = {host: [self.number[maker] for maker in _next(able, host)] for host in able}
        answers = self._all(able, "meet", lambda host: {"others": others[host]})
        met = {
            host: self._named(dict.fromkeys(others[host]) | answer.get("owners", {}))
            for host, answer in answers.items()
        }
        able = tuple(met)
        makers = {
            host: [self.number[maker] for maker, owner in met[host].items() if owner is not None and maker in met]
            for host in able
        }
        held = self._all(able, "hold", _nothing)
        tried = self._all(able, "attempt", lambda host: {"makers": makers[host]})
        locks = {
            host: {host: held[host].get("locks", {}), **self._named(answer.get("locks", {}))}
            for host, answer in tried.items()
        }
        self._all(able, "prime", lambda host: {"makers": makers[host]})
        self._all(able, "change", _nothing)
        answers = self._all(able, "watch", lambda host: {"makers": makers[host]})
        return met, locks, {host: self._named(answer.get("seen", {})) for host, answer in answers.items()}

    def _all(
        self, hosts: Sequence[str], step: str, more: Callable[[str], Mapping[str, object]]
    ) -> dict[str, dict[str, Any]]:
        """Have each host do a step; answers come in the order of the hosts."""
        common = {"do": step, "name": self.name, "patience": self.patience}
        questions = {host: {**common, **more(host)} for host in hosts if host in self.talk.hosts}
        answers = self.talk.ask(questions, STEP_LIMIT + self.patience)
        return {host: answers[host] for host in hosts if host in answers}

    def _named(self, by_number: Mapping[str, Any]) -> dict[str, Any]:
        return {self.host[number]: value for number, value in by_number.items()}

    def _clear(self) -> tuple[str, ...]:
        """Have all hosts take away what is theirs, and one what is left of those that are gone."""
        answers = self._all(self.talk.hosts, "end", _nothing)
        left = [host for host, answer in answers.items() if answer.get("left", True)]
        if left:
            answers = self._all(left, "end", lambda _host: {"all": True})
            answers |= self._all(left, "end", _nothing)
        return tuple(host for host, answer in answers.items() if answer.get("left", True))


def _nothing(_host: str) -> dict[str, object]:
    return {}


def _next(hosts: tuple[str, ...], host: str) -> list[str]:
    """Return those that `host` looks at: its successors in the ring."""
    at = hosts.index(host)
    return list((hosts[at + 1 :] + hosts[:at])[:MOST_MAKERS])
