"""An `environment.yml` becomes an environment: a real solve and a real installation, from a channel made of files."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import MultihostError, NotReady, Passing, UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import environment_yml, failures, hermetic
from pytest_multihost_env.provision.builders import CondaBuilder, conda
from tests import channel
from tests.wheels import wheel

pytest.importorskip("rattler", reason="py-rattler is not installed")

PYTHON = f"python={channel.SHORT}"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a test has its `environment.yml`, and its target."""

    top: Path
    packages: Path

    def write(self, *dependencies: str, channels: str | None = None, rest: str = "") -> Path:
        lines = ["name: x", f"channels: ['{channels or self.packages.as_uri()}']", "dependencies:"]
        lines += [f"  - {text}" for text in dependencies]
        (self.top / "environment.yml").write_text("\n".join([*lines, rest, ""]))
        return self.top / "environment.yml"

    def ensure(self, source: Path, **more: object) -> Generation:
        request = provision.ProvisionRequest(source, self.top / "shared" / "python_env", **more)  # type: ignore[arg-type]
        return provision.ensure(request, notify=print)

    def refused(self, source: Path, **more: object) -> MultihostError:
        with pytest.raises(NotReady) as caught:
            self.ensure(source, **more)
        assert [p for p in self.top.glob("shared/.python_env.d/v1/*/att/*") if p.suffix != ".json"] == []
        assert not (self.top / "shared" / "python_env").is_symlink()
        assert caught.value.hint
        return caught.value


@pytest.fixture
def place(special: Path, conda_channel: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(special / "cache"))
    return Place(special, conda_channel)


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, env={}, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def made(conda_channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Generation]]:
    top = tmp_path_factory.mktemp("made") / "it's #1 ü"
    (top / "wheels").mkdir(parents=True)
    wheel(top / "wheels", "tiny", requires=("dep",), script="say-tiny")
    wheel(top / "wheels", "dep")
    (top / "requirements-pip.txt").write_text("--no-index\n--find-links wheels\nextra==1.0\n")
    wheel(top / "wheels", "extra", requires=("not-there",))
    place = Place(top, conda_channel)
    before = os.environ.copy()
    os.environ["RATTLER_CACHE_DIR"] = str(top / "cache")
    source = place.write(PYTHON, "condaling", "pip:\n    - --no-index\n    - --find-links ./wheels\n    - tiny")
    yield place, place.ensure(source, requirements=(top / "requirements-pip.txt",), directory=top)
    os.environ.clear()
    os.environ.update(before)


def test_packages_pip_part_and_extra_requirements_are_there(made: tuple[Place, Generation]) -> None:
    _, generation = made
    code = "import condaling, tiny, dep, extra, sys; print(condaling.version, sys.prefix, sys.base_prefix, sep='\\n')"
    assert run(generation.python, "-c", code).splitlines() == [
        "1.0",
        str(generation.path),
        str(generation.path / "py"),
    ]
    assert run(generation.path / "bin" / "say-conda") == f"1.0 {generation.path}"
    assert run(generation.path / "bin" / "say-tiny") == "tiny 1.0"


def test_it_is_proven_like_any_other_and_verifies(made: tuple[Place, Generation]) -> None:
    place, generation = made
    proof = hermetic.prove(generation.path)
    assert proof.base_prefix == generation.path / "py"
    assert provision.verify(place.top / "shared" / "python_env")


def test_nothing_is_linked_to_the_cache(made: tuple[Place, Generation]) -> None:
    place, generation = made
    files = [path for path in generation.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.stat().st_nlink for path in files} == {1}
    for path in generation.path.rglob("*"):
        if path.is_symlink():
            assert not path.readlink().is_absolute(), path
            assert path.resolve().is_relative_to(generation.path)
    assert any((place.top / "cache" / "pkgs").iterdir())


def test_it_is_used_again_until_the_file_says_something_else(made: tuple[Place, Generation]) -> None:
    place, generation = made
    more = {"requirements": (place.top / "requirements-pip.txt",), "directory": place.top}
    source = place.top / "environment.yml"
    text = source.read_text()
    source.write_text(f"# a comment\n{text}".replace("name: x", "name: another"))
    assert place.ensure(source, **more).path == generation.path
    builder, before = CondaBuilder(), CondaBuilder().fingerprint(source)
    for changed in (text.replace("condaling", "condaling >=1"), text.replace("- tiny", "- tiny ==1.0")):
        source.write_text(changed)
        assert builder.fingerprint(source) != before
    source.write_text(text)
    os.environ["CONDA_OVERRIDE_CUDA"] = "12.4"
    assert builder.fingerprint(source) != before
    del os.environ["CONDA_OVERRIDE_CUDA"]
    assert builder.fingerprint(source) == before


# What fails -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_solved_is_told_in_the_solver_s_words(place: Place) -> None:
    error = place.refused(place.write(PYTHON, "condaling >=2"))
    assert "python >=3.99" in error.details["rattler said"]
    assert failures.repeats(error)
    assert "no-such-package" in str(place.refused(place.write(PYTHON, "no-such-package")))


def test_a_package_that_is_damaged_is_refused(place: Place) -> None:
    own = place.top / "channel"
    shutil.copytree(place.packages, own)
    victim = own / "noarch" / "condaling-1.0-0.conda"
    victim.write_bytes(victim.read_bytes()[:-30] + bytes(30))
    error = place.refused(place.write(PYTHON, "condaling", channels="./channel"))
    assert "condaling-1.0-0.conda" in str(error)
    assert "not what its channel says" in str(error.hint)


