"""Activation in every shell that this machine has: the right values, nothing twice, and a failure that stops CI."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import activate
from tests.environments import missing

NAMES = ("it's #1 ü", 'a "b" $HOME `id` \\x', "wild* [ab]? {c,d} ~", "bang! now !!", "-n %s; false")


@pytest.fixture(params=activate.SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell that there is an activation for, by name; skipped where it is not installed."""
    name: str = request.param
    if shutil.which(name) is None:
        missing(f"{name} is not installed")
    return name


def _run(shell: str, code: str, tmp_path: Path, *, stop: bool = False) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONHOME": "/nowhere", "LANG": "C.UTF-8"}
    quiet = {"csh": ["-f"], "tcsh": ["-f"], "zsh": ["-f"], "fish": ["--no-config"], "nu": ["--no-config-file"]}
    flags = [*quiet.get(shell, []), *(["-e"] if stop and shell not in {"fish", "nu"} else []), "-c", code]
    return subprocess.run([shell, *flags], env=environ, capture_output=True, text=True, timeout=60, cwd=tmp_path)


def _eval(shell: str, file: Path) -> str:
    return {
        "fish": f"cat {file} | source",
        "nu": f"load-env (^cat {file} | from json)",
        "csh": f'eval "`cat {file}`"',
        "tcsh": f'eval "`cat {file}`"',
    }.get(shell, f'eval "$(cat {file})"')


def _generation(path: Path) -> Generation:
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "probe").write_text('#!/bin/sh\nprintf \'%s\\n\' "$VIRTUAL_ENV" "$PATH" "${PYTHONHOME-gone}"\n')
    (path / "bin" / "probe").chmod(0o755)
    return Generation(path, "key", "digest", False, "n1:1", (), 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_shell_uses_the_environment(shell: str, name: str, tmp_path: Path) -> None:
    env = tmp_path / name
    text = tmp_path / "script"
    text.write_text(activate.script(_generation(env), shell, path=os.environ["PATH"]))
    once = _run(shell, f"{_eval(shell, text)}; probe", tmp_path)
    assert (once.stderr, once.returncode) == ("", 0)
    gone = "" if shell == "nu" else "gone"  # its load-env cannot unset; Python takes the empty one for none
    assert once.stdout.splitlines() == [str(env), f"{env}/bin:{os.environ['PATH']}", gone]
    twice = _run(shell, f"{_eval(shell, text)}; {_eval(shell, text)}; probe", tmp_path)
    assert twice.stdout == once.stdout


def test_a_failure_is_printed_and_stops_a_careful_shell(shell: str, tmp_path: Path) -> None:
    message = 'it\'s not ready: `id` $HOME "x"!\n  remedy: 100 % of * \\n'
    text = tmp_path / "script"
    text.write_text(activate.failure_script(shell, message))
    glue = "; or exit $status" if shell == "fish" else ""
    done = _run(shell, f"{_eval(shell, text)}{glue}\necho reached", tmp_path, stop=True)
    assert done.stdout == ""
    assert done.returncode != 0
    if shell == "nu":  # the command itself has told the message
        assert "can't convert string to Record" in done.stderr
    else:
        assert done.stderr.strip() == message


def test_a_failure_leaves_an_interactive_shell_alive(shell: str, tmp_path: Path) -> None:
    text = tmp_path / "script"
    text.write_text(activate.failure_script(shell, "not ready"))
    line = _eval(shell, text)
    if shell == "nu":  # a script ends at an error, a person's next line does not
        done = _run(shell, f"try {{ {line} }}\nprint alive", tmp_path)
        assert (done.stdout, done.stderr) == ("alive\n", "")
        return
    done = _run(shell, f"{line}\necho alive", tmp_path)
    assert (done.stdout, done.stderr) == ("alive\n", "not ready\n")


@pytest.mark.parametrize("end", ["kill -9 $$", "echo 'true; true'; exit 3"], ids=["killed", "failed late"])
def test_the_safe_line_of_the_docs_stops_a_script_also_when_nothing_was_printed(
    shell: str, end: str, tmp_path: Path
) -> None:
    program = tmp_path / "activate"
    program.write_text(f"#!/bin/sh\n{end}\n")
    program.chmod(0o755)
    line = {
        "fish": "eval (./activate; or echo '; false'); or exit 1",
        "csh": 'eval "`./activate || echo false`"',
        "tcsh": 'eval "`./activate || echo false`"',
        "nu": "load-env (./activate | from json)",
    }.get(shell, 'eval "$(./activate || echo false)"')
    done = _run(shell, f"{line}\necho reached", tmp_path, stop=True)
    assert done.stdout == ""
    assert done.returncode != 0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("real") / "it's #1 ü"
    venv.create(top / "source", with_pip=False, symlinks=True)
    (top / "command").write_text(
        f'#!/bin/sh\nexec env -u PYTHONHOME {sys.executable} -m pytest_multihost_env.cli activate "$@"\n'
    )
    (top / "command").chmod(0o755)
    return top / "source"


SAFE_LINES = {
    "fish": "eval (./command --shell fish {words}; or echo '; false'); or exit 1",
    "csh": 'eval "`./command --shell csh {words} || echo false`"',
    "tcsh": 'eval "`./command --shell csh {words} || echo false`"',
    "nu": "load-env (./command --shell nu {words} | from json)",
}
"""As docs/howto/activate.md has them, for a script that must not go on."""


def test_row_32_the_command_itself_in_each_shell(shell: str, source: Path) -> None:
    """With another Python first in PATH: that is what would run next if a failure were let pass."""
    line = SAFE_LINES.get(shell, 'eval "$(./command --shell {shell} {words} || echo false)"')
    python = "python -c 'import sys; print(sys.prefix)'"
    good = line.format(shell=shell, words="./source ./python_env")
    done = _run(shell, f"{good}\n{python}", source.parent, stop=True)
    assert done.stdout == f"{(source.parent / 'python_env').resolve()}\n", done.stderr
    assert done.returncode == 0
    bad = line.format(shell=shell, words="./nowhere ./other")
    done = _run(shell, f"{bad}\necho reached\n{python}", source.parent, stop=True)
    assert (done.stdout, done.returncode != 0) == ("", True), done
    assert "nowhere does not exist" in done.stderr
    assert not (source.parent / "other").is_symlink()


def test_the_line_that_ci_files_use_does_not_reach_the_next(tmp_path: Path) -> None:
    """Row 32."""
    text = tmp_path / "script"
    text.write_text(activate.failure_script("bash", "not ready"))
    done = subprocess.run(
        ["bash", "-ec", f'eval "$(cat {text})"; echo reached'], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "not ready\n")
    assert done.returncode != 0


def test_an_empty_path_gets_no_empty_part(tmp_path: Path) -> None:
    code = f"PATH=\n{activate.script(_generation(tmp_path / 'env'))}\nprobe"
    done = subprocess.run(["/bin/sh", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[1] == f"{tmp_path}/env/bin"


def test_a_login_shells_name_and_a_path_are_understood() -> None:
    made = Generation(Path("/x"), "key", "digest", False, "n1:1", (), 0.0)
    assert activate.script(made, "-bash") == activate.script(made, "/usr/bin/zsh") == activate.script(made)
    with pytest.raises(UsageProblem, match=r"cmd\.exe"):
        activate.script(made, "cmd.exe")
