"""A copied environment names its new place in every file where installers write one; what leads outside is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import scripts, shells
from pytest_multihost_env.provision.relocate import relocate
from tests.environments import missing

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
OLD = Path("/data/env")


@pytest.fixture
def env(special: Path) -> Path:
    """A virtual environment whose files say that it lies in /data/env."""
    top = special / "env"
    venv.create(top, symlinks=True)
    for name in ("activate", "activate.csh", "activate.fish"):
        script = top / "bin" / name
        script.write_text(shells.activate(name, script.read_text(), str(OLD)))
    (top / "pyvenv.cfg").write_text(
        f"home = /usr/bin\nversion = 3.11.7\ncommand = /usr/bin/python3 -m venv {OLD}\nkept = /data/env2\n"
    )
    return top


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def python_of(env: Path) -> str:
    return str(env / "bin" / "python")


def program_of(script: Path) -> str:
    header = scripts.read(script.read_bytes())
    assert header is not None
    return header.program


NAMES = ["plain", "a space", "it's", 'dou"ble', "$HOME `id`", "ü", "#!", "!!", "''x''", "x" * 200, "&& ;|<>(*)"]


class TestHeader:
    @pytest.mark.parametrize("options", ["", "-E -s"])
    @pytest.mark.parametrize("name", NAMES)
    def test_the_kernel_or_the_shell_starts_the_program(self, tmp_path: Path, name: str, options: str) -> None:
        program = tmp_path / name / "python"
        program.parent.mkdir()
        program.symlink_to(os.path.realpath(sys.executable))
        script = tmp_path / "script"
        script.write_bytes(
            scripts.header(str(program), options)
            + b'"doc"\nimport sys\nprint(sys.argv[1:], sys.flags.ignore_environment)\n'
        )
        script.chmod(0o755)
        done = subprocess.run([script, "a b", "$x"], capture_output=True, text=True)
        assert done.stderr == ""
        assert done.stdout == f"['a b', '$x'] {int(bool(options))}\n"

    @pytest.mark.parametrize("options", ["", "-E"])
    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_written_is_read(self, name: str, options: str) -> None:
        content = scripts.header(f"/{name}/python", options)
        assert scripts.read(content + b"rest\n") == scripts.Header(f"/{name}/python", options, len(content))

    def test_the_short_form_is_used_up_to_the_kernels_limit(self) -> None:
        longest = "/" + "x" * (scripts.KERNEL_LIMIT - 3)
        assert scripts.header(longest) == f"#!{longest}\n".encode()
        assert scripts.header(longest + "x").startswith(b"#!/bin/sh\n'''exec' ")

    @pytest.mark.parametrize(
        "command", ['"/data/my env/bin/python3" "$0" "$@"', '\'/data/my env/bin/python3\' "$0" "$@"'], ids=["pip", "uv"]
    )
    def test_the_forms_of_the_installers_are_understood(self, command: str) -> None:
        content = f"#!/bin/sh\n'''exec' {command}\n' '''\nimport sys\n".encode()
        assert scripts.read(content) == scripts.Header("/data/my env/bin/python3", "", content.index(b"import"))

    def test_a_script_that_finds_its_interpreter_by_itself_is_left_alone(self) -> None:
        line = """'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python3' "$0" "$@\""""
        assert scripts.read(f"#!/bin/sh\n{line}\n' '''\n".encode()) is None

    @pytest.mark.parametrize("bad", ["a:b", "a\\b", "a\nb"])
    def test_a_path_that_cannot_be_written_is_refused(self, env: Path, bad: str) -> None:
        with pytest.raises(NotReady, match="which scripts and search paths cannot express"):
            relocate(env.parent / bad, OLD)


