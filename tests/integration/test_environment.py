"""What ranks really receive, over a real launcher, and what `multihost-env env` says about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import suites
from tests.environments import ROOT, make
from tests.testbed.bed import Testbed
from tests.values import awkward

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


EVERY_VALUE = """
    import json, os
    import pytest

    VALUES = json.load(open("values.json"))

    @pytest.mark.multihost(ranks=2, env={f"V{at}": value for at, value in enumerate(VALUES)})
    def test_values(multihost):
        assert multihost.size == 2
        wrong = [at for at, value in enumerate(VALUES) if os.environb.get(f"V{at}".encode()) != os.fsencode(value)]
        assert wrong == []
        assert len(VALUES) > 200
"""


@pytest.mark.mpi_programs
def test_row_61_every_value_arrives_byte_for_byte(mpi_python: Path, special: Path) -> None:
    suites.write(special, EVERY_VALUE)
    (special / "values.json").write_text(json.dumps(awkward()))
    for launcher in ("auto", "local"):
        outcome = suites.run(mpi_python, special, f"--multihost-launcher={launcher}")
        assert outcome.tests == {"test_values": "passed"}, outcome


DUMP = """
    import json, os
    import pytest

    @pytest.mark.multihost(ranks=2)
    def test_dump(multihost):
        with open(f"rank{multihost.rank}.json", "w") as file:
            json.dump(dict(os.environ), file)
