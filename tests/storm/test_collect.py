"""L12: gc against readers on hosts whose caches are stale; nothing that somebody uses is taken away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.integration.test_pins import READER
from tests.integration.tiny import make_source
from tests.storm.scale import scaled
from tests.testbed.mounts import StaleMounts

ROOT = Path(__file__).parents[2]

COLLECTOR = """
import sys, time
from pathlib import Path
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.provision.garbage import Wish, collect

target, end = Path(sys.argv[1]), Path(sys.argv[2])
removed = runs = 0
while not end.exists():
    try:
        removed += sum(not item.kept for item in collect(target, Wish(keep=0)))
        runs += 1
    except UsageProblem:
        pass  # nothing was made yet
    time.sleep(0.02)
print(runs, removed)
"""


def test_gc_on_one_host_against_readers_on_others(
    special: Path, stale_mounts: Callable[..., StaleMounts], figure: Callable[[str], None]
) -> None:
    """A reader's look at its environment comes through caches of its own; the names that decide are listed."""
    source, end = make_source(special / "source"), special / "end"
    storage = stale_mounts("n1", "n2", "n3", cache=scaled(1, 5))
    target = storage.shared / "python_env"
    rounds = scaled(6, 100)

    def start(host: str, program: str, *words: object) -> subprocess.Popen[str]:
        argv = storage.command(host, [sys.executable, "-c", program, *map(str, words)])
        return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    readers = [start(host, READER, source, target, rounds, host) for host in ("n1", "n2")]
    collector = start("n3", COLLECTOR, target, end)
    try:
        answers = [reader.communicate() for reader in readers]
        end.touch()
        said, trouble = collector.communicate(timeout=30)
    finally:
        for process in (*readers, collector):
            process.kill()
            process.communicate()
    assert [(reader.returncode, out.strip()) for reader, (out, _) in zip(readers, answers, strict=True)] == [
        (0, "0"),
        (0, "0"),
    ], [err[-2000:] for _, err in answers]
    assert collector.returncode == 0, trouble
    runs, removed = map(int, said.split())
    assert removed > 0
    figure(f"{2 * rounds} rounds of readers, {runs} of gc, {removed} environments removed, none in use")