class TestScripts:
    def test_a_console_script_runs_in_the_new_place_with_its_options(self, env: Path) -> None:
        script = write(
            env / "bin" / "tool",
            f"#!{OLD}/bin/python3 -E\nimport sys\nprint(sys.executable, sys.flags.ignore_environment)\n",
        )
        script.chmod(0o755)
        assert Path("bin/tool") in relocate(env, OLD)
        done = subprocess.run([script], capture_output=True, text=True, check=True)
        assert done.stdout == f"{env}/bin/python3 1\n"

    @pytest.mark.parametrize("line", ["#!/usr/bin/env python3", "#!/data/env2/bin/python", "#!/bin/sh", "no header"])
    def test_other_scripts_are_left_alone(self, env: Path, line: str) -> None:
        script = write(env / "bin" / "tool", f"{line}\n# made in {OLD}\n")
        before = script.read_bytes()
        assert Path("bin/tool") not in relocate(env, OLD)
        assert script.read_bytes() == before

    def test_binary_files_are_left_alone(self, env: Path) -> None:
        binary = env / "bin" / "tool"
        binary.write_bytes(b"\x7fELF" + bytes(str(OLD), "ascii") + bytes(range(256)))
        before = binary.read_bytes()
        relocate(env, OLD)
        assert binary.read_bytes() == before

    def test_a_read_only_script_keeps_its_mode(self, env: Path) -> None:
        script = write(env / "bin" / "tool", f"#!{OLD}/bin/python\n")
        script.chmod(0o555)
        relocate(env, OLD)
        assert script.stat().st_mode & 0o777 == 0o555
        assert program_of(script) == python_of(env)

    def test_the_record_tells_the_new_digest(self, env: Path) -> None:
        script = write(env / "bin" / "tool", f"#!{OLD}/bin/python\n")
        record = write(
            env / SITE / "tool-1.dist-info" / "RECORD",
            "../../../bin/tool,sha256=old,1\ntool.py,sha256=kept,2\ntool-1.dist-info/RECORD,,\n",
        )
        relocate(env, OLD)
        digest = base64.urlsafe_b64encode(hashlib.sha256(script.read_bytes()).digest()).decode().rstrip("=")
        assert record.read_text().splitlines() == [
            f"../../../bin/tool,sha256={digest},{script.stat().st_size}",
            "tool.py,sha256=kept,2",
            "tool-1.dist-info/RECORD,,",
        ]


SHELL_COMMANDS = {
    "sh": ["sh", "-c", '. "$0/bin/activate" && printf %s "$VIRTUAL_ENV" && command -v python'],
    "dash": ["dash", "-c", '. "$0/bin/activate" && printf %s "$VIRTUAL_ENV" && command -v python'],
    "bash": ["bash", "-c", 'source "$0/bin/activate" && printf %s "$VIRTUAL_ENV" && command -v python'],
    "zsh": ["zsh", "-fc", 'source "$0/bin/activate" && printf %s "$VIRTUAL_ENV" && command -v python'],
    "csh": ["csh", "-f"],
    "fish": [
        "fish",
        "--no-config",
        "-c",
        "source $argv[1]/bin/activate.fish; printf %s $VIRTUAL_ENV; command -v python",
    ],
}


