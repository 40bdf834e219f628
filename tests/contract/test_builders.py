"""What every registered builder must keep to.  A new one gets a row in `SAMPLES`; without it these tests fail."""

from __future__ import annotations

import dataclasses
import gzip
import os
import stat
import subprocess
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pytest_multihost_env import registry
from pytest_multihost_env.errors import MultihostError, NotReady, UsageProblem
from pytest_multihost_env.protocols import Builder, Work
from pytest_multihost_env.provision import uv
from tests import tricks
from tests.wheels import sha256, wheel

BUILDERS: Mapping[str, Builder] = registry.load().builders


def _venv(place: Path) -> Path:
    venv.create(place / "venv", with_pip=False, symlinks=True)
    return place / "venv"


def _add_file(source: Path) -> None:
    (source / "lib" / "new").write_text("new")


def _break_venv(source: Path) -> None:
    os.mkfifo(source / "lib" / "pipe")


def _archive(place: Path) -> Path:
    (place / "env.bin").write_bytes(gzip.compress(tricks.environment() + tricks.END))
    return place / "env.bin"


def _other_archive(source: Path) -> None:
    source.write_bytes(gzip.compress(tricks.environment() + tricks.member("lib/new", b"new") + tricks.END))


def _cut(source: Path) -> None:
    source.write_bytes(gzip.compress(tricks.environment() + tricks.member("lib/new", b"new")))


def _requirements(place: Path) -> Path:
    (place / "needs").write_text(f"--no-index\n./{wheel(place).name}\n")
    return place / "needs"


def _append(text: str) -> Callable[[Path], None]:
    def append(source: Path) -> None:
        with source.open("a") as file:
            file.write(text)

    return append


def _pylock(place: Path) -> Path:
    file = wheel(place)
    (place / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "tests"\n[[packages]]\nname = "tiny"\nversion = "1.0"\n'
        f'wheels = [{{ path = "{file.name}", hashes = {{ sha256 = "{sha256(file)}" }} }}]\n'
    )
    return place / "pylock.toml"


def _uv_lock(place: Path) -> Path:
    (place / "wheels").mkdir()
    wheel(place / "wheels")
    (place / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["tiny"]\n'
        '[[tool.uv.index]]\nname = "shop"\nurl = "./wheels"\nformat = "flat"\ndefault = true\n'
    )
    subprocess.run([uv.program(), "lock", "--quiet"], cwd=place, check=True)
    return place / "uv.lock"


def _conda(place: Path) -> Path:
    # The channel that the tests share; it is put there by the fixture `source`.
    (place / "wanted").write_text("channels: [./channel]\ndependencies:\n- python\n- condaling\n")
    return place / "wanted"


def _no_channel(source: Path) -> None:
    (source.parent / "channel").unlink()


def _no_wheels(source: Path) -> None:
    for file in source.parent.rglob("*.whl"):
        file.write_bytes(b"no wheel")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A source of one kind: how it is made, how its outcome is changed, and how it is broken without being alien."""

    make: Callable[[Path], Path]
    change: Callable[[Path], None]
    spoil: Callable[[Path], None]


SAMPLES: Mapping[str, Sample] = {
    "venv": Sample(_venv, _add_file, _break_venv),
    "archive": Sample(_archive, _other_archive, _cut),
    "pylock": Sample(_pylock, _append("[tool.changed]\n"), _no_wheels),
    "uv-lock": Sample(_uv_lock, _append("# changed\n"), _no_wheels),
    "conda": Sample(_conda, _append("- condaling <2\n"), _no_channel),
    "requirements": Sample(_requirements, _append("# changed\n"), _no_wheels),
}


@pytest.fixture(params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def builder(name: str) -> Builder:
    return BUILDERS[name]


@pytest.fixture
def source(name: str, special: Path, request: pytest.FixtureRequest) -> Path:
    if name == "conda":
        (special / "channel").symlink_to(request.getfixturevalue("conda_channel"))
    return SAMPLES[name].make(special)


def everything(root: Path) -> list[str]:
    return sorted(str(path) for path in root.rglob("*"))


def _key_and_build(builder: Builder, source: Path, destination: Path) -> None:
    builder.fingerprint(source)
    builder.build(source, destination, Work())


def test_it_is_registered_under_its_own_name(builder: Builder, name: str) -> None:
    assert builder.name == name


def test_every_kind_of_source_has_exactly_one_builder(special: Path) -> None:
    for name, sample in SAMPLES.items():
        place = special / name
        place.mkdir()
        source = sample.make(place)
        willing = [other.name for other in BUILDERS.values() if other.refuses(source) is None]
        assert willing == [name]


def test_what_is_alien_is_refused_in_a_sentence_that_names_it(builder: Builder, special: Path) -> None:
    (special / "empty directory").mkdir()
    (special / "empty file").touch()
    (special / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (special / "program.py").write_text("import os\n\nprint(os.getcwd())\n")
    for path in [*special.iterdir(), special / "missing"]:
        refusal = builder.refuses(path)
        assert refusal is not None
        assert str(path) in refusal


def test_looking_changes_nothing(builder: Builder, source: Path, special: Path) -> None:
    before = everything(special)
    assert builder.refuses(source) is None
    assert builder.fingerprint(source) == builder.fingerprint(source)
    assert everything(special) == before


def test_the_fingerprint_changes_with_the_outcome(builder: Builder, source: Path, name: str) -> None:
    before = builder.fingerprint(source)
    SAMPLES[name].change(source)
    assert builder.refuses(source) is None
    assert builder.fingerprint(source) != before


def test_it_makes_a_virtual_environment_and_leaves_the_source_alone(
    builder: Builder, source: Path, special: Path
) -> None:
    before, fingerprint = everything(special), builder.fingerprint(source)
    builder.build(source, special / "attempt", Work())
    assert (special / "attempt" / "pyvenv.cfg").is_file()
    assert os.access(special / "attempt" / "bin" / "python", os.X_OK)
    modes = [path.lstat().st_mode for path in (special / "attempt").rglob("*")]
    assert all(stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode) for mode in modes)
    assert [path for path in everything(special) if not path.startswith(str(special / "attempt"))] == before
    assert builder.fingerprint(source) == fingerprint


def test_a_build_that_fails_says_why_and_leaves_nothing(
    builder: Builder, source: Path, special: Path, name: str
) -> None:
    SAMPLES[name].spoil(source)
    before = everything(special)
    with pytest.raises((NotReady, UsageProblem)) as caught:
        _key_and_build(builder, source, special / "attempt")
    assert caught.value.hint
    assert everything(special) == before


def test_two_builders_of_one_name_are_refused(builder: Builder) -> None:
    parts = registry.Registry()
    parts.add_builder(builder)
    with pytest.raises(MultihostError, match="two builders are called"):
        parts.add_builder(builder)
