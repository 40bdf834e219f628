"""The activate scripts of environments that venv, virtualenv and uv made name the new place, in every shell (row 42)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import shells
from pytest_multihost_env.provision.builders import VenvBuilder
from pytest_multihost_env.provision.bundle import bundle_interpreter
from pytest_multihost_env.provision.relocate import relocate
from tests.environments import REQUIRED

MAKERS = {
    "venv": [sys.executable, "-m", "venv", "--without-pip"],
    "virtualenv": [sys.executable, "-m", "virtualenv", "-q", "--no-pip", "--without-pip", "-p", sys.executable],
    "uv": ["uv", "venv", "-q", "--no-project", "-p", sys.executable],
    "uv --relocatable": ["uv", "venv", "-q", "--no-project", "--relocatable", "-p", sys.executable],
}
"""How to make an environment, less its directory."""

OLD = ["oldplace", "we ird'$ #ü!"]
NEW = ["it's #1 ü $HOME `id` !!", "x" * 200]

SOURCES = {
    "activate": (
        {"sh": ["sh"], "dash": ["dash"], "bash": ["bash"], "zsh": ["zsh", "-f"], "ksh": ["ksh"]},
        '. {script}\nprintf "%s\\n" "$VIRTUAL_ENV"\npython -Ic \'import sys; print(sys.prefix)\'\ndeactivate\nprintf "%s\\n" "${{VIRTUAL_ENV-gone}}"\n',
    ),
    "activate.csh": (
        {"csh": ["csh", "-f"], "tcsh": ["tcsh", "-f"]},
        "set prompt = x\nsource {script}\nprintenv VIRTUAL_ENV\npython -Ic 'import sys; print(sys.prefix)'\ndeactivate\nif (! $?VIRTUAL_ENV) echo gone\n",
    ),
    "activate.fish": (
        {"fish": ["fish", "--no-config"]},
        "source {script}\necho $VIRTUAL_ENV\npython -Ic 'import sys; print(sys.prefix)'\ndeactivate\nset -q VIRTUAL_ENV; or echo gone\n",
    ),
    "activate.nu": (
        {"nu": ["nu", "--no-config-file"]},
        (
            "overlay use {script}\nprint $env.VIRTUAL_ENV\npython -Ic 'import sys; print(sys.prefix)'\noverlay hide activate\n"
            "print ($env.VIRTUAL_ENV? | default gone)\n"
        ),
    ),
}
"""For each script: who reads it, and a program that activates, tells where it is, and deactivates."""


@pytest.fixture(scope="module", params=MAKERS)
def maker(request: pytest.FixtureRequest) -> list[str]:
    return MAKERS[request.param]


@pytest.fixture(scope="module", params=OLD)
def source(request: pytest.FixtureRequest, maker: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("made") / request.param / "source"
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([*maker, str(top)], check=True, capture_output=True, timeout=120, env=environ)
    return top


@pytest.mark.parametrize("name", NEW)
def test_every_shell_gets_the_new_path_and_no_old_one_is_left(source: Path, name: str, tmp_path: Path) -> None:
    env = tmp_path / name / "env"
    env.parent.mkdir()
    VenvBuilder().build(source, env, Work())
    bundle_interpreter(env)
    relocate(env, source)
    assert relocate(env, source) == [], "a second time changes nothing"
    for script in (env / "bin").glob("activate*"):
        text = script.read_bytes()
        assert os.fsencode(source) not in text, script.name
        assert os.fsencode(source.parent.name) not in text, script.name
    for file, (programs, code) in SOURCES.items():
        if (env / "bin" / file).exists():  # uv's relocatable form has none for csh
            for shell, command in programs.items():
                _check(env, file, [*command], code, shell, tmp_path)


def _check(env: Path, file: str, command: list[str], code: str, shell: str, home: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        assert not REQUIRED, f"{shell} is not installed"
        return
    text = code.format(script=shells.SHELLS[file].quote(str(env / "bin" / file)))
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    flags = ["-c", text]
    if shell in {"csh", "tcsh"}:  # aliases, of which deactivate is one, work from the next line on
        flags = ["/dev/stdin"] if shell == "tcsh" else []
    done = subprocess.run(
        [program, *command[1:], *flags],
        input=text if shell in {"csh", "tcsh"} else None,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split("\n")[:3] == [str(env), str(env), "gone"], (shell, file, done.stderr)
