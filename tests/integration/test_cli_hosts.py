"""The command on three real hosts: who answers, whether they are equal, and who is to blame."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.environments import ROOT, make
from tests.testbed.bed import Testbed

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which takes root"),
]

SYSTEM_PYTHON = "/usr/bin/python3"
HOSTS = ["--hosts", "n1:2,n2:2,n3:2"]


@pytest.fixture(scope="module")
def project(testbed: Testbed) -> Iterator[Path]:
    """A directory of alice on shared storage, with a small SOURCE and an environment with the command."""
    directory = testbed.shared / "cli: it's #1 ü".replace(":", "")
    directory.mkdir()
    make(directory / "tool", str(ROOT), python=SYSTEM_PYTHON)
    source = make(directory / "source", "iniconfig==2.0.0", python=SYSTEM_PYTHON)
    alice = testbed.accounts["alice"]
    for path in (directory, source, *source.rglob("*")):
        shutil.chown(path, alice.uid, alice.gid) if not path.is_symlink() else None
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def run(bed: Testbed, project: Path, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    argv = [project / "tool" / "bin" / "multihost-env", *words]
    done = bed.run("n1", argv, user="alice", cwd=project, env=dict(env or {}), timeout=120)
    return done.returncode, done.stdout or done.stderr


def test_each_host_answers_and_one_that_does_not_is_named(testbed: Testbed, project: Path) -> None:
    """The hosts are those of a node file; one that this user may not read does not make the job one host."""
    nodes = project / "nodes"
    nodes.write_text("n1\nn2\nn2\nn3\n")
    nodes.chmod(0o600)
    job = {"PBS_JOBID": "7.server", "PBS_NODEFILE": str(nodes)}
    code, text = run(testbed, project, "hosts", env=job)
    assert (code, "Permission denied" in text, f"PBS_NODEFILE: {nodes}" in text) == (2, True, True), text
    nodes.chmod(0o644)
    code, text = run(testbed, project, "hosts", "--reach", "--json", env=job)
    assert code == 0, text
    rows = json.loads(text)["hosts"]
    assert [row["answer"].split(",")[0] for row in rows] == ["n1", "n2", "n3"]
    assert [row["slots"] for row in rows] == [1, 2, 1]
    with testbed.faults.reject_port("n3", 22):
        code, text = run(testbed, project, "hosts", *HOSTS, "--reach", "--json")
    assert code == 4, text
    assert [row["reached"] for row in json.loads(text)["hosts"]] == [True, True, False]


def test_a_drifted_host_is_named(testbed: Testbed, project: Path) -> None:
    words = ["check", *HOSTS, "--venv", "source", "--packages", "iniconfig", "--level", "smoke"]
    code, text = run(testbed, project, *words)
    assert code == 0, text
    info = next((project / "python_env").resolve().glob("lib/*/site-packages/iniconfig-2.0.0.dist-info"))
    other = project / "other"
    shutil.copytree(info, other)
    metadata = other / "METADATA"
    metadata.write_text(metadata.read_text().replace("\nVersion: 2.0.0\n", "\nVersion: 1.9.9\n"))
    testbed.run("n2", ["mount", "--bind", other, info], check=True)
    try:
        code, text = run(testbed, project, *words, "--json")
    finally:
        testbed.run("n2", ["umount", info], check=True)
    assert code == 1, text
    smoke, drift = json.loads(text)["checks"]
    assert smoke["passed"] is True
    assert {tuple(one["hosts"]) for one in drift["differences"]} == {("n2",)}
    assert {one["subject"] for one in drift["differences"]} == {"iniconfig"}


def test_an_ordinary_user_examines_the_storage(testbed: Testbed, project: Path) -> None:
    before = sorted(project.iterdir())
    code, text = run(testbed, project, "doctor", *HOSTS, "--fs", ".", "--json")
    assert code == 0, text
    found = json.loads(text)
    answers = {one["subject"]: one["answers"] for one in found["findings"]}
    number = testbed.accounts["alice"].uid
    assert answers["owners"] == answers["owner"] == dict.fromkeys(("n1", "n2", "n3"), f"uid {number}")
    assert sorted(project.iterdir()) == before
    code, text = run(testbed, project, "doctor", *HOSTS, "--fs", "/root", "--json")
    assert code == 1, text
    (usable,) = (one for one in json.loads(text)["findings"] if one["subject"] == "usable")
    assert usable["answers"] == dict.fromkeys(("n1", "n2", "n3"), "no: EACCES")
