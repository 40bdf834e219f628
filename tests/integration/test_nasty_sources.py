"""A source with everything at once that years of installers, tools and people leave in one, and a target with a long name.

Each of these is harmless to Python, so none may keep an environment from being made; what is not is refused in
test_traps.py and tests/unit/test_copy.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import manifest, scripts, uv
from pytest_multihost_env.provision.overlay import add_missing
from tests.environments import missing

LONG = "a long name's #1 \N{LATIN SMALL LETTER U WITH DIAERESIS} " + "x" * 200
NAMES = (b"s" * 255, b"\xc3\xbc" * 127, b"caf\xe9", b"two\nlines", b"back\\slash")
STDLIB = Path(sysconfig.get_path("stdlib"))

ODD_URLS = ("[]", "null", "3", '{"url": 3}', '{"url": "file:///x", "dir_info": null}', "[" * 100_000, "")
ODD_RECORDS = (b"", b"\0\0../../../bin/tool,sha256=x,1\n", b'"../../../bin/tool', b"x" * 200_000 + b",bin/tool,\n")

HOOK = """\
import atexit, json, os, sys, types

print("installed by somebody")
atexit.register(print, "good-bye")
sys.stdin.read()


class Lazy(types.ModuleType):
    def __getattr__(self, name):
        raise ImportError("not now: " + name)


sys.modules["lazy"] = Lazy("lazy")
with open({places!r}) as file:
    seen = [os.path.exists(path) for path in json.load(file)]
with open({log!r}, "a") as file:
    file.write(json.dumps(seen) + "\\n")
"""
FINDER = """\
# -*- coding: latin-1 -*-
MAPPING = {{"first": "{env}/src/first"}}
NAMED = f"{env}/src/{{__name__}}"
\u00e9\u00e9\u00e9\u00e9 = "\u00e9\u00e9"; AFTER = {{"second": "{env}/src/second"}}
"""


@dataclasses.dataclass(frozen=True)
class Nasty:
    source: Path
    made: Generation
    log: list[list[bool]]
    """For each start of the environment's Python: whether the source and the original interpreter could be seen."""

    @property
    def site(self) -> Path:
        return site_of(self.made.path)


def site_of(env: Path) -> Path:
    return next((env / "lib").glob("python3.*/site-packages"))


def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def leave_names(env: Path) -> None:
    """Names of 255 bytes, of other encodings, with breaks and tabs; 200 directories in each other; links of all kinds."""
    site, script = site_of(env), scripts.header(f"{env}/bin/python") + b"import sys\nprint(sys.prefix)\n"
    for name in NAMES:
        write(env / "bin" / os.fsdecode(name), script, 0o755)
        write(site / os.fsdecode(name[:252] + b".py"), "value = 1\n")
    write(site.joinpath(*(f"d{number}" for number in range(200)), "deep.py"), "value = 1\n")
    (site / "twin.py").write_text("value = 1\n")
    (site / "other_twin.py").hardlink_to(site / "twin.py")
    (env / "bin" / "hard-link").hardlink_to(env / "bin" / "back\\slash")
    for name, goal in (("one", "two"), ("two", "one"), ("self", "self"), ("here", "."), ("up", "../../..")):
        (site / name).symlink_to(goal)
    (env / "bin" / "gone").symlink_to("nowhere")
    for number, time in enumerate((-(10**18), 2**32 * 10**9, 2**33 * 10**9)):
        write(site / f"time{number}.py", "value = 1\n")
        os.utime(site / f"time{number}.py", ns=(time, time))


