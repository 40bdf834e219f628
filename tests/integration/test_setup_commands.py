"""Set-up commands run inside the new environment before anything is published, and one that fails stops that."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pytest_multihost_env import config, provision
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.model import Generation

LOOK = """
import json, os, pathlib, sys
seen = {"environ": dict(os.environ), "cwd": os.getcwd(), "prefix": sys.prefix, "argv": sys.argv[1:]}
pathlib.Path(sys.prefix, "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture
def source(special: Path) -> Path:
    venv.create(special / "venv", with_pip=False, symlinks=True)
    return special / "venv"


def ensure(source: Path, *setup: tuple[str, ...]) -> Generation:
    request = provision.ProvisionRequest(
        source, source.parent / "shared" / "python_env", setup=setup, directory=source.parent
    )
    return provision.ensure(request, notify=print)


def left(source: Path) -> list[Path]:
    return [path for path in source.parent.glob("shared/.python_env.d/v1/*/att/*") if path.suffix != ".json"]


def test_a_command_runs_in_the_environment_and_sees_no_secret(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    (source.parent / "look.py").write_text(LOOK)
    made = ensure(source, ("python", "look.py", "a b", "$HOME; *"))
    seen = json.loads((made.path / "seen.json").read_text())
    assert seen["prefix"] == seen["environ"]["VIRTUAL_ENV"] == str(made.path)
    assert seen["cwd"] == str(source.parent)
    assert seen["argv"] == ["a b", "$HOME; *"]
    assert seen["environ"]["PATH"].startswith(f"{made.path / 'bin'}:")
    assert not {"HF_TOKEN", "PYTHONPATH"} & seen["environ"].keys()
    assert ensure(source, ("python", "look.py", "a b", "$HOME; *")).reused
    assert ensure(source).path != made.path
    assert provision.verify(made.path)


def test_a_command_that_fails_is_named_with_what_it_wrote(source: Path) -> None:
    made = ensure(source)
    good, bad = ("python", "-c", "pass"), ("python", "-c", "import sys; print('out of luck'); sys.exit(3)")
    with pytest.raises(NotReady, match=r"'import sys.*ended with 3") as caught:
        ensure(source, good, bad, good)
    assert "out of luck" in str(caught.value)
    assert caught.value.hint
    assert left(source) == [made.path]
    assert (source.parent / "shared" / "python_env").samefile(made.path)


def test_a_program_that_is_not_there_is_named_with_where_it_was_looked_for(source: Path) -> None:
    with pytest.raises(NotReady, match="no program 'no-such-program'") as caught:
        ensure(source, ("no-such-program",))
    assert "/bin" in str(caught.value.expected)
    assert left(source) == []


def test_what_a_command_adds_from_outside_is_refused(source: Path) -> None:
    (source.parent / "elsewhere").mkdir()
    plant = "import pathlib, site, sys; pathlib.Path(site.getsitepackages()[0], 'x.pth').write_text(sys.argv[1])"
    with pytest.raises(NotReady, match="outside"):
        ensure(source, ("python", "-c", plant, str(source.parent / "elsewhere")))
    assert left(source) == []


BAD = {
    'setup = "make"': "setup is of type string",
    "setup = { a = 1 }": "setup is of type table",
    'setup = ["make"]': r"setup\[0\] is of type string",
    'setup = [["make"], [1]]': r"setup\[1\]\[0\] is of type integer",
    'setup = [["make"], []]': r"setup\[1\] names no program",
    'setup = [[" "]]': r"setup\[0\] names no program",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_list_of_commands_is_refused_by_key_and_value(text: str, special: Path) -> None:
    (special / "multihost-env.toml").write_text(text)
    with pytest.raises(UsageProblem, match=BAD[text]) as caught:
        config.load({}, {}, {}, special)
    assert caught.value.where == "multihost-env.toml"


def test_only_the_file_has_commands(special: Path, pytester: pytest.Pytester) -> None:
    (special / "multihost-env.toml").write_text('setup = [["python", "-m", "compileall", "src"]]')
    settings = config.load({}, {"MULTIHOST_ENV_SETUP": "make"}, {}, special)
    assert settings.setup == (("python", "-m", "compileall", "src"),)
    shown = pytester.runpytest("--help").stdout.str()
    assert "multihost-requirements" in shown
    assert "multihost_requirements" in shown
    assert "multihost-setup" not in shown
    assert "multihost_setup" not in shown


def test_the_command_hands_them_over(source: Path) -> None:
    top = source.parent
    (top / "multihost-env.toml").write_text('venv = "venv"\nsetup = [["python", "-c", "open(\'made\', \'w\')"]]\n')
    done = subprocess.run(
        [Path(sys.executable).with_name("multihost-env"), "provision"], cwd=top, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (top / "made").exists()
