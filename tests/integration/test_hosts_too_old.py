"""A host that is too old for the environment is refused by name before a rank starts there (R6)."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from pytest_multihost_env import config, plan, probe, registry
from pytest_multihost_env.errors import LaunchFailed
from pytest_multihost_env.model import Generation, Place, Placement
from pytest_multihost_env.provision import abi

HERE = Placement((Place(0, "localhost", 0),))


def planned(facts: dict[str, str], root: Path) -> plan.Plan:
    """The plan of a run in an environment that asks this of its hosts; the ranks run this very Python."""
    generation = Generation(Path(sys.prefix), "key", "digest", False, "n1:1", (), 0.0, facts=facts)
    seen = dataclasses.replace(probe.take({}), generation=generation)
    return plan.Plan(config.load({"launcher": "local", "hosts": "localhost"}, {}, {}, root), seen, registry.load())


def test_ranks_start_on_a_host_that_is_new_enough(special: Path) -> None:
    job = planned({"glibc": "2.17", "machine": abi.here()[1]}, special).start(HERE)
    try:
        assert job.members[0].system == abi.here()
    finally:
        job.close()


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (
            {"glibc": "2.99", "glibc_of": "lib/x.so"},
            r"it needs glibc 2\.99 \(lib/x\.so asks for it\) and this host has 2\.",
        ),
        ({"machine": "vax"}, "it is made for vax and this is "),
    ],
)
def test_another_is_refused_with_host_found_and_needed(special: Path, facts: dict[str, str], why: str) -> None:
    with pytest.raises(LaunchFailed, match=f"localhost cannot run the environment\n  localhost: {why}") as caught:
        planned(facts, special).start(HERE)
    assert "remedy: " in str(caught.value)
