"""Editable installs that real back ends made: refused by name outside, rewritten inside, allowed by name (row 45)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import Generation
from tests.environments import make

TOOLS = [
    "setuptools>=70",
    "wheel",
    "hatchling",
    "editables",
    "flit_core",
    "flit",
    "scikit-build-core",
    "cmake",
    "ninja",
]
TOOLS += ["meson-python"]

SETUPTOOLS = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1"
"""
FILES = {
    "p_finder": {  # a mapping in an import hook
        "pyproject.toml": SETUPTOOLS + '[tool.setuptools]\npackages = ["{name}"]\n',
        "{name}/__init__.py": "",
    },
    "p_path": {  # a .pth file
        "pyproject.toml": SETUPTOOLS + '[tool.setuptools.packages.find]\nwhere = ["src"]\n',
        "src/{name}/__init__.py": "",
    },
    "p_hatch": {
        "pyproject.toml": SETUPTOOLS.replace("setuptools.build_meta", "hatchling.build").replace(
            "setuptools", "hatchling"
        ),
        "{name}/__init__.py": "",
    },
    "p_flit": {
        "pyproject.toml": SETUPTOOLS.replace("setuptools.build_meta", "flit_core.buildapi").replace(
            "setuptools", "flit_core"
        )
        + 'description = "x"\n',
        "{name}/__init__.py": "",
    },
    "p_scikit": {
        "pyproject.toml": SETUPTOOLS.replace("setuptools.build_meta", "scikit_build_core.build").replace(
            "setuptools", "scikit-build-core"
        ),
        "src/{name}/__init__.py": "",
        "CMakeLists.txt": "cmake_minimum_required(VERSION 3.15)\nproject({name} LANGUAGES NONE)\n"
        'file(WRITE "${{CMAKE_BINARY_DIR}}/x.txt" "x")\ninstall(FILES "${{CMAKE_BINARY_DIR}}/x.txt" DESTINATION {name})\n',
    },
    "p_meson": {
        "pyproject.toml": SETUPTOOLS.replace("setuptools.build_meta", "mesonpy").replace("setuptools", "meson-python"),
        "{name}/__init__.py": "",
        "meson.build": "project('{name}', version: '1')\npy = import('python').find_installation()\n"
        "py.install_sources('{name}/__init__.py', subdir: '{name}')\n",
    },
}
"""A project for each way in which a back end leads an import to the project."""


def project(top: Path, name: str) -> Path:
    for file, text in FILES[name].items():
        path = top / name / file.format(name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(name=name) or f"value = {name!r}\n")
    return top / name


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """`special` without the quote, which Meson cannot take."""
    path = tmp_path / "a place #1 ü"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("editable") / "tools", *TOOLS)


def source(tools: Path, top: Path, *, inside: bool = False, names: Collection[str] = tuple(FILES)) -> Path:
    """A virtual environment with all of these projects installed editable."""
    env = top / "source"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True, capture_output=True)
    argv = [tools / "bin" / "python", "-m", "pip", "--python", env / "bin" / "python", "install", "--quiet"]
    argv += ["--no-build-isolation", "--no-deps", "--no-index"]
    for name in names:
        argv += ["-e", project(env if inside else top / "projects", name)]
    # What builds runs with the tools' packages and programs, what is installed goes into the environment.
    site = next((tools / "lib").glob("python3*/site-packages"))
    environ = {**os.environ, "PYTHONPATH": str(site), "PATH": f"{tools / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    return env


def ensure(env: Path, top: Path, *allowed: str) -> tuple[Generation, list[str]]:
    told: list[str] = []
    request = provision.ProvisionRequest(env, top / "shared" / "env", allow_outside=allowed)
    return provision.ensure(request, notify=told.append), told


def imported(made: Generation, names: Collection[str] = tuple(FILES)) -> dict[str, str]:
    code = f"import json, {', '.join(names)}\nprint(json.dumps({{m.value: m.__file__ for m in [{', '.join(names)}]}}))"
    done = subprocess.run([made.python, "-c", code], capture_output=True, text=True, env={}, cwd="/", timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_outside_it_is_refused_by_name_or_allowed_by_name(tools: Path, place: Path) -> None:
    env = source(tools, place)
    names = [name.upper().replace("_", "-") for name in FILES]
    with pytest.raises(NotReady, match="imports code from outside of itself") as caught:
        ensure(env, place, *names[1:])
    text = str(caught.value)
    assert f"p_finder-1: editable, in {place}/projects/p_finder" in text
    assert text.endswith("--multihost-allow-outside=p_finder")
    assert "p_path" not in text
    assert not (place / "shared" / "env").exists()

    made, told = ensure(env, place, *names)
    for name, file in imported(made).items():
        assert file.startswith(f"{place}/projects/{name}/")
        assert [line for line in told if line.startswith(f"{name} is imported from outside of the environment, as ")]
        assert any(file.startswith(path) for path in made.outside)
    found = provision.verify(place / "shared" / "env")
    assert found, found
    assert "as allowed" in found.proof
    again, _ = ensure(env, place, *reversed(list(FILES)))
    assert (again.path, again.reused, again.outside) == (made.path, True, made.outside)


def test_each_back_end_is_refused_by_name(tools: Path, tmp_path: Path) -> None:
    env = source(tools, tmp_path)
    with pytest.raises(NotReady) as caught:
        ensure(env, tmp_path)
    for name in FILES:
        assert f"{name}-1: editable, in {tmp_path}/projects/{name}" in str(caught.value)
    assert str(caught.value).endswith(f"--multihost-allow-outside={', '.join(sorted(FILES))}")


def test_inside_it_is_rewritten_and_works_where_it_is_now(tools: Path, place: Path) -> None:
    names = FILES.keys() - {"p_meson"}
    env = source(tools, place, inside=True, names=names)
    made, _ = ensure(env, place)
    env.rename(place / "gone")
    assert made.outside == ()
    for name, file in imported(made, names).items():
        assert file.startswith(f"{made.path}/{name}/")


def test_a_program_outside_that_an_import_runs_is_refused_by_name(tools: Path, place: Path) -> None:
    """meson-python builds anew on import, with the ninja that it was installed by."""
    env = source(tools, place, inside=True, names=["p_meson"])
    with pytest.raises(NotReady, match="imports code from outside of itself") as caught:
        ensure(env, place)
    assert f"_p_meson_editable_loader.py: {tools}/bin/ninja" in str(caught.value)
