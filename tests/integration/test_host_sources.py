"""Sources of hosts with the real scontrol, as parts of a conftest and of a package, and with programs that fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.nodeset import fold, split_items, unfold
from pytest_multihost_env.model import Host
from tests import suites
from tests.recorded import FLUX_INSTANCE, shim
from tests.testbed.fixtures import skip_or_fail

Scontrol = Callable[[str, str], str]


@pytest.fixture(scope="module")
def scontrol(tmp_path_factory: pytest.TempPathFactory) -> Scontrol:
    """Slurm's own idea of a list of hosts: `show hostnames LIST` as lines, `show hostlist NAMES` folded."""
    program = shutil.which("scontrol")
    if program is None:
        skip_or_fail("scontrol is not installed (Debian's slurm-client)")
    conf = tmp_path_factory.mktemp("slurm") / "slurm.conf"
    conf.write_text("ClusterName=test\nSlurmctldHost=localhost\n")

    def show(what: str, text: str) -> str:
        done = subprocess.run(
            [str(program), "show", what, text],
            env={"SLURM_CONF": str(conf)},
            capture_output=True,
            text=True,
            timeout=20,
        )
        # It ends with 0 also for "Invalid hostlist".
        return done.stdout.strip() if done.returncode == 0 and not done.stderr else f"refused: {done.stderr}"

    return show


@pytest.mark.parametrize(
    "text",
    [
        "n[01-03,7]",
        "n[1-2],gpu[01-02],login",
        "a,b",
        "b2,a1,b1",
        "n[9-11,1,1]",
        "r[1-2]n[1-2]",
        "r[1-2][3-4]",
        "n[001-3]",
        "n[1-010]",
        "n[08-12]",
        "n[09-101]",
        "n[0-9]",
        "n[000-002,0-2,00]",
        "nid[00001,00011-00012]",
        "a-[1-2],a_[1-2]",
    ],
)
def test_a_list_is_unfolded_as_slurm_does(scontrol: Scontrol, text: str) -> None:
    """Row 82."""
    assert unfold(text, "SLURM_JOB_NODELIST") == scontrol("hostnames", text).split()


@pytest.mark.parametrize("text", ["n[3-1]", "n[]", "n[a-b]", "n[[1]]", "n[1-65537]", "n[0-3/2]"])
def test_what_slurm_refuses_is_refused(scontrol: Scontrol, text: str) -> None:
    assert scontrol("hostnames", text).startswith("refused: ")
    with pytest.raises(UsageProblem):
        unfold(text, "SLURM_JOB_NODELIST")


def test_half_a_list_is_refused_though_slurm_invents_a_host(scontrol: Scontrol) -> None:
    assert scontrol("hostnames", "n[1-") == "n]"
    with pytest.raises(UsageProblem, match="do not match"):
        unfold("n[1-", "SLURM_JOB_NODELIST")


BOUNDS = st.tuples(st.integers(0, 130), st.integers(0, 12), st.integers(1, 4))
NAMES = st.lists(
    st.builds(
        lambda word, number, width: f"{word}{number:0{width}}",
        st.sampled_from(["n", "gpu-a", "r1n", "x0c"]),
        st.integers(0, 130),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=40,
    unique=True,
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["n", "r1n", "b-"]), st.lists(BOUNDS, min_size=1, max_size=4)), min_size=1, max_size=3
    )
)
@settings(max_examples=60, deadline=None)
def test_any_list_is_unfolded_as_slurm_does(
    scontrol: Scontrol, groups: list[tuple[str, list[tuple[int, int, int]]]]
) -> None:
    """Row 82."""
    text = ",".join(
        f"{word}[{','.join(f'{first:0{width}}-{first + more:0{width}}' for first, more, width in bounds)}]"
        for word, bounds in groups
    )
    assert unfold(text, "SLURM_JOB_NODELIST") == scontrol("hostnames", text).split()


