"""Looks at the storage of one host again and again, and tells what stands there and what is wrong with it.

    python -m tests.storm.observer SOURCE        SOURCE "": only manifests are looked at

It belongs to nobody: a process of its own, which knows only the names READY and TARGET.  On its standard input it is told
where to look, `watch DIRECTORY` (where `python_env` is made) or `rest`; each is answered by a line once it holds.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.storm import oracle

TARGET = "python_env"
STORE = f".{TARGET}.d"


class Observer:
    """One host's view of one directory."""

    def __init__(self, directory: Path, source: Path | None) -> None:
        self._directory, self._source = directory, source
        self._told: set[tuple[str, str]] = set()

    def look(self) -> Iterator[dict[str, object]]:
        """Yield what is new: a record, an environment in TARGET's place, a fault."""
        here = _names(self._directory)
        if STORE in here and "v1" in _names(self._directory / STORE):
            store = self._directory / STORE / "v1"
            for slot in sorted(_names(store)):
                if "READY" in _names(store / slot):
                    yield from self._record(store / slot)
        if TARGET in here:
            yield from self._target(self._directory / TARGET)

    def _record(self, slot: Path) -> Iterator[dict[str, object]]:
        try:
            text = _text(slot / "READY")
            env = slot / "att" / json.loads(text)["attempt"]
        except FileNotFoundError:
            return  # listed, and not there yet by its name: somebody of this host had asked for it too early
        except (OSError, ValueError, KeyError) as error:
            yield from self._new("fault", f"{slot.name}/READY: {error}")
            return
        yield from self._new("ready", f"{slot.name} {text}")
        yield from self._whole(env)

    def _target(self, target: Path) -> Iterator[dict[str, object]]:
        try:
            env = target.parent / target.readlink() if stat.S_ISLNK(target.lstat().st_mode) else target
        except FileNotFoundError:
            return  # as above
        except OSError as error:
            yield from self._new("fault", f"{target.name}: {error}")
            return
        yield from self._new("target", str(env))
        yield from self._whole(env)

    def _whole(self, env: Path) -> Iterator[dict[str, object]]:
        for text in oracle.lacks(env, self._source):
            yield from self._new("fault", f"{env.name}: {text}")

    def _new(self, what: str, text: str) -> Iterator[dict[str, object]]:
        if (what, text) not in self._told:
            self._told.add((what, text))
            yield {"kind": what, "text": text, "at": time.monotonic()}


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208
    except OSError:
        return []  # it comes, or the storm takes it away


def _text(path: Path) -> str:
    return os.readlink(path) if path.is_symlink() else path.read_text()  # noqa: PTH115 - the record as text


def main() -> int:
    source = Path(sys.argv[1]) if sys.argv[1] else None
    observer, looks = None, 0
    _say({"kind": "up"})
    while True:
        began = time.monotonic()
        if observer is not None:
            for event in observer.look():
                _say(event)
            looks += 1
        # At most a third of one core: what is observed has to get on.
        pause = None if observer is None else max(0.01, 2 * (time.monotonic() - began))
        if not select.select([sys.stdin], [], [], pause)[0]:
            continue
        order, _, directory = sys.stdin.readline().rstrip("\n").partition(" ")
        if not order:
            return 0
        _say({"kind": order, "looks": looks})
        looks = 0
        observer = Observer(Path(directory), source) if order == "watch" else None


def _say(event: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
