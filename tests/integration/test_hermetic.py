"""Real virtual environments become trees that use nothing of this host, or are refused by name."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import ask, bytecode, elf, pyvenv
from pytest_multihost_env.provision.builders import VenvBuilder
from pytest_multihost_env.provision.bundle import Bundle, bundle_interpreter
from pytest_multihost_env.provision.hermetic import prove
from pytest_multihost_env.provision.overlay import add_missing
from pytest_multihost_env.provision.relocate import relocate
from tests.environments import missing

SYSTEM = Path("/usr/bin/python3.11")
PYTHONS = [os.path.realpath(sys.executable), str(SYSTEM)]
SPECIAL = "it's #1 ü"


def site_of(env: Path) -> Path:
    return next((env / "lib").glob("python3.*/site-packages"))


def make_source(python: str, top: Path) -> Path:
    """A virtual environment with a C extension, a console script and a package of its own; needs no network."""
    if not os.access(python, os.X_OK):
        missing(f"{python} is not installed")
    made = subprocess.run([python, "-m", "venv", "--without-pip", str(top)], capture_output=True, text=True)
    if made.returncode:
        missing(f"{python} cannot make virtual environments: {made.stderr}")
    add_missing(top, top / "bin" / "python", ["psutil", "Pygments"])
    (site_of(top) / "mine.py").write_text("import psutil\n\ndef main():\n    print('mine', psutil.Process().pid > 0)\n")
    tool = top / "bin" / "mine"
    tool.write_text(f"#!{top}/bin/python\nimport mine\nmine.main()\n")
    tool.chmod(0o755)
    return top


def provision(source: Path, env: Path) -> tuple[Bundle, tuple[str, ...]]:
    assert VenvBuilder().refuses(source) is None
    VenvBuilder().build(source, env, Work())
    bundle = bundle_interpreter(env)
    relocate(env, source)
    added = add_missing(env, env / "bin" / "python", ["pytest-multihost-env"])
    bytecode.complete(env, Work())
    return bundle, added


def run(*argv: str | Path, **environ: str) -> str:
    done = subprocess.run(argv, cwd="/", env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Made:
    """What the tests of one interpreter look at: made once, never changed."""

    def __init__(self, python: str, top: Path) -> None:
        self.source = make_source(python, top / "source")
        self.env = top / SPECIAL / "env"
        self.env.parent.mkdir()
        self.bundle, self.added = provision(self.source, self.env)
        self.proof = prove(self.env, modules=["psutil", "mine"], original=self.source)
        self.source.rename(top / "moved away")


@pytest.fixture(scope="module", params=PYTHONS, ids=["running", "system"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp("made"))


@pytest.fixture
def env(made: Made, tmp_path: Path) -> Path:
    """A tree that a test may spoil by adding, removing and replacing files (its files are links to the finished one)."""
    target = tmp_path / "spoiled"
    shutil.copytree(made.env, target, symlinks=True, copy_function=os.link)
    bundle_interpreter(target)
    relocate(target, made.env)
    return target


class TestTree:
    def test_it_is_a_virtual_environment_inside_itself(self, made: Made) -> None:
        assert made.proof.prefix == made.env
        assert made.proof.base_prefix == made.env / "py"
        assert made.proof.python == made.bundle.version

    def test_only_libraries_of_the_host_family_come_from_the_host(self, made: Made) -> None:
        assert "libc.so.6" in made.proof.libraries_outside
        assert all(elf.stays_on_host(name) for name in made.proof.libraries_outside)

    def test_originals_were_out_of_sight(self, made: Made) -> None:
        if not subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "true"], capture_output=True
        ).returncode:
            assert made.source in made.proof.hidden

    def test_python_and_console_scripts_run_without_the_source(self, made: Made) -> None:
        assert not made.source.exists()
        assert run(made.env / "bin" / "python", "-c", "import ssl, sqlite3, ctypes; print('good')") == "good\n"
        assert run(made.env / "bin" / "mine") == "mine True\n"
        assert run(made.env / "bin" / "pytest", "--version").startswith("pytest ")
        assert run(made.env / "bin" / "pygmentize", "-V").startswith("Pygments")

    def test_pythonhome_is_not_needed_and_a_false_search_path_does_not_reach_the_interpreter(
        self, made: Made, tmp_path: Path
    ) -> None:
        # LD_LIBRARY_PATH with an empty file of each library's name: whoever looks there first cannot start
        for name in made.bundle.libraries:
            (tmp_path / name).touch()
        code = "import ssl, sqlite3, ctypes; print('good')"
        assert run(made.env / "bin" / "python", "-c", code, LD_LIBRARY_PATH=str(tmp_path)) == "good\n"

    def test_activation_finds_this_python(self, made: Made) -> None:
        script = '. "$0/bin/activate" && command -v python && python -c "import sys; print(sys.prefix)"'
        assert run("/bin/sh", "-c", script, made.env, PATH="/usr/bin:/bin") == f"{made.env}/bin/python\n{made.env}\n"

    def test_links_are_relative_and_lead_to_the_bundled_program(self, made: Made) -> None:
        program = f"python{'.'.join(made.bundle.version.split('.')[:2])}"
        for name in ("python", "python3", program):
            assert str((made.env / "bin" / name).readlink()) == f"../py/bin/{program}"
        outside = [
            path for path in made.env.rglob("*") if path.is_symlink() and not path.resolve().is_relative_to(made.env)
        ]
        assert outside == []

    def test_pyvenv_cfg_is_absolute_and_keeps_other_keys(self, made: Made) -> None:
        config = pyvenv.read(made.env / "pyvenv.cfg")
        assert config["home"] == f"{made.env}/py/bin"
        assert config["executable"].startswith(f"{made.env}/py/bin/python3")
        assert config["command"].endswith(f" -m venv {made.env}")
        assert config["include-system-site-packages"] == "false"
        assert config["version"] == made.bundle.version

    def test_only_a_run_time_was_copied(self, made: Made) -> None:  # row 40: of a system's Python too
        assert made.bundle.bytes < 150 << 20
        library = next((made.env / "py" / "lib").glob("python3.*"))
        assert not {"site-packages", "dist-packages", "test", "idlelib", "tkinter"} & {
            path.name for path in library.iterdir()
        }
        assert sorted(path.name for path in (made.env / "py").iterdir() if path.name != "include") == ["bin", "lib"]
        assert not any(
            path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID) for path in made.env.rglob("*") if path.is_file()
        )

    def test_sysconfig_tells_the_new_place(self, made: Made) -> None:
        code = "import sysconfig as s, json; print(json.dumps([s.get_path('stdlib'), s.get_path('purelib'), s.get_config_vars()]))"
        stdlib, purelib, variables = json.loads(run(made.env / "bin" / "python", "-c", code))
        assert stdlib.startswith(f"{made.env}/py/lib/python3")
        assert purelib == str(site_of(made.env))
        if str(made.bundle.base) != "/usr":
            assert [name for name, value in variables.items() if f"{made.bundle.base}/" in str(value)] == []

    def test_every_module_has_valid_bytecode(self, made: Made) -> None:  # row 46, R5
        tag, magic = ask.interpreter(made.env / "bin" / "python", ["bytecode"])
        assert list(bytecode.lacking(made.env, tag, bytes.fromhex(magic))) == []

    def test_no_library_searches_where_the_interpreter_came_from(self, made: Made) -> None:
        if str(made.bundle.base) == "/usr":
            pytest.skip("a system's libraries name no search path")
        files = [
            path
            for path in (made.env / "py").rglob("*")
            if (path.is_file() and ".so" in path.name) or path.parent.name == "bin"
        ]
        paths = run(elf.patchelf(), "--print-rpath", *[path for path in files if path.is_file()], PATH="/usr/bin:/bin")
        assert all(line.startswith("$ORIGIN") for line in paths.split())

    def test_a_finished_tree_is_a_source_and_needs_no_second_interpreter(self, made: Made, env: Path) -> None:
        again = bundle_interpreter(env)
        assert again == Bundle(version=made.bundle.version, base=env / "py")
        assert prove(env, modules=["psutil", "mine"]).base_prefix == env / "py"

    @pytest.mark.parametrize("name", ["a space", "ümläut", "x" * 200, 'dou"ble $HOME `id`'])
    def test_any_place_will_do(self, made: Made, tmp_path: Path, name: str) -> None:
        target = tmp_path / name / "env"
        target.parent.mkdir()
        VenvBuilder().build(made.env, target, Work())
        bundle_interpreter(target)
        relocate(target, made.env)
        proof = prove(target, modules=["psutil", "mine"], original=made.env)  # R1: with the place it came from hidden
        assert (proof.prefix, proof.base_prefix) == (target, target / "py")
        assert made.env in proof.hidden or proof.in_sight
        assert run(target / "bin" / "mine") == "mine True\n"
        assert run(target / "bin" / "pytest", "--version").startswith("pytest ")


class TestRefusals:
    def test_a_silent_fallback_to_another_standard_library_is_found(self, env: Path) -> None:
        config = pyvenv.read(env / "pyvenv.cfg")
        pyvenv.write(env / "pyvenv.cfg", {**config, "home": str(Path(os.path.realpath(sys.executable)).parent)})
        with pytest.raises(NotReady) as caught:
            prove(env)
        assert "sys.base_prefix is " in str(caught.value)

    def test_a_relative_home_is_found(self, env: Path) -> None:
        config = pyvenv.read(env / "pyvenv.cfg")
        pyvenv.write(env / "pyvenv.cfg", {**config, "home": "py/bin"})
        with pytest.raises(NotReady, match=r"No module named 'encodings'|sys\.base_prefix is"):
            prove(env)

    def test_without_pyvenv_cfg_it_is_no_virtual_environment(self, env: Path) -> None:
        (env / "pyvenv.cfg").unlink()
        with pytest.raises(NotReady, match="is no virtual environment"):
            prove(env)

    def test_a_library_of_this_host_is_named(self, env: Path, special: Path) -> None:
        library = special / "libplanted.so.1"
        need = elf.needs([Path(os.path.realpath(sys.executable))])
        shutil.copy(
            next(iter((env / "py" / "lib").glob("libz.so*")), None)
            or next(iter(next(iter(need.values())).found.values())),
            library,
        )
        (site_of(env) / "planted.py").write_text(f"import ctypes\nctypes.CDLL({str(library)!r})\n")
        with pytest.raises(NotReady) as caught:
            prove(env, modules=["planted"])
        assert f"library {library} is mapped" in str(caught.value)
        assert "remedy: " in str(caught.value)

    def test_a_module_outside_is_named(self, env: Path, special: Path) -> None:
        (special / "elsewhere.py").touch()
        (site_of(env) / "a.pth").write_text(f"{special}\n")
        with pytest.raises(NotReady) as caught:
            prove(env, modules=["elsewhere"])
        assert f"module elsewhere is {special}/elsewhere.py" in str(caught.value)
        assert f"sys.path holds {special}" in str(caught.value)

    def test_a_module_that_cannot_be_imported_is_named_with_its_reason(self, env: Path) -> None:
        (site_of(env) / "broken.py").write_text("1 / 0\n")
        with pytest.raises(NotReady) as caught:
            prove(env, modules=["broken", "not_there"])
        assert "import broken: ZeroDivisionError" in str(caught.value)
        assert "import not_there: No module named 'not_there'" in str(caught.value)

    def test_a_missing_standard_module_counts_when_the_original_had_it(self, made: Made, env: Path) -> None:
        for module in (env / "py").rglob("_sqlite3*.so"):
            module.unlink()
        with pytest.raises(NotReady, match="import sqlite3: "):
            prove(env, original=made.env)

    def test_a_program_that_never_ends_is_ended(self, env: Path) -> None:
        (site_of(env) / "slow.py").write_text("import signal\nsignal.pause()\n")
        with pytest.raises(NotReady, match="no answer within 1 s"):
            prove(env, modules=["slow"], timeout=1)

    def test_a_dangling_interpreter_is_named_with_its_remedy(self, env: Path) -> None:  # row 39
        (env / "bin" / "python").unlink()
        (env / "bin" / "python").symlink_to("/nowhere/bin/python3.11")
        with pytest.raises(NotReady, match=r"leads to /nowhere/bin/python3\.11, which does not exist") as caught:
            bundle_interpreter(env)
        assert "venv --clear" in str(caught.value)

    def test_a_library_that_the_interpreter_misses_is_named(self, env: Path, special: Path) -> None:
        program = next(path for path in (env / "py" / "bin").iterdir() if not path.is_symlink())
        needed = elf.needs([program])[program].found
        names = [name for name, path in needed.items() if path.startswith(str(env)) or "/../lib/" in path]
        if not names:
            pytest.skip("this interpreter needs no library but the host's")
        # under a name of its own, which no host has
        lost = env / "py" / "lib" / "liblost.so.1"
        (env / "py" / "lib" / names[0]).rename(lost)
        patched = program.with_name("patched")
        shutil.copy2(program, patched)
        run(elf.patchelf(), "--replace-needed", names[0], lost.name, patched)
        patched.replace(program)
        run(program, "-m", "venv", "--without-pip", special / "venv")
        lost.unlink()
        with pytest.raises(NotReady, match=r"needs the shared library liblost\.so\.1, which is not found") as caught:
            bundle_interpreter(special / "venv")
        assert "remedy: " in str(caught.value)


def test_copied_interpreters_are_bundled_too(special: Path) -> None:
    """`venv --copies` puts the program inside, but not what it needs."""
    made = subprocess.run(
        [os.path.realpath(sys.executable), "-m", "venv", "--without-pip", "--copies", special / "venv"],
        capture_output=True,
    )
    assert made.returncode == 0
    bundle_interpreter(special / "venv")
    code = "import sys; print(sys.base_prefix)"
    assert run(special / "venv" / "bin" / "python", "-c", code) == f"{special}/venv/py\n"


def test_a_program_that_cannot_be_started_is_named(special: Path) -> None:
    with pytest.raises(NotReady, match="cannot be started"):
        ask.interpreter(special / "missing", ["runtime"])
