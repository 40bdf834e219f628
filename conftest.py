"""What every test of this project can use, and what every test is held to."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import hypothesis
import pytest

_TESTBED = "tests.testbed.fixtures"

pytest_plugins = ["pytester", "tests.guards", "tests.environments"]
if importlib.util.find_spec(_TESTBED) is not None:
    pytest_plugins.append(_TESTBED)

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

SPECIAL = "it's #1 \N{LATIN SMALL LETTER U WITH DIAERESIS}"


@pytest.fixture
def special(tmp_path: Path) -> Path:
    """A directory whose name has a space, a quote, a `#` and an umlaut."""
    path = tmp_path / SPECIAL
    path.mkdir()
    return path