def leave_metadata(env: Path, hook: str) -> None:
    """Metadata that is empty, of another kind than its name says, or no metadata at all; and code that runs at each start."""
    site = site_of(env)
    for number, text in enumerate(ODD_URLS):
        write(site / f"url{number}-1.dist-info" / "METADATA", f"Name: url{number}\nVersion: 1\n")
        write(site / f"url{number}-1.dist-info" / "direct_url.json", text)
    for number, record in enumerate(ODD_RECORDS):
        write(site / f"record{number}-1.dist-info" / "METADATA", "")
        write(site / f"record{number}-1.dist-info" / "RECORD", record)
    write(env / "bin" / "tool", f"#!{env}/bin/python\n", 0o755)
    write(site / "file-1.dist-info", "a file")
    for name in ("directory.pth", "directory.egg-link", "__editable__directory.py", "directory-1.dist-info/RECORD"):
        (site / name).mkdir(parents=True)
    (site / "gone.pth").symlink_to("nowhere")
    write(site / "fails.pth", "import nothing_of_this_name\n")
    write(site / "hook.pth", "import a_hook_of_mine\n")
    write(site / "a_hook_of_mine.py", hook)
    write(site / "sitecustomize.py", "raise RuntimeError('not mine')\n")
    write(site / "__editable___odd_finder.py", FINDER.format(env=env).encode("latin-1"))
    write(site / "__editable___broken_finder.py", b"\0\0")
    write(site / "__editable___deep_finder.py", "x = " + "-" * 100_000 + "1\n")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Nasty:
    top = tmp_path_factory.mktemp("nasty")
    source, places, log = top / "sou rce", top / "places.json", top / "log"
    make = ["venv", "--quiet", "--no-project", "--relocatable", "--python", sys.executable, source]
    subprocess.run([uv.program(), *make], check=True, capture_output=True)
    add_missing(source, source / "bin" / "python", ["numpy"])
    places.write_text(json.dumps([str(source / "pyvenv.cfg"), str(STDLIB / "os.py")]))
    leave_names(source)
    leave_metadata(source, HOOK.format(places=str(places), log=str(log)))
    subprocess.run(["chmod", "-R", "a-w", source], check=True)
    made = provision.ensure(provision.ProvisionRequest(source, top / LONG / "env"), notify=print)
    return Nasty(source, made, [json.loads(line) for line in log.read_text().splitlines()])


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_runs_is_used_again_and_verifies(nasty: Nasty) -> None:  # row 25
    assert len(str(nasty.made.path)) > 300
    code = "import numpy; print(numpy.__file__, numpy.linalg.det(numpy.eye(3)), end='')"
    assert f"{nasty.site}/numpy/__init__.py 1.0" in run(nasty.made.python, "-c", code)
    target = nasty.made.path.parents[4] / "env"
    assert provision.ensure(provision.ProvisionRequest(nasty.source, target), notify=print).reused
    found = provision.verify(target)
    assert found, found


def test_the_original_is_out_of_sight_when_it_is_proven(nasty: Nasty) -> None:
    """The hook runs whenever the environment's Python does; the last time before it stands is the proof."""
    if [note for note in manifest.read_header(nasty.made.path).notes if note.startswith("in sight")]:
        missing("this user may not make a mount namespace")
    assert nasty.log[-1] == [False, False]
    assert [True, True] in nasty.log, "else nothing would show that the hook can see"


def test_nothing_of_it_is_lost(nasty: Nasty) -> None:  # row 26
    def names(top: Path) -> set[Path]:
        return {path.relative_to(top) for path in top.rglob("*") if "__pycache__" not in path.parts}

    assert names(nasty.source) - names(nasty.made.path) == set()
    assert (nasty.site / "twin.py").stat().st_nlink == 1


def test_its_scripts_run(nasty: Nasty) -> None:  # row 43
    for name in (*NAMES, b"hard-link"):
        assert f"\n{nasty.made.path}\n" in run(nasty.made.path / "bin" / os.fsdecode(name)), name


def test_what_cannot_be_rewritten_without_guessing_stays_and_is_told(nasty: Nasty) -> None:
    """Offsets in a file that is no UTF-8 lie elsewhere, and an f-string is no literal: to replace them would break both."""
    lines = (nasty.site / "__editable___odd_finder.py").read_text("latin-1").splitlines()
    expected = FINDER.format(env=nasty.source).splitlines()
    assert lines[1] == f'MAPPING = {{"first": {f"{nasty.made.path}/src/first"!a}}}'
    assert lines[2:] == expected[2:]
    told = [note for note in manifest.read_header(nasty.made.path).notes if note.startswith("these files still name ")]
    assert "__editable___odd_finder.py" in "".join(told)