class TestActivate:
    @pytest.mark.parametrize("name", ["plain", "a space", "it's", 'dou"ble', "$HOME `id`", "#ü"])
    @pytest.mark.parametrize("shell", SHELL_COMMANDS)
    def test_each_shell_gets_the_new_path(self, env: Path, shell: str, name: str) -> None:
        if shutil.which(shell) is None:
            missing(f"{shell} is not installed")
        moved = env.rename(env.parent / name)
        relocate(moved, OLD)
        command = [*SHELL_COMMANDS[shell], str(moved)]
        text = None
        if shell == "csh":  # csh takes no arguments beside -c
            command, text = (
                ["csh", "-f"],
                f"cd {shells.SHELLS['activate.csh'].quote(str(moved))}\nset prompt=x\nsource bin/activate.csh\nprintenv VIRTUAL_ENV\nwhich python\n",
            )
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(env.parent), "LANG": "C.UTF-8"}
        done = subprocess.run(command, input=text, env=environ, capture_output=True, text=True)
        assert done.stdout.replace("\n", "") == f"{moved}{moved}/bin/python", done.stderr

    def test_an_exclamation_mark_is_no_history_in_csh(self, env: Path) -> None:
        if shutil.which("csh") is None:
            missing("csh is not installed")
        moved = env.rename(env.parent / "wow!! it's")
        relocate(moved, OLD)
        text = "set prompt=x\nsource activate.csh\nprintenv VIRTUAL_ENV\n"
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(env.parent), "LANG": "C.UTF-8"}
        done = subprocess.run(["csh", "-f"], input=text, cwd=moved / "bin", env=environ, capture_output=True, text=True)
        assert done.stdout == f"{moved}\n", done.stderr

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("activate", 'VIRTUAL_ENV="/data/env"'),
            ("activate", "    export VIRTUAL_ENV=/data/env"),
            ("activate", "VIRTUAL_ENV='/data/it'\"'\"'s'"),
            ("activate", '    export VIRTUAL_ENV=$(cygpath "/data/env")'),
            ("activate.csh", 'setenv VIRTUAL_ENV "/data/env"'),
            ("activate.fish", "set -gx VIRTUAL_ENV '/data/env'"),
            ("activate.nu", "    const virtual_env = '/data/env'"),
            ("activate.nu", "    let virtual_env = r#'/data/env'#"),
        ],
    )
    def test_every_way_to_write_the_path_is_found(self, name: str, line: str) -> None:
        once = shells.activate(name, line, "/new/it's")
        assert "/data" not in once
        assert "/new/it" in once
        assert shells.activate(name, once, "/new/it's") == once

    @pytest.mark.parametrize(
        "line", ['        VIRTUAL_ENV="$CURRENT_ENV"', '  VIRTUAL_ENV=$(cygpath -u "$VIRTUAL_ENV")']
    )
    def test_what_a_script_makes_of_the_path_stays(self, line: str) -> None:
        assert shells.activate("activate", line, "/new") == line

    def test_a_script_that_finds_its_place_in_bash_alone_gets_it_written_down(self) -> None:
        line = 'VIRTUAL_ENV=\'\'"$(dirname -- "$(dirname -- "$(realpath -- "$SCRIPT_PATH")")")"\'\''
        assert shells.activate("activate", line, "/new") == "VIRTUAL_ENV=/new"


class TestConfiguration:
    def test_pyvenv_cfg_names_the_new_place_and_keeps_the_rest(self, env: Path) -> None:
        relocate(env, OLD)
        assert (env / "pyvenv.cfg").read_text() == (
            f"home = /usr/bin\nversion = 3.11.7\ncommand = /usr/bin/python3 -m venv {env}\nkept = /data/env2\n"
        )

    def test_twice_changes_nothing_more(self, env: Path) -> None:
        write(env / "bin" / "tool", f"#!{OLD}/bin/python\n")
        write(env / SITE / "a.pth", f"{OLD}/src\n")
        (env / "src").mkdir()
        assert len(relocate(env, OLD)) == 6
        assert relocate(env, OLD) == []

    def test_the_name_that_it_was_made_under_counts_as_old(self, env: Path) -> None:
        script = write(env / "bin" / "tool", f"#!{OLD}/bin/python\n")
        relocate(env, Path("/copied/from/here"))
        assert program_of(script) == python_of(env)