"""


def dumped(directory: Path) -> list[dict[str, str]]:
    return [json.loads((directory / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.mpi_programs
def test_row_71_what_the_launcher_gives_is_kept_and_the_shells_ranks_are_not(mpi_python: Path, special: Path) -> None:
    """A shell inside a job of one rank has that rank's numbers: the ranks that it starts must not believe them."""
    suites.write(special, DUMP)
    shell = {"RANK": "7", "LOCAL_RANK": "7", "WORLD_SIZE": "9", "SLURM_PROCID": "7", "SLURM_LOCALID": "7"}
    given = (
        "-genv MASTER_ADDR 10.0.0.1" if (mpi_python.parent / "hydra_pmi_proxy").exists() else "-x MASTER_ADDR=10.0.0.1"
    )
    outcome = suites.run(mpi_python, special, f"--multihost-launcher-args={given}", env=shell)
    assert outcome.tests == {"test_dump": "passed"}, outcome
    for rank, seen in enumerate(dumped(special)):
        assert not seen.keys() & shell.keys()
        assert seen["MASTER_ADDR"] == "10.0.0.1"
        assert [seen[f"MULTIHOST_{name}"] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == [
            str(rank),
            str(rank),
            "2",
        ]


DENIED = {
    "BASH_ENV": "x",
    "ENV": "x",
    "PROMPT_COMMAND": "x",
    "PYTHONSTARTUP": "x",
    "PYTHONWARNINGS": "default",
    "PYTHONINSPECT": "",
    "GIT_SSH_COMMAND": "x",
    "GIT_DIR": "x",
    "PERL5LIB": "x",
    "NODE_OPTIONS": "x",
    "LD_BIND_NOW": "1",
    "LD_PROFILE_OUTPUT": "x",
    "DYLD_LIBRARY_PATH": "x",
    "GCONV_PATH": "x",
    "BASH_FUNC_x%%": "() { :; }",
    "OMPI_MCA_planted": "x",
    "GITHUB_TOKEN": "x",
    "RUNNER_OS": "x",
    "CI": "x",
}


@pytest.mark.parametrize("options", [[], ["--multihost-pass=all:"]], ids=["default", "all"])
def test_no_denied_name_of_the_shell_arrives(special: Path, options: list[str]) -> None:
    suites.write(special, DUMP)
    outcome = suites.run(PYTHON, special, "--multihost-launcher=local", *options, env=DENIED)
    assert outcome.tests == {"test_dump": "passed"}, outcome
    # OMPI_...: the local launcher has no variables of its own, so what its child inherits is what it was started with.
    arrived = {name for seen in dumped(special) for name in seen if name in DENIED}
    assert arrived <= {"OMPI_MCA_planted"}


def test_row_59_an_unset_variable_is_absent_whoever_set_it(special: Path) -> None:
    suites.write(special, DUMP.replace("ranks=2", 'ranks=2, env={"HF_HOME": None}'))
    (special / "multihost-env.toml").write_text(
        'launcher = "local"\n[environment]\nunset = ["TMPDIR", "LANG"]\n[environment.ranks.1]\nunset = ["TT_A"]\n'
    )
    shell = {"TMPDIR": "/tmp", "XDG_RUNTIME_DIR": "/run/user/0", "LANG": "C.UTF-8", "TT_A": "1", "HF_HOME": "/x"}
    outcome = suites.run(PYTHON, special, env=shell)
    assert outcome.tests == {"test_dump": "passed"}, outcome
    first, second = dumped(special)
    assert not {"TMPDIR", "LANG", "HF_HOME"} & (first.keys() | second.keys())
    assert (first["TT_A"], first["XDG_RUNTIME_DIR"]) == ("1", "/run/user/0")
    assert "TT_A" not in second


@pytest.mark.mpi_programs
def test_row_74_a_value_that_is_too_large_is_refused_before_the_launch(special: Path) -> None:
    suites.write(special, DUMP.replace("ranks=2", 'ranks=2, env={"BIG": "x" * 140_000}'))
    outcome = suites.run(PYTHON, special, "--multihost-launcher-args=--no-such-flag-of-mpirun")
    assert outcome.tests == {"test_dump": "error"}, outcome
    assert "BIG has 140005 bytes" in outcome.messages["test_dump"]
    assert "no-such-flag" not in outcome.messages["test_dump"], "nothing was started"


def test_row_78_each_rank_gets_its_own_cache_and_explain_says_so(special: Path) -> None:
    suites.write(special, DUMP)
    (special / "multihost-env.toml").write_text(
        'launcher = "local"\nhosts = "localhost:2"\n[environment]\nrank-scoped = ["TT_METAL_CACHE"]\n'
    )
    shell = {"TT_METAL_CACHE": "/cache", "HF_HOME": "/shared"}
    outcome = suites.run(PYTHON, special, env=shell)
    assert outcome.tests == {"test_dump": "passed"}, outcome
    assert [seen["TT_METAL_CACHE"] for seen in dumped(special)] == [f"/cache/localhost_rank_{rank}" for rank in (0, 1)]
    assert {seen["HF_HOME"] for seen in dumped(special)} == {"/shared"}
    done = command(special, "env", "--rank", "1", "--explain", "--json", env=shell)
    (row,) = [row for row in json.loads(done.stdout)["variables"] if row["name"] == "TT_METAL_CACHE"]
    assert (row["value"], row["rule"]) == ("/cache/localhost_rank_1", "rank-scoped; before: prefix TT_")


PHASES = """
import json, os, sys
from pathlib import Path
from pytest_multihost_env import asking, config, plan
made = plan.make(config.load({}, os.environ, {}, Path.cwd()))
found = asking.on_every_host(made, (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"), "")
print(json.dumps({host: json.loads(done.stdout) for host, done in found.items()}))
"""
OF_RUN = "import json, os; json.dump(dict(os.environ), open('run' + os.environ['MULTIHOST_RANK'] + '.json', 'w'))"
ON_TWO_HOSTS = DUMP.replace("ranks=2", "ranks=4, hosts=2")


def without_own(env: Mapping[str, str]) -> dict[str, str]:
    """Return it without what pytest sets in itself, and what ssh says about its own connection."""
    return {name: value for name, value in env.items() if not name.startswith(("PYTEST_", "SSH_"))}


@pytest.fixture(scope="module")
def project(testbed: Testbed) -> Iterator[Path]:
    """A directory on shared storage with an environment that has this package."""
    directory = testbed.shared / "env: it's #1 ü".replace(":", "")
    directory.mkdir()
    make(directory / "tool", str(ROOT), python="/usr/bin/python3")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes hosts, which takes root")
def test_row_75_checks_see_what_the_tests_on_that_host_will_see(testbed: Testbed, project: Path) -> None:
    suites.write(project, ON_TWO_HOSTS)
    (project / "multihost-env.toml").write_text(
        'launcher = "ssh"\nhosts = "n1:2,n2:2"\n[environment]\nlocal-caches = ["HF_HOME"]\nunset = ["SHELL"]\n'
        '[environment.hosts.n2.set]\nOF_HOST = "n2"\n'
        + "".join(f'[environment.ranks.{rank}.set]\nOF_RANK = "{rank}"\n' for rank in range(4))
    )
    python = project / "tool" / "bin" / "python"
    env = {"TT_PASSED": "a b", "NOBODY_ASKED": "1"}
    done = testbed.run("n1", [python, "-m", "pytest", "-p", "no:cacheprovider"], cwd=project, env=env, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = testbed.run("n1", [python, "-c", PHASES], cwd=project, env=env, timeout=100)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    phases = json.loads(asked.stdout)
    words = ["run", "-n", "4", "--", "python", "-c", OF_RUN]
    ran = testbed.run("n1", [python, "-m", "pytest_multihost_env.cli", *words], cwd=project, env=env, timeout=100)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for rank in range(4):
        tested, run = (
            without_own(json.loads((project / f"{name}{rank}.json").read_text())) for name in ("rank", "run")
        )
        assert run == tested, f"rank {rank}"
        assert run["MULTIHOST_HOST"] == f"n{1 + rank // 2}"
    for host, rank in (("n1", 0), ("n2", 2)):
        seen = json.loads((project / f"rank{rank}.json").read_text())
        seen, checked = without_own(seen), without_own(phases[host])
        assert checked == seen
        assert (checked["OF_RANK"], checked.get("OF_HOST"), checked["TT_PASSED"]) == (
            str(rank),
            "n2" if host == "n2" else None,
            "a b",
        )
        assert not {"SHELL", "NOBODY_ASKED"} & checked.keys()
        there = testbed.run(host, ["ls", "-d", checked["HF_HOME"]])
        assert there.returncode == 0, "row 113: made on each host"


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes hosts, which takes root")
def test_run_says_which_host_was_lost_and_leaves_nothing_on_the_others(testbed: Testbed, project: Path) -> None:
    (project / "multihost-env.toml").write_text('launcher = "ssh"\nhosts = "n1:1,n2:1"\n')
    python = project / "tool" / "bin" / "python"
    script = 'touch "running-$MULTIHOST_RANK"; exec sleep 6789'
    command = [python, "-m", "pytest_multihost_env.cli", "run", "--", "sh", "-c", script]
    child = testbed.popen("n1", command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while len(list(project.glob("running-*"))) < 2:
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        with testbed.faults.kill("n2"):
            _, said = child.communicate(timeout=60)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()
    assert child.returncode == 4, said
    assert "rank 1 on n2 was lost" in said
    assert testbed.processes("n1", "sleep 6789") == []


CHANGES = """
import os
if os.environ.get("MULTIHOST_RANK") == "1":
    os.environ["TT_CHANGED"] = "other"
    del os.environ["TT_REMOVED"]
    os.environ["TT_UNSET"] = "back again"
    os.environ["HF_TOKEN"] = "another secret"
"""


@pytest.mark.parametrize(
    ("name", "found", "planned"),
    [
        ("TT_CHANGED", "'other'", "'planned'"),
        ("TT_REMOVED", "absent", "'planned'"),
        ("TT_UNSET", "'back again'", "absent"),
        ("HF_TOKEN", "another value", "'***'"),
    ],
)
def test_a_variable_that_something_changes_on_the_way_is_named(
    special: Path, name: str, found: str, planned: str
) -> None:
    """The round-trip check: what a rank's Python has when it has started is what the plan says."""
    suites.write(special, DUMP)
    (special / "odd").mkdir()
    lines = [line for line in CHANGES.splitlines() if "environ" not in line or "MULTIHOST_RANK" in line or name in line]
    (special / "odd" / "sitecustomize.py").write_text("\n".join(lines))
    (special / "multihost-env.toml").write_text(
        'launcher = "local"\nsecrets = ["HF_TOKEN"]\n[environment]\nunset = ["TT_UNSET"]\n'
    )
    shell = {"TT_CHANGED": "planned", "TT_REMOVED": "planned", "HF_TOKEN": "0123456789", "LC_ALL": "", "LANG": "C"}
    outcome = suites.run(PYTHON, special, env={**shell, "PYTHONPATH": str(special / "odd")})
    assert outcome.tests == {"test_dump": "error"}, outcome
    said = outcome.messages["test_dump"]
    assert f"{name} did not arrive as planned: it is {found}" in said
    assert "rank 1@" in said
    assert f"expected: {planned}" in said
    assert "another secret" not in outcome.text
    assert "0123456789" not in outcome.text
    fine = suites.run(PYTHON, special, env=shell)
    assert fine.tests == {"test_dump": "passed"}, fine