def test_without_a_python_there_is_no_environment(place: Place) -> None:
    own = place.top / "channel"
    channel._noarch(own / "noarch", "1.0", [])
    (own / channel.SUBDIR).mkdir()
    for folder in own.iterdir():
        channel.index(folder)
    assert "add python" in str(place.refused(place.write("condaling", channels="./channel")))


def test_a_specification_that_is_none_is_named_with_its_line(place: Place) -> None:
    error = place.refused(place.write(PYTHON, "'numpy >=>2'"))
    assert "'numpy >=>2'" in error.what
    assert error.where == f"{place.top / 'environment.yml'}:5"


def test_a_channel_out_of_reach_may_come_back_and_gives_no_account_away(place: Place) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        url = f"http://me:canary-word@127.0.0.1:{port}/t/canary-token/x"
        error = place.refused(place.write(PYTHON, channels=url))
    assert isinstance(error, Passing)
    assert f"127.0.0.1:{port}" in str(error)
    assert "canary" not in str(error)


def test_the_pip_part_fails_like_any_requirements(place: Place) -> None:
    error = place.refused(place.write(PYTHON, "pip:\n    - --no-index\n    - tiny"))
    assert "tiny" in error.details["uv said"]


def test_without_rattler_the_extra_is_named(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setattr(conda.sys, "executable", str(bare / "bin" / "python"))
    error = place.refused(place.write(PYTHON))
    assert "py-rattler is needed" in error.what
    assert "pytest-multihost-env[conda]" in str(error.hint)


# Files that cannot be used: nothing is created ------------------------------------------------------------------------

BAD = {
    "no YAML": ("channels: [a\n", "2", "not YAML"),
    "nothing": ("", "", "null"),
    "a list": ("- a\n", "1", "sequence"),
    "unknown key": ("name: x\nchanels: [a]\n", "2", "unknown key chanels"),
    "no channels": ("dependencies: [python]\n", "", "there are no channels"),
    "channels that are text": ("channels: a\ndependencies: []\n", "1", "channels is of type string"),
    "only nodefaults": ("channels: [nodefaults]\ndependencies: [python]\n", "", "no channels"),
    "no dependencies": ("channels: [a]\n", "", "dependencies is of type null"),
    "a number": ("channels: [a]\ndependencies:\n- python\n- 3.13\n", "4", "dependencies is of type float"),
    "another installer": ("channels: [a]\ndependencies:\n- npm:\n  - x\n", "3", "unknown key dependencies.npm"),
    "a requirement that is none": ("channels: [a]\ndependencies:\n- pip:\n  - a ==\n", "4", "no requirement"),
    "an editable": ("channels: [a]\ndependencies:\n- pip:\n  - -e .\n", "4", "link to its directory"),
    "an include that is gone": ("channels: [a]\ndependencies:\n- pip:\n  - -r gone.txt\n", "4", "gone.txt"),
    "variables": ("channels: [a]\ndependencies: [python]\nvariables: {A: b}\n", "3", "variables"),
    "a variable in a channel": ("channels: [https://x/$TOKEN]\ndependencies: [python]\n", "1", "none of yours"),
    "an object": ("channels: [a]\ndependencies: [!!python/object/apply:os.system ['true']]\n", "2", "dependencies is"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named_with_its_line_and_creates_nothing(case: str, place: Place) -> None:
    text, line, said = BAD[case]
    source = place.top / "environment.yml"
    source.write_text(text)
    with pytest.raises(UsageProblem, match=said) as caught:
        place.ensure(source)
    assert str(caught.value.where).startswith(str(source))
    assert not line or caught.value.where == f"{source}:{line}"
    assert caught.value.hint
    assert not (place.top / "shared").exists()


def test_channels_are_what_conda_calls_so(special: Path) -> None:
    source = special / "environment.yml"
    source.write_text("channels: [conda-forge, defaults, nodefaults, ./mine]\ndependencies: [python]\n")
    assert environment_yml.read(source).channels == (
        "conda-forge",
        "https://repo.anaconda.com/pkgs/main",
        "https://repo.anaconda.com/pkgs/r",
        (special / "mine").resolve().as_uri(),
    )


# Packed by conda-pack (row 97) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [False, True], ids=["no directory around it", "one directory around it"])
def test_what_conda_pack_packed_is_a_source(place: Place, around: bool) -> None:
    installed, packed = place.top / "installed", place.top / "packed"
    wish = environment_yml.read(place.write(PYTHON, "condaling"))
    conda._install(wish, place.top / "environment.yml", installed)
    pack = [sys.executable, "-m", "conda_pack.cli", "--quiet", "-p", installed, "-o", packed, "--format", "tar.gz"]
    subprocess.run([*pack, *(["--arcroot", "my env"] if around else [])], check=True, capture_output=True)
    shutil.rmtree(installed)
    made = place.ensure(packed)
    assert run(made.path / "bin" / "say-conda") == f"1.0 {made.path}"
    assert run(made.python, "-c", "import sys; print(sys.base_prefix)") == str(made.path / "py")
    assert not list(made.path.rglob("conda-unpack"))
    old = os.fsencode(installed)
    named = [path for path in made.path.rglob("*") if path.is_file() and old in path.read_bytes()]
    assert [path for path in named if path.suffix != ".json"] == []


def test_a_conda_environment_that_was_packed_otherwise_is_refused(place: Place) -> None:
    wish = environment_yml.read(place.write(PYTHON))
    conda._install(wish, place.top / "environment.yml", place.top / "installed")
    subprocess.run(["tar", "cf", place.top / "packed", "-C", place.top, "installed"], check=True)
    assert "conda-pack did not pack" in str(place.refused(place.top / "packed"))