class TestOutside:
    def test_a_pth_line_inside_is_rewritten(self, env: Path) -> None:
        pth = write(env / SITE / "a.pth", f"# {OLD}\n{OLD}/src\nimport sys; sys.path.append('{OLD}/more')\n\n")
        relocate(env, OLD)
        assert pth.read_text().splitlines() == [
            f"# {OLD}",
            f"{env}/src",
            f"import sys; sys.path.append('{env}/more')",
            "",
        ]

    @pytest.mark.parametrize("line", ["/home/me/project", "../../../../elsewhere"])
    def test_a_pth_line_outside_is_refused_by_name(self, env: Path, line: str) -> None:
        write(env / SITE / "mine.pth", f"{line}\n")
        before = (env / "pyvenv.cfg").read_text()
        with pytest.raises(NotReady, match="imports code from outside") as caught:
            relocate(env, OLD)
        assert f"mine.pth: {line}" in str(caught.value)
        assert (env / "pyvenv.cfg").read_text() == before, "nothing is changed when something is refused"

    def test_a_pth_line_that_leads_outside_by_a_link_is_refused(self, env: Path, special: Path) -> None:
        (special / "project").mkdir()
        (env / "src").symlink_to(special / "project")
        write(env / SITE / "mine.pth", f"{OLD}/src\n")
        with pytest.raises(NotReady, match="imports code from outside"):
            relocate(env, OLD)

    def test_an_editable_install_outside_is_refused_by_name(self, env: Path) -> None:
        record = {"url": "file:///home/me/my%20project", "dir_info": {"editable": True}}
        write(env / SITE / "mine-1.0.dist-info" / "direct_url.json", json.dumps(record))
        with pytest.raises(NotReady) as caught:
            relocate(env, OLD)
        assert "mine-1.0: editable, in /home/me/my project" in str(caught.value)
        assert "non-editable" in str(caught.value)

    def test_an_editable_install_inside_is_rewritten(self, env: Path) -> None:
        record = {"url": f"file://{OLD}/src", "dir_info": {"editable": True}}
        file = write(env / SITE / "mine-1.0.dist-info" / "direct_url.json", json.dumps(record))
        relocate(env, OLD)
        assert json.loads(file.read_text())["url"] == (env / "src").as_uri()

    def test_an_origin_that_nothing_is_imported_from_may_lie_outside(self, env: Path) -> None:
        record = {"url": "file:///home/me/project", "dir_info": {}}
        file = write(env / SITE / "mine-1.0.dist-info" / "direct_url.json", json.dumps(record))
        relocate(env, OLD)
        assert json.loads(file.read_text()) == record

    def test_an_import_hook_inside_is_rewritten_and_works(self, env: Path) -> None:
        write(env / "src" / "mine" / "__init__.py", "value = 42\n")
        finder = write(
            env / SITE / "__editable___mine_1_0_finder.py",
            f"# {OLD}\nMAPPING: dict[str, str] = {{'ü': 'x', 'mine': '{OLD}/src/mine'}}\n"
            "def install():\n    import sys\n    sys.path.append(MAPPING['mine'].rpartition('/')[0])\n",
        )
        write(
            env / SITE / "__editable__.mine.pth",
            "import __editable___mine_1_0_finder; __editable___mine_1_0_finder.install()\n",
        )
        relocate(env, OLD)
        assert ascii(f"{env}/src/mine") in finder.read_text()
        done = subprocess.run([python_of(env), "-c", "import mine; print(mine.value)"], capture_output=True, text=True)
        assert done.stdout == "42\n", done.stderr

    def test_an_import_hook_outside_is_refused_by_name(self, env: Path) -> None:
        write(
            env / SITE / "__editable___mine_1_0_finder.py",
            "MAPPING = {'mine': '/home/me/mine'}\nNAMESPACES = {'n': ['/home/me/n']}\n",
        )
        with pytest.raises(NotReady) as caught:
            relocate(env, OLD)
        assert "__editable___mine_1_0_finder.py: /home/me/mine" in str(caught.value)
        assert "__editable___mine_1_0_finder.py: /home/me/n" in str(caught.value)

    def test_what_cannot_be_read_leads_nowhere(self, env: Path) -> None:
        write(env / SITE / "__editable___broken_finder.py", "MAPPING = {'/home/me': \n")
        write(env / SITE / "broken-1.0.dist-info" / "direct_url.json", "{")
        assert len(relocate(env, OLD)) == 4
