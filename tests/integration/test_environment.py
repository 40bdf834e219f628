"""What ranks really receive, over a real launcher, and what `multihost-env env` says about it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import suites

PYTHON = Path(sys.executable)
COMMAND = [sys.executable, "-m", "pytest_multihost_env.cli"]

BINDING = """
rank_bindings:
  - rank: 0
    mesh_id: 0
    env_overrides: {TT_VISIBLE_DEVICES: "0,1", CACHE: "${BASE}/zero"}
  - rank: 1
    mesh_id: 1
    env_overrides: {TT_VISIBLE_DEVICES: "2,3", CACHE: "${BASE:-/no}/öne 'x'", LEFT: null}
global_env: {TT_LOG: "$$HOME", LEFT: "here"}
mesh_graph_desc_path: graph.textproto
"""
SUITE = """
    import os
    import pytest

    NAMES = ("TT_MESH_ID", "TT_VISIBLE_DEVICES", "CACHE", "TT_LOG", "LEFT", "TT_METAL_HOME", "TT_MESH_GRAPH_DESC_PATH")

    @pytest.mark.multihost(ranks=2)
    def test_own_values(comm, record_property):
        seen = comm.allgather({name: os.environ.get(name) for name in NAMES})
        if comm.rank == 0:
            record_property("seen", repr(seen))
        here = os.getcwd()
        common = {"TT_LOG": "$HOME", "TT_METAL_HOME": here, "TT_MESH_GRAPH_DESC_PATH": here + "/graph.textproto"}
        assert seen == [
            {"TT_MESH_ID": "0", "TT_VISIBLE_DEVICES": "0,1", "CACHE": "/b as/zero", "LEFT": "here", **common},
            {"TT_MESH_ID": "1", "TT_VISIBLE_DEVICES": "2,3", "CACHE": "/b as/\\xf6ne 'x'", "LEFT": None, **common},
        ]

    @pytest.mark.multihost(ranks=3)
    def test_more_ranks_than_entries(multihost): pass
"""


def prepare(directory: Path, text: str = SUITE) -> None:
    suites.write(directory, text)
    (directory / "graph.textproto").touch()
    (directory / "bindings.yaml").write_text(BINDING, encoding="utf-8")


def command(cwd: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environ = suites.clean_environ({"COLUMNS": "400", **(env or {})})
    return subprocess.run([*COMMAND, *words], cwd=cwd, env=environ, capture_output=True, text=True, timeout=60)


@pytest.mark.mpi_programs
def test_each_rank_of_a_real_run_sees_its_binding(mpi_python: Path, special: Path) -> None:
    prepare(special)
    env = {"BASE": "/b as", "TT_MESH_ID": "77"}
    outcome = suites.run(mpi_python, special, "--multihost-rank-binding=bindings.yaml", env=env)
    assert outcome.tests == {"test_own_values": "passed", "test_more_ranks_than_entries": "error"}, outcome
    said = outcome.messages["test_more_ranks_than_entries"]
    assert "rank 2 has no entry in rank_bindings, and 3 ranks are asked for" in said
    assert str(special / "bindings.yaml") in said


def test_explain_names_the_line_that_decided(special: Path) -> None:
    prepare(special)
    (special / "multihost-env.toml").write_text('rank-binding = "bindings.yaml"\nhosts = "localhost:2"')
    done = command(special, "env", "--rank", "1", "--explain", "--json", env={"BASE": "/b", "TT_VISIBLE_DEVICES": "9"})
    assert done.returncode == 0, done.stderr
    found = {row["name"]: row for row in json.loads(done.stdout)["variables"]}
    assert found["TT_VISIBLE_DEVICES"] == {
        "name": "TT_VISIBLE_DEVICES",
        "status": "SET",
        "value": "2,3",
        "rule": "env_overrides",
        "origin": "bindings.yaml:8",
    }
    assert (found["TT_MESH_ID"]["value"], found["TT_MESH_ID"]["origin"]) == ("1", "bindings.yaml:7")
    assert found["LEFT"]["status"] == "UNSET"
    text = command(special, "env", "--rank", "1", "--explain", env={"BASE": "/b"})
    assert "bindings.yaml:8" in text.stdout


def test_a_bad_binding_is_refused_before_anything_is_made(special: Path) -> None:
    prepare(special, "import pathlib\npathlib.Path('imported').touch()\ndef test_x(): pass")
    before = set(special.iterdir())
    options = ["--multihost-rank-binding=bindings.yaml", f"--multihost-venv={sys.prefix}"]
    outcome = suites.run(PYTHON, special, *options)
    assert outcome.code == 4, outcome
    assert "rank_bindings[0].env_overrides.CACHE uses BASE, which is not set" in outcome.text
    assert "bindings.yaml:5" in outcome.text
    assert "Traceback" not in outcome.text
    assert set(special.iterdir()) == before
    done = command(special, "env", "--rank-binding", "bindings.yaml")
    assert done.returncode == 2
    assert "remedy: export BASE" in done.stderr