@given(NAMES)
@settings(max_examples=60, deadline=None)
def test_what_slurm_folds_is_unfolded_and_what_is_folded_here_slurm_unfolds(
    scontrol: Scontrol, names: list[str]
) -> None:
    assert unfold(scontrol("hostlist", ",".join(names)), "SLURM_JOB_NODELIST") == names
    ours = ",".join(item.rpartition(":")[0] for item in fold([Host(name, 1) for name in names]))
    assert len(split_items(ours, "")) <= len(names)
    answer = scontrol("hostnames", ours)
    assert answer.split() == names or answer.startswith("refused: ")  # it takes no text behind a bracket


def multihost_env(directory: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest_multihost_env.cli", *words],
        cwd=directory,
        env=suites.clean_environ({"COLUMNS": "400", **env}),
        capture_output=True,
        text=True,
        timeout=60,
    )


def path(directory: Path) -> dict[str, str]:
    return {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}


def test_a_scontrol_that_fails_does_not_make_a_job_one_host(special: Path) -> None:
    """Row 83: nobody asks it."""
    broken = shim(special, {"scontrol show nothing": ""})
    env = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[09-11]", "SLURM_TASKS_PER_NODE": "2(x2),1", **path(broken)}
    done = multihost_env(special, "hosts", "--json", env=env)
    assert [(row["name"], row["slots"]) for row in json.loads(done.stdout)["hosts"]] == [
        ("n09", 2),
        ("n10", 2),
        ("n11", 1),
    ]


@pytest.mark.parametrize(
    ("otherwise", "said"),
    [
        ("echo flux-hostlist: broker is gone >&2; exit 1", "broker is gone"),
        ("exit 0", "the answer is empty"),
        ("kill -9 $$", "flux ended with code -9"),
        ("echo 'n[1-'", "do not match"),
    ],
)
def test_a_flux_that_fails_does_not_make_a_job_one_host(special: Path, otherwise: str, said: str) -> None:
    """Row 83."""
    broken = shim(special, {"flux never": ""}, otherwise)
    done = multihost_env(special, "hosts", env={**FLUX_INSTANCE.environ, **path(broken)})
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "where: flux hostlist local" in done.stderr
    assert "remedy: " in done.stderr


TOWER = """
from pytest_multihost_env.model import Allocation, Host


class Tower:
    name = "tower"

    def find(self, environ):
        names = environ.get("TOWER_HOSTS", "").split()
        return Allocation(tuple(Host(name, 3, "TOWER_HOSTS") for name in names), self.name) if names else None
"""
REGISTER = """
from pytest_multihost_env.hookspecs import hookimpl
from tower import Tower


@hookimpl
def multihost_env_register(registry):
    registry.add_host_source(Tower())
    registry.add_host_suffix("-ib0")
"""


def test_a_conftest_adds_a_source_with_one_file_and_one_line(special: Path) -> None:
    suites.write(special, "def test_nothing(): pass")
    (special / "tower.py").write_text(TOWER)
    (special / "conftest.py").write_text(REGISTER)
    env = {"TOWER_HOSTS": "localhost 127.0.1.1 localhost-ib0.x.org"}
    shown = suites.run(Path(sys.executable), special, "--multihost-dry-run", env=env)
    assert shown.code == 0, shown
    rows = [line.split() for line in shown.text.splitlines()]
    assert ["host", "localhost", "6", "slots", "tower"] in rows, shown
    assert ["host", "127.0.1.1", "3", "slots", "tower"] in rows, shown
    # Where the user names hosts, the tower is not asked.
    chosen = suites.run(Path(sys.executable), special, "--multihost-dry-run", "--multihost-hosts=localhost:2", env=env)
    assert chosen.code == 0, chosen
    assert "tower" not in chosen.text, chosen


def test_a_package_adds_a_source_to_the_command_as_well(special: Path) -> None:
    site = special / "site"
    info = site / "tower-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tower.py").write_text(TOWER)
    (site / "tower_plugin.py").write_text(REGISTER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tower\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[multihost_env]\ntower = tower_plugin\n")
    done = multihost_env(special, "hosts", "--json", env={"TOWER_HOSTS": "n1 n2 n1-ib0.x.org", "PYTHONPATH": str(site)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] == "tower"
    assert found["hosts"] == [
        {"name": "n1", "slots": 6, "where": "TOWER_HOSTS"},
        {"name": "n2", "slots": 3, "where": "TOWER_HOSTS"},
    ]
