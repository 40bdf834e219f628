"""Environments from requirements and locks, made by the real uv: what it is given, what it says, and what stays as it was."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import MultihostError, NotReady, Passing, UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import interpreter, uv
from pytest_multihost_env.provision.builders import PylockBuilder, RequirementsBuilder, UvLockBuilder
from tests.environments import missing
from tests.wheels import sha256, telling_sdist, wheel

UV = uv.program()


@pytest.fixture
def shop(special: Path) -> Path:
    """A directory with wheels, and a requirements file that finds nothing elsewhere."""
    (special / "wheels").mkdir()
    return special


def requirements(shop: Path, *lines: str) -> Path:
    file = shop / "requirements.txt"
    file.write_text("\n".join(["--no-index", "--find-links ./wheels", *lines, ""]))
    return file


def ensure(source: Path, **more: object) -> Generation:
    request = provision.ProvisionRequest(source, source.parent / "shared" / "python_env", **more)  # type: ignore[arg-type]
    return provision.ensure(request, notify=print)


def say(made: Generation, code: str) -> str:
    done = subprocess.run([made.python, "-c", code], env={}, cwd="/", capture_output=True, text=True, check=True)
    return done.stdout.strip()


def refused(source: Path, **more: object) -> MultihostError:
    """Return the error of a build that fails, after a look at what it left: nothing but a record of the failure."""
    with pytest.raises(NotReady) as caught:
        ensure(source, **more)
    left = [path.name for path in source.parent.glob("shared/.python_env.d/v1/*/att/*")]
    assert [name for name in left if not name.endswith(".json")] == []
    assert not (source.parent / "shared" / "python_env").is_symlink()
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return caught.value


# From each kind -------------------------------------------------------------------------------------------------------


def test_a_requirements_file_becomes_an_environment_of_its_own(shop: Path) -> None:
    wheel(shop / "wheels", "tiny", "1.5", requires=("dep>=1",), script="say-tiny")
    wheel(shop / "wheels", "tiny", "2.0")
    wheel(shop / "wheels", "dep", "1.0")
    made = ensure(requirements(shop, "tiny<2  # not 2"))
    assert say(made, "import sys, tiny, dep; print(tiny.version, dep.version, sys.base_prefix)") == (
        f"1.5 1.0 {made.path / 'py'}"
    )
    script = subprocess.run([made.path / "bin" / "say-tiny"], env={}, capture_output=True, text=True, check=True)
    assert script.stdout == "tiny 1.5\n"
    assert {path.lstat().st_nlink for path in made.path.rglob("*") if path.is_file()} == {1}  # row 27
    assert ensure(shop / "requirements.txt").reused
    requirements(shop, "tiny==2.0")
    assert ensure(shop / "requirements.txt").path != made.path


def test_a_lock_of_the_standard_s_format(shop: Path) -> None:
    file = wheel(shop / "wheels")
    lock = shop / "pylock.toml"
    lock.write_text(_pylock(file, sha256(file)))
    made = ensure(lock)
    assert say(made, "import tiny; print(tiny.version)") == "1.0"


def _pylock(file: Path, digest: str) -> str:
    return (
        'lock-version = "1.0"\ncreated-by = "tests"\n[[packages]]\nname = "tiny"\nversion = "1.0"\n'
        f'wheels = [{{ path = "wheels/{file.name}", hashes = {{ sha256 = "{digest}" }} }}]\n'
    )


def _project(shop: Path, *dependencies: str) -> Path:
    index = '[[tool.uv.index]]\nname = "shop"\nurl = "./wheels"\nformat = "flat"\ndefault = true\n'
    (shop / "pyproject.toml").write_text(
        f'[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {json.dumps(dependencies)}\n'
        f'[dependency-groups]\ndev = ["dep"]\n{index}'
    )
    subprocess.run([UV, "lock", "--quiet"], cwd=shop, check=True, env={**os.environ, "UV_NO_PROGRESS": "1"})
    return shop / "uv.lock"


def test_a_lock_of_uv_brings_the_default_groups_and_not_the_project(shop: Path) -> None:
    wheel(shop / "wheels", "tiny")
    wheel(shop / "wheels", "dep")
    made = ensure(_project(shop, "tiny"))
    assert say(made, "import tiny, dep; print(tiny.version, dep.version)") == "1.0 1.0"
    names = sorted(path.name for path in made.path.glob("lib/python3*/site-packages/*.dist-info"))
    assert not [name for name in names if name.startswith("mine")]
    with (shop / "pyproject.toml").open("a") as file:
        file.write("[tool.other]\nchanged = true\n")
    assert ensure(shop / "uv.lock").reused


def test_from_the_real_index(shop: Path) -> None:
    file = shop / "requirements.txt"
    file.write_text("six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n")
    try:
        made = ensure(file)
    except Passing as error:
        missing(f"PyPI is out of reach: {error}")
    assert say(made, "import six; print(six.__version__)") == "1.17.0"


def test_more_requirements_go_on_top_of_any_source_exactly_as_they_stand(shop: Path) -> None:
    source = shop / "venv"
    venv.create(source, with_pip=False, symlinks=True)
    wheel(shop / "wheels", "tiny", "1.0", requires=("gone>=9",))
    first = requirements(shop, "tiny")
    made = ensure(source, requirements=(first,), directory=shop)
    assert say(made, "import tiny; print(tiny.version)") == "1.0"
    assert ensure(source, requirements=(first,), directory=shop).reused
    wheel(shop / "wheels", "dep")
    requirements(shop, "tiny", "dep")
    assert ensure(source, requirements=(first,), directory=shop).path != made.path
    requirements(shop, f"tiny==1.0 --hash=sha256:{'0' * 64}")
    with pytest.raises(NotReady, match="ash mismatch"):
        ensure(source, requirements=(first,), directory=shop)
    requirements(shop, f"tiny==1.0 --hash=sha256:{sha256(shop / 'wheels' / 'tiny-1.0-py3-none-any.whl')}", "dep==1.0")
    with pytest.raises(NotReady, match="hash"):
        ensure(source, requirements=(first,), directory=shop)


# Row 49: what uv is given ---------------------------------------------------------------------------------------------


def test_a_build_gets_what_is_listed_and_no_secret(
    shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secrets = {
        name: f"canary-{name}"
        for name in ("HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "UV_PUBLISH_TOKEN", "MY_VAR")
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UV_CACHE_DIR", str(cache))
    monkeypatch.setenv("UV_LINK_MODE", "symlink")
    sdist = telling_sdist(shop)
    made = ensure(requirements(shop, f"./{sdist.name}"))
    told = json.loads(say(made, "import telling; print(telling.environ)"))
    assert not [name for name, value in told.items() if "canary" in value]
    assert told["UV_CACHE_DIR"] == str(cache)
    assert told["UV_LINK_MODE"] == "copy"
    assert told["UV_PYTHON_DOWNLOADS"] == "never"
    assert Path(told["UV_PYTHON_INSTALL_DIR"]).is_absolute()
    assert list(cache.iterdir())


def test_where_nothing_can_be_cached_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert uv.environment({"HOME": "/home/me"})["UV_NO_CACHE"] == "1"
    given = uv.environment({"HOME": "/home/me", "XDG_CACHE_HOME": "/scratch"})
    assert given["UV_CACHE_DIR"] == "/scratch/uv"


def test_without_uv_every_place_is_named(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "/nowhere:/opt/nothing")
    error = refused(requirements(shop))
    assert "uv on PATH: /nowhere:/opt/nothing\n" in str(error)
    assert "the package uv" in str(error)
    assert isinstance(error, Passing), "once it is installed, it is found at once"
    assert "pip install 'pytest-multihost-env[uv]'" in str(error)


def test_the_python_is_a_decision(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, builder = requirements(shop), RequirementsBuilder()
    own = interpreter.own()
    assert builder.using(str(own.path)).fingerprint(file) == builder.fingerprint(file)
    short = f"{sys.version_info.major}.{sys.version_info.minor}"
    monkeypatch.setenv("PATH", f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}")
    assert interpreter.chosen(short).identity == own.identity
    for text in ("3.99", "/nowhere/python", "no-such-python"):
        with pytest.raises(UsageProblem, match="no Python"):
            ensure(file, python=text)
    with pytest.raises(UsageProblem, match="no Python that runs"):
        ensure(file, python="/bin/true")
    assert not (shop / "shared").exists()
    source = shop / "venv"
    venv.create(source, with_pip=False, symlinks=True)
    with pytest.raises(UsageProblem, match="brings its own"):
        ensure(source, python="3.11")


def test_another_python_than_ours(shop: Path) -> None:
    others = [path for path in map(Path, ("/usr/bin/python3", "/usr/local/bin/python3")) if path.exists()]
    other = next((path for path in others if interpreter.chosen(str(path)) != interpreter.own()), None)
    if other is None:
        pytest.skip("this machine has one Python")
    wheel(shop / "wheels")
    version = subprocess.run([other, "-c", "import sys; print(sys.version)"], capture_output=True, text=True)
    made = ensure(requirements(shop, "tiny"), python=str(other))
    assert say(made, "import sys, tiny; print(sys.version)") == version.stdout.strip()


# Row 50: what fails leaves what was there ------------------------------------------------------------------------------


def test_a_failing_build_leaves_the_environment_that_stands(shop: Path) -> None:
    wheel(shop / "wheels")
    made = ensure(requirements(shop, "tiny"))
    requirements(shop, "tiny==9")
    with pytest.raises(NotReady) as caught:
        ensure(shop / "requirements.txt")
    assert "tiny==9" in caught.value.details["uv said"]  # the solver's own words
    assert "relax" in str(caught.value.hint)
    assert (shop / "shared" / "python_env").samefile(made.path)
    assert say(made, "import tiny; print(tiny.version)") == "1.0"


def test_a_file_with_another_content_than_locked_is_refused(shop: Path) -> None:
    file = wheel(shop / "wheels")
    error = refused(requirements(shop, f"tiny==1.0 --hash=sha256:{'0' * 64}"))
    assert "ash mismatch" in str(error)
    assert "hashes are of" in str(error.hint)
    lock = shop / "pylock.toml"
    lock.write_text(_pylock(file, "0" * 64))
    assert "ash mismatch" in str(refused(lock))


def test_where_one_has_a_hash_all_need_one(shop: Path) -> None:
    file = wheel(shop / "wheels", "tiny")
    wheel(shop / "wheels", "dep")
    error = refused(requirements(shop, f"tiny==1.0 --hash=sha256:{sha256(file)}", "dep==1.0"))
    assert "hash" in str(error)


def test_no_wheel_for_this_python(shop: Path) -> None:
    wheel(shop / "wheels", tag="cp35-cp35m-win32")
    error = refused(requirements(shop, "tiny"))
    assert "wheel" in str(error)
    assert "another Python" in str(error.hint)


def test_a_build_that_fails_is_quoted(shop: Path) -> None:
    sdist = telling_sdist(shop, "raise RuntimeError('a compiler is missing')")
    error = refused(requirements(shop, f"./{sdist.name}"))
    assert "a compiler is missing" in str(error)
    assert "wheel" in str(error.hint)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as listener:  # bound and not listening: nobody else gets it, and it refuses
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def test_an_index_out_of_reach_may_come_back_and_gives_no_account_away(
    shop: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    file = shop / "requirements.txt"
    file.write_text(f"--index-url http://someone:canary-password@127.0.0.1:{closed_port}/simple\ntiny\n")
    error = refused(file)
    assert isinstance(error, Passing)
    assert "UV_DEFAULT_INDEX" in str(error.hint)
    assert "canary" not in str(error)
    assert f"127.0.0.1:{closed_port}" in str(error)


def test_accounts_are_blanked_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX_SHOP_PASSWORD", "canary-word")
    text = uv.redacted("see https://me:canary@host/x, https://canary@host and canary-word; http://host/@x stays")
    assert text == "see https://***@host/x, https://***@host and ***; http://host/@x stays"


# Files that cannot be used: nothing is created ------------------------------------------------------------------------


def unusable(source: Path, **more: object) -> UsageProblem:
    with pytest.raises(UsageProblem) as caught:
        ensure(source, **more)
    assert not (source.parent / "shared").exists()
    assert caught.value.hint
    return caught.value


def test_a_mistake_in_a_requirements_file_creates_nothing(shop: Path) -> None:
    assert unusable(requirements(shop, "numpy ==")).where == f"{shop / 'requirements.txt'}:3"
    assert unusable(requirements(shop, "-r gone.txt")).where == f"{shop / 'requirements.txt'}:3"
    source = shop / "venv"
    venv.create(source, with_pip=False, symlinks=True)
    assert "gone.txt" in str(unusable(source, requirements=(shop / "gone.txt",), directory=shop))


PYLOCKS = {
    "no TOML": ("lock-version = \n", "line 1"),
    "nothing": ("", "lock-version"),
    "a future version": ('lock-version = "9.0"\ncreated-by = "x"\npackages = []\n', "9.0"),
    "a package without a name": (
        'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nversion = "1"\n',
        "packages[0]",
    ),
    "a wheel without hashes": (
        'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "a"\nwheels = [{ path = "a-1-py3-none-any.whl" }]\n',
        "packages[0].wheels[0].hashes",
    ),
    "a directory": (
        'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "a"\ndirectory = { path = "./a" }\n',
        "packages[0].directory",
    ),
    "a wheel that is gone": (
        'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "a"\nwheels = [{ path = "a-1-py3-none-any.whl", hashes = { sha256 = "ab" } }]\n',
        "cannot be read",
    ),
}


@pytest.mark.parametrize("case", PYLOCKS)
def test_a_mistake_in_a_pylock_is_named_by_its_address(case: str, shop: Path) -> None:
    text, said = PYLOCKS[case]
    (shop / "pylock.toml").write_text(text)
    assert said in str(unusable(shop / "pylock.toml"))


def test_a_mistake_in_a_uv_lock_creates_nothing(shop: Path) -> None:
    wheel(shop / "wheels", "tiny")
    wheel(shop / "wheels", "dep")
    lock = _project(shop, "tiny")
    good = lock.read_text()
    lock.write_text(good.replace("[[package]]", "[[package]", 1))
    assert "TOML" in str(unusable(lock))
    lock.write_text(f'{good}\n[[package]]\nname = "near"\nversion = "1"\nsource = {{ editable = "../near" }}\n')
    assert "the directory ../near" in str(unusable(lock))
    lock.write_text(good)
    pylock = shop / "other.toml"
    pylock.write_text(_pylock(shop / "wheels" / "tiny-1.0-py3-none-any.whl", "0" * 64))
    assert "must be called pylock.toml" in str(unusable(pylock))
    lock.rename(shop / "other.lock")
    assert "must be called uv.lock" in str(unusable(shop / "other.lock"))
    (shop / "other.lock").rename(lock)
    (shop / "pyproject.toml").unlink()
    assert "no pyproject.toml" in str(unusable(lock))


def test_a_file_is_known_by_its_content_under_any_name(shop: Path) -> None:
    file = wheel(shop / "wheels", "tiny")
    wheel(shop / "wheels", "dep")
    names = {PylockBuilder: shop / "a.lock", RequirementsBuilder: shop / "b", UvLockBuilder: shop / "c.toml"}
    names[PylockBuilder].write_text(_pylock(file, sha256(file)))
    names[RequirementsBuilder].write_text("tiny==1.0\n")
    _project(shop, "tiny").rename(names[UvLockBuilder])
    for kind, path in names.items():
        willing = [other for other in names if other().refuses(path) is None]
        assert willing == [kind]
