"""How much of a storm: a little in every run of the suite, all of it with `MULTIHOST_STORM=full` (`tox -e storm`)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storm.field import HOSTS, Field
from tests.storm.scale import FULL
from tests.testbed.fixtures import skip_or_fail

_FIGURES = pytest.StashKey[list[str]]()
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every storm, so that `-m "not storm"` leaves them out; a full one takes its time."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker("storm")
            if FULL and item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`figure("40 kills, …")`: a line for the end of the run, where a full storm is read."""
    lines = request.config.stash.setdefault(_FIGURES, [])
    return lambda text: lines.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_FIGURES, [])
    if FULL and lines:
        terminalreporter.section("storms")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def fields(special: Path) -> Callable[..., Field]:
    """`with fields() as field`: four hosts on a plain directory; `storage=` for hosts on one with stale caches."""
    done = subprocess.run(["unshare", "--uts", "hostname", "n1"], capture_output=True, text=True)
    if done.returncode != 0:
        skip_or_fail(f"hosts cannot be given names: {done.stderr.strip()}")

    def make(**options: object) -> Field:
        base = special / f"field {len(list(special.iterdir()))}"
        base.mkdir()
        storage = options.get("storage")
        hosts = HOSTS if storage is None else storage.hosts  # type: ignore[attr-defined]
        return Field(base, hosts, **options)  # type: ignore[arg-type]

    return make
