"""The field of a storm: hosts with an agent and an observer each, on one shared directory; and rounds on it."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.tiny import make_source
from tests.storm.history import History, Member, Sight
from tests.testbed.mounts import StaleMounts

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("n1", "n2", "n3", "n4")
LIMIT = 60.0
"""Seconds after which a round that is not done counts as stuck."""

_NAMED = 'hostname "$1" && shift && exec "$@"'


class _Talk:
    """A program on one host that takes orders and tells events, one line each."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
        )
        self._handle: Callable[[dict[str, object]], None] = lambda event: None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._answers: queue.Queue[dict[str, object]] = queue.Queue()

    def begin(self, handle: Callable[[dict[str, object]], bool]) -> None:
        """Listen; what `handle` does not take is an answer to an order."""
        self._handle = lambda event: None if handle(event) else self._answers.put(event)
        self._thread.start()
        self.answer()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._handle(json.loads(line))

    def order(self, text: str) -> dict[str, object]:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, object]:
        return self._answers.get(timeout=LIMIT)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self._thread.ident is not None:
            self._thread.join()
        self.process.stdout.close()


class Field:
    """Several hosts on one directory.

    Args:
        base: Where everything of the storm is; local to this machine.
        hosts: Their names.
        storage: As the hosts see it; None: they share a plain directory.
        mutant: The name of a deliberate mistake that all provisioners make.
    """

    def __init__(
        self, base: Path, hosts: Sequence[str] = HOSTS, *, storage: StaleMounts | None = None, mutant: str = ""
    ) -> None:
        self.hosts, self.base, self._storage = tuple(hosts), base, storage
        self.shared = base / "shared" if storage is None else storage.shared
        self.real = self.shared if storage is None else storage.backing
        self.source = make_source(base / "source")
        self.real.mkdir(exist_ok=True)
        agent = [sys.executable, "-m", "tests.storm.agent", "--mutant", mutant]
        observer = [sys.executable, "-m", "tests.storm.observer", str(self.source)]
        self.agents = {host: _Talk(self.command(host, agent)) for host in self.hosts}
        self.observers = {host: _Talk(self.command(host, observer)) for host in self.hosts}
        self._ids = 0
        self.events: queue.Queue[tuple[int, int, float]] = queue.Queue()
        self.sights: list[Sight] = []

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """Return `argv` as a command of `host`."""
        if self._storage is not None:
            return self._storage.command(host, argv)
        return ["unshare", "--uts", "sh", "-c", _NAMED, "sh", host, *argv]

    def __enter__(self) -> Self:
        try:
            for agent in self.agents.values():
                agent.begin(self._exited)
            for host, observer in self.observers.items():
                observer.begin(lambda event, host=host: self._saw(host, event))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        for talk in (*self.agents.values(), *self.observers.values()):
            talk.close()

    def _exited(self, event: dict[str, object]) -> bool:
        if "exit" not in event:
            return False
        self.events.put((int(str(event["id"])), int(str(event["exit"])), time.monotonic()))
        return True

    def _saw(self, host: str, event: dict[str, object]) -> bool:
        if event["kind"] not in {"ready", "target", "fault"}:
            return False
        self.sights.append(Sight(host, str(event["kind"]), str(event["text"]), float(str(event["at"]))))
        return True

    def start(self, host: str, log: Path, argv: Sequence[str]) -> tuple[int, int]:
        """Start a provisioner; return its id and its pid."""
        self._ids += 1
        answer = self.agents[host].order(json.dumps({"id": self._ids, "argv": list(argv), "log": str(log)}))
        assert answer["id"] == self._ids
        return self._ids, int(str(answer["pid"]))

    @contextlib.contextmanager
    def round(self, seed: int, number: int) -> Iterator[Round]:
        """One target, with observers on it; what is left of it goes when the block ends."""
        here = Round(self, History(seed, number))
        here.directory.mkdir()
        self.sights = here.history.sights
        try:
            if self._storage is None:
                (self.shared / here.name).mkdir()
            else:
                (self._storage.backing / here.name).mkdir()
            for observer in self.observers.values():
                observer.order(f"watch {self.shared / here.name}")
            yield here
        finally:
            here.end()
            shutil.rmtree(self.real / here.name, ignore_errors=True)


class Round:
    """The callers of one target."""

    def __init__(self, field: Field, history: History) -> None:
        self.field, self.history = field, history
        self.name = f"round {history.number}"
        self.directory = field.base / self.name
        self.log = self.directory / "log"
        self.target = field.shared / self.name / "python_env"
        self.members: dict[int, Member] = {}
        self.pids: dict[int, int] = {}

    def start(self, host: str, *options: str) -> int:
        """Start a caller on `host`; return its id."""
        argv = [str(self.field.source), str(self.target), "--log", str(self.log), *options]
        member = Member(host, time.monotonic())
        out = self.directory / f"out {len(self.members)}"
        out.touch()
        number, pid = self.field.start(host, out, argv)
        self.members[number], self.pids[number] = member, pid
        self.history.members.append(member)
        return number

    @property
    def living(self) -> Mapping[int, Member]:
        """The callers that have not ended, by id."""
        self._drain()
        return {number: member for number, member in self.members.items() if member.code is None}

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number, code, at = self.field.events.get_nowait()
                if number in self.members:
                    self.members[number].code, self.members[number].ended = code, at

    def noted(self, what: str) -> list[str]:
        """Return the lines of the builds' log that begin with `what`."""
        if not self.log.exists():
            return []
        return [line for line in self.log.read_text().splitlines() if line.startswith(what)]

    def wait(self, condition: Callable[[], object], seconds: float = LIMIT) -> bool:
        """Return whether `condition` came to hold within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def finish(self, seconds: float = LIMIT) -> History:
        """Wait until all callers have ended, or it takes too long; return what happened."""
        self.wait(lambda: not self.living, seconds)
        for observer in self.field.observers.values():  # a last look at what was made, and then no more
            self.history.looks += int(str(observer.order("rest")["looks"]))
        for index, member in enumerate(self.history.members):
            self._read(member, (self.directory / f"out {index}").read_text(errors="replace"))
        self.history.begun = len(self.noted("begin"))
        self.history.attempts = sorted(
            path.name
            for path in (self.field.real / self.name / ".python_env.d" / "v1").glob("*/att/*")
            if path.suffix != ".json"
        )
        return self.history

    def _read(self, member: Member, text: str) -> None:
        member.said = text
        if member.code != 0:
            return
        answer = json.loads(text.splitlines()[-1])
        member.path, member.digest, member.reused = answer["path"], answer["digest"], answer["reused"]
        member.lacks = answer["lacks"]

    def end(self) -> None:
        """Kill whoever is left."""
        from tests.storm.blows import kill

        for number in self.living:
            kill(self, number)
        self.wait(lambda: not self.living)
