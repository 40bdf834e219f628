"""What a user gets for a mistake: exit code 4 or a failed test, one clear text, and nothing half-made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import suites

PYTHON = Path(sys.executable)
SUITE = """
    import pathlib
    pathlib.Path("imported").touch()
    import pytest

    @pytest.mark.multihost(ranks=2)
    def test_ranks(comm): pass

    @pytest.mark.multihost(ranks=2)
    def test_without_mpi(multihost): assert multihost.size == 2
"""


def tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if "__pycache__" not in path.parts}


REFUSED = {
    "no such source": (["--multihost-venv=nowhere"], ["nowhere does not exist", "remedy"]),
    "source is no venv": (["--multihost-venv=plain"], ["plain", "remedy"]),
    "source without a Python": (["--multihost-venv=hollow"], ["hollow", "remedy"]),
    "target is the source": (["--multihost-venv=hollow", "--multihost-target=hollow"], ["remedy"]),
    "a variable that is empty": (["--multihost-venv="], ["venv is empty", "--multihost-venv"]),
    "unknown launcher": (
        ["--multihost-launcher=nonsense"],
        ["no launcher called 'nonsense'", "auto, srun, openmpi, mpich, local, ssh", "local: available"],
    ),
    "slots that are none": (["--multihost-hosts=n1:x"], ["n1:x", "--multihost-hosts"]),
    "a host that looks like an option": (["--multihost-hosts=-oProxyCommand=x"], ["remedy"]),
    "hostfile that is not there": (["--multihost-hostfile=hosts.txt"], ["hosts.txt", "remedy"]),
    "bad line of a hostfile": (["--multihost-hostfile=bad.txt"], ["bad.txt:2", "slots=many"]),
    "empty prefix": (["--multihost-pass="], ["prefix", "remedy"]),
    "time limit that is none": (["--multihost-timeout=soon"], ["soon", "remedy"]),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_mistakes_are_refused_before_any_module_is_imported(special: Path, mistake: str) -> None:
    """Rows 1, 3 and 30: nothing is imported and nothing is left."""
    args, said = REFUSED[mistake]
    suites.write(special, SUITE)
    (special / "plain").mkdir()
    (special / "hollow").mkdir()
    (special / "hollow" / "pyvenv.cfg").write_text("home = /nowhere/bin\n")
    (special / "bad.txt").write_text("n1 slots=2\nn2 slots=many\n")
    before = tree(special)
    outcome = suites.run(PYTHON, special, *args)
    assert outcome.code == 4, outcome
    assert "multihost-env: " in outcome.text, outcome
    assert "Traceback" not in outcome.text, outcome
    for words in said:
        assert words in outcome.text, outcome
    assert tree(special) - {"junit.xml"} == before, outcome


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rank=2", "no argument 'rank'"),
        ("ranks='two'", "ranks"),
        ("ranks=2, hosts=3", "hosts=3 is more than ranks=2"),
        ("ranks=3, per_host=2", "not a multiple"),
        ("", "ranks is missing"),
    ],
)
def test_a_marker_with_wrong_arguments_names_the_test(special: Path, arguments: str, said: str) -> None:
    suites.write(special, f"import pytest\n@pytest.mark.multihost({arguments})\ndef test_marked(): pass\n")
    outcome = suites.run(PYTHON, special)
    assert outcome.code == 4, outcome
    assert "test_suite.py::test_marked" in outcome.text
    assert said in outcome.text
    assert "multihost(ranks, hosts=None" in outcome.text


def test_a_target_that_is_not_ours_is_left_alone(special: Path) -> None:
    """Row 10."""
    suites.write(special, SUITE)
    (special / "python_env").mkdir()
    (special / "python_env" / "precious").write_text("mine")
    outcome = suites.run(PYTHON, special, f"--multihost-venv={sys.prefix}")
    assert outcome.code == 4, outcome
    assert "python_env" in outcome.text
    assert "remedy" in outcome.text
    assert (special / "python_env" / "precious").read_text() == "mine"
    assert not (special / "imported").exists()


def test_an_environment_without_mpi_says_how_to_get_one(special: Path) -> None:
    suites.write(special, SUITE)
    outcome = suites.run(PYTHON, special, "--multihost-launcher=local")
    assert outcome.code == 1, outcome
    assert outcome.tests == {"test_ranks": "error", "test_without_mpi": "passed"}, outcome
    assert "pip install mpi4py" in outcome.messages["test_ranks"]


def test_an_unknown_host_is_named(special: Path) -> None:
    suites.write(special, SUITE)
    outcome = suites.run(PYTHON, special, "--multihost-hosts=no-such-host.invalid:2", "--multihost-check=off")
    assert outcome.code == 1, outcome
    assert "no-such-host.invalid has no address" in outcome.messages["test_ranks"]


def test_a_dry_run_shows_the_plan_and_does_nothing(special: Path) -> None:
    """Row 31."""
    suites.write(special, SUITE)
    before = tree(special)
    outcome = suites.run(PYTHON, special, "--multihost-dry-run", f"--multihost-venv={sys.prefix}")
    assert outcome.code == 0, outcome
    assert "--multihost-venv" in outcome.text
    assert "python_env" in outcome.text
    assert tree(special) - {"junit.xml"} == before


@pytest.mark.parametrize("dist", ["load", "loadscope"])
def test_xdist_workers_have_gangs_of_their_own(special: Path, dist: str) -> None:
    suites.write(
        special,
        """
    import pytest

    @pytest.mark.multihost(ranks=2)
    @pytest.mark.parametrize("number", range(4))
    def test_ranks(multihost, number):
        assert multihost.size == 2

    def test_plain(): pass
    """,
    )
    outcome = suites.run(PYTHON, special, "-n2", f"--dist={dist}")
    assert outcome.code == 0, outcome
    assert len(outcome.tests) == 5
    assert set(outcome.tests.values()) == {"passed"}, outcome
