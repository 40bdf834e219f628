"""Before an environment is used again, source and environment are looked at as closely as asked (rows 4-6, 46, T3)."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import TIERS, Generation
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import ahead, builders, digests, hashing, manifest
from pytest_multihost_env.provision import copy as copy_module
from pytest_multihost_env.provision.against import against
from pytest_multihost_env.provision.scan import scan

METADATA, DIRECTORIES, STAT, CONTENT = TIERS
EVERY = set(TIERS)
SITE = "lib/python3.11/site-packages"


def make_source(top: Path) -> Path:
    """Make what looks like a virtual environment to everybody who does not run it."""
    site = top / SITE
    for directory in (top / "bin", site / "pkg" / "__pycache__", site / "pkg-1.0.dist-info", top / "share" / "empty"):
        directory.mkdir(parents=True)
    (top / "bin" / "python").write_text("#!/bin/sh\necho tiny\n")
    (top / "bin" / "tool").write_text("#!/bin/sh\necho tool\n")
    for program in ("python", "tool"):
        (top / "bin" / program).chmod(0o755)
    (top / "bin" / "python3").symlink_to("python")
    (top / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (site / "pkg" / "__init__.py").write_text("value = 1\n")
    (site / "pkg" / "code.so").write_bytes(b"\x7fELF" + bytes(5000))
    (site / "pkg" / "__pycache__" / "__init__.cpython-311.pyc").write_bytes(b"bytecode")
    (site / "hook.pth").write_text("import pkg\n")
    (site / "pkg-1.0.dist-info" / "RECORD").write_text("pkg/__init__.py,,\n")
    (site / "pkg-1.0.dist-info" / "METADATA").write_text("Name: pkg\n")
    (top / "share" / "caf\udce9\n").write_text("bytes")
    for number in range(40):
        (top / "share" / f"data {number}").write_text(str(number))
    return top


@pytest.fixture
def source(special: Path) -> Path:
    return make_source(special / "source")


@pytest.fixture
def target(special: Path) -> Path:
    return special / "shared" / "python_env"


def ensure(source: Path, target: Path, **more: object) -> Generation:
    notify = more.pop("notify", lambda text: None)
    recipe = provision.Recipe(builders.VenvBuilder(), lambda env, source, work: ())
    return provision.ensure(provision.ProvisionRequest(source, target, **more), notify=notify, recipe=recipe)


# -- what may happen to a file ------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Change one byte; size, mode and times stay."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    path.chmod(before.st_mode & 0o7777)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def grow(path: Path) -> None:
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"\n")
    path.chmod(0o444)


def replace(path: Path) -> None:
    """Put another file of the same size in its place, as an installer does."""
    other = path.with_name("other")
    shutil.copy2(path, other)
    data = other.read_bytes()
    other.chmod(0o644)
    other.write_bytes(data[::-1])
    other.chmod(0o444)
    other.replace(path)


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("tool")


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def add(path: Path) -> None:
    path.write_text("new")


def into_link(path: Path) -> None:
    shutil.move(path, path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@dataclasses.dataclass(frozen=True)
class Damage:
    """What is done to one file, what a message says of it, and which tiers see it; the others by definition do not."""

    path: str
    do: Callable[[Path], object]
    words: str
    seen: set[str]


FULL = {STAT, CONTENT}
DAMAGES = {
    "python, a byte": Damage("bin/python", flip, "content", FULL),
    "pyvenv.cfg, a byte": Damage("pyvenv.cfg", flip, "content", FULL),
    ".pth, a byte": Damage(f"{SITE}/hook.pth", flip, "content", FULL),
    "script, a byte": Damage("bin/tool", flip, "content", FULL),
    ".so, a byte": Damage(f"{SITE}/pkg/code.so", flip, "content", {CONTENT}),
    ".py, a byte": Damage(f"{SITE}/pkg/__init__.py", flip, "content", {CONTENT}),
    "bytecode, a byte": Damage(f"{SITE}/pkg/__pycache__/__init__.cpython-311.pyc", flip, "content", {CONTENT}),
    "python, larger": Damage("bin/python", grow, "size", EVERY),
    "script, larger": Damage("bin/tool", grow, "size", EVERY),
    "RECORD, larger": Damage(f"{SITE}/pkg-1.0.dist-info/RECORD", grow, "size", EVERY),
    ".py, larger": Damage(f"{SITE}/pkg/__init__.py", grow, "size", FULL),
    ".pth, larger": Damage(f"{SITE}/hook.pth", grow, "size", FULL),
    ".so, larger": Damage(f"{SITE}/pkg/code.so", grow, "size", FULL),
    ".py, replaced": Damage(f"{SITE}/pkg/__init__.py", replace, "time", {DIRECTORIES, *FULL}),
    ".py, gone": Damage(f"{SITE}/pkg/__init__.py", Path.unlink, "gone", {DIRECTORIES, *FULL}),
    ".pth, gone": Damage(f"{SITE}/hook.pth", Path.unlink, "gone", EVERY),
    "package, gone": Damage(f"{SITE}/pkg", shutil.rmtree, "gone", EVERY),
    "bytecode, gone": Damage(
        f"{SITE}/pkg/__pycache__/__init__.cpython-311.pyc", Path.unlink, "gone", {DIRECTORIES, *FULL}
    ),
    "bytecode, touched": Damage(f"{SITE}/pkg/__pycache__/__init__.cpython-311.pyc", touch, "time", FULL),
    "empty directory, gone": Damage("share/empty", Path.rmdir, "gone", {DIRECTORIES, *FULL}),
    ".pth, added": Damage(f"{SITE}/evil.pth", add, "added", EVERY),
    "module, added": Damage(f"{SITE}/pkg/new.py", add, "added", {DIRECTORIES, *FULL}),
    "data, added": Damage("share/empty/new", add, "added", {DIRECTORIES, *FULL}),
    "program, added": Damage("bin/new", add, "added", EVERY),
    "mode of a script": Damage("bin/tool", lambda path: path.chmod(0o775), "mode", EVERY),
    "mode of a module": Damage(f"{SITE}/pkg/__init__.py", lambda path: path.chmod(0o666), "mode", FULL),
    "mode of a directory": Damage(f"{SITE}/pkg", lambda path: path.chmod(0o777), "mode", FULL),
    "link, elsewhere": Damage("bin/python3", retarget, "target", EVERY),
    "directory, now a link": Damage("share/empty", into_link, "type", {DIRECTORIES, *FULL}),
    "file, now a pipe": Damage("share/data 3", pipe, "type", {DIRECTORIES, *FULL}),
    "bytes that are no UTF-8": Damage("share/caf\udce9\n", grow, "size", FULL),
}
if os.geteuid() == 0:
    DAMAGES |= {
        "owner of a script": Damage("bin/tool", lambda path: os.chown(path, 65534, 65534), "65534", EVERY),
        "owner of a module": Damage(
            f"{SITE}/pkg/__init__.py", lambda path: os.chown(path, 65534, 65534), "65534", FULL
        ),
        "owner of a directory": Damage(
            f"{SITE}/pkg", lambda path: os.chown(path, 65534, 65534), "65534", {DIRECTORIES, *FULL}
        ),
    }


def used(source: Path, target: Path, tier: str) -> Path | None:
    """Return the environment that a call would use again; it changes nothing."""
    recipe = provision.Recipe(builders.VenvBuilder(), lambda env, source, work: ())
    found = provision.preview(provision.ProvisionRequest(source, target, verify=tier), recipe=recipe)
    return found.path if isinstance(found, Generation) else None


@pytest.mark.parametrize("name", DAMAGES)
def test_each_tier_sees_what_it_claims_and_no_more(name: str, source: Path, target: Path) -> None:
    damage = DAMAGES[name]
    first = ensure(source, target)
    damage.do(first.path / damage.path)
    assert {tier for tier in TIERS if used(source, target, tier) is None} == damage.seen
    said: list[str] = []
    weakest = next(tier for tier in TIERS if tier in damage.seen)
    second = ensure(source, target, verify=weakest, notify=said.append)
    assert second.path != first.path
    assert not second.reused
    assert len(said) == 1
    assert str(first.path) in said[0]
    assert Path(damage.path).name.encode("utf-8", "surrogateescape")[:3].decode() in said[0]
    assert damage.words in said[0]
    assert target.samefile(second.path)
    assert {used(source, target, tier) for tier in TIERS} == {second.path}


SOURCE_CHANGES = {
    "a byte": (f"{SITE}/pkg/__init__.py", flip, {CONTENT}),
    "a byte of a script": ("bin/tool", flip, {CONTENT}),
    "larger": (f"{SITE}/pkg/__init__.py", grow, FULL),
    "mode": (f"{SITE}/pkg/__init__.py", lambda path: path.chmod(0o600), FULL),
    "a module more": (f"{SITE}/pkg/new.py", add, {DIRECTORIES, *FULL}),
    "a module less": (f"{SITE}/pkg/__init__.py", Path.unlink, {DIRECTORIES, *FULL}),
    "a file replaced": ("share/data 3", lambda path: replace(path) or touch(path), {DIRECTORIES, *FULL}),
    "RECORD": (f"{SITE}/pkg-1.0.dist-info/RECORD", grow, EVERY),
    "a package more": (f"{SITE}/other-1.0.dist-info", Path.mkdir, EVERY),
    "pyvenv.cfg": ("pyvenv.cfg", grow, EVERY),
}


@pytest.mark.parametrize("name", SOURCE_CHANGES)
def test_a_changed_source_is_seen_by_the_tiers_that_look_at_it(name: str, source: Path, target: Path) -> None:
    """Row 5."""
    path, change, seen = SOURCE_CHANGES[name]
    first = ensure(source, target)
    change(source / path)
    assert {tier for tier in TIERS if used(source, target, tier) is None} == seen
    said: list[str] = []
    second = ensure(source, target, verify=CONTENT, notify=said.append)
    assert second.path != first.path
    if name.startswith("a byte"):
        assert path in said[0]
        assert (second.path / path).read_bytes() == (source / path).read_bytes()


@pytest.mark.parametrize("tier", TIERS)
def test_bytecode_that_python_adds_is_no_damage(tier: str, source: Path, target: Path) -> None:
    """Row 46: an import writes bytecode, in the source and in the environment, and both are still the same."""
    first = ensure(source, target)
    for top in (source, first.path):
        (top / SITE / "pkg" / "__pycache__" / "new.cpython-311.pyc").write_bytes(b"x")
        (top / "share" / "__pycache__").mkdir()
        (top / "share" / "__pycache__" / "data.cpython-311.pyc").write_bytes(b"x")
    again = ensure(source, target, verify=tier)
    assert again.path == first.path
    assert provision.verify(target, prove=lambda env, source: "fine")


@pytest.mark.parametrize("tier", TIERS)
def test_the_tier_is_told(tier: str, source: Path, target: Path) -> None:
    assert ensure(source, target, verify=tier).checked is None
    again = ensure(source, target, verify=tier)
    assert again.checked is not None
    assert again.checked.tier == tier
    everything = sum(1 for path in again.path.rglob("*") if path.name != manifest.NAME)
    assert again.checked.entries == everything if tier in FULL else 0 < again.checked.entries < 2 * everything


@pytest.mark.parametrize("tier", [METADATA, DIRECTORIES])
def test_a_weak_tier_does_not_walk_the_source(
    tier: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure(source, target)

    def never(self: object, source: Path) -> str:
        raise AssertionError("the whole source was looked at")

    monkeypatch.setattr(builders.VenvBuilder, "fingerprint", never)
    assert ensure(source, target, verify=tier).path == first.path
    (source / "pyvenv.cfg").write_text("home = /usr/bin\n")
    with pytest.raises(AssertionError):
        ensure(source, target, verify=tier)


@pytest.mark.parametrize("tier", TIERS)
def test_force_builds_anew_whatever_the_tier(tier: str, source: Path, target: Path) -> None:
    """Row 6."""
    first = ensure(source, target)
    second = ensure(source, target, verify=tier, force=True)
    assert second.path != first.path
    assert ensure(source, target, verify=tier).path == second.path


@pytest.mark.parametrize("tier", TIERS)
def test_other_conditions_are_never_met_by_what_stands(tier: str, source: Path, target: Path) -> None:
    first = ensure(source, target)
    recipe = provision.Recipe(builders.VenvBuilder(), lambda env, source, work: (), options=("other",))
    request = provision.ProvisionRequest(source, target, verify=tier)
    assert provision.ensure(request, notify=print, recipe=recipe).path != first.path


@pytest.mark.parametrize("tier", TIERS)
def test_another_source_is_never_met_by_what_stands(tier: str, source: Path, target: Path, special: Path) -> None:
    first = ensure(source, target)
    other = special / "other"
    shutil.copytree(source, other, symlinks=True)
    (other / "share" / "more").write_text("x")
    assert ensure(other, target, verify=tier).path != first.path


@pytest.mark.parametrize("tier", TIERS)
def test_what_was_adapted_is_no_change_of_the_source(tier: str, source: Path, target: Path) -> None:
    def finish(env: Path, source: Path, work: Work) -> tuple[str, ...]:
        (env / "bin" / "tool").write_text(f"#!{env}/bin/python\n")
        (env / SITE / "hook.pth").unlink()
        return ()

    request = provision.ProvisionRequest(source, target, verify=tier)
    recipe = provision.Recipe(builders.VenvBuilder(), finish)
    first = provision.ensure(request, notify=print, recipe=recipe)
    second = provision.ensure(request, notify=print, recipe=recipe)
    assert second.path == first.path
    assert second.reused


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(change(data))


BAD_MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\n",
    "garbage": lambda data: bytes(range(256)) * 64,
    "the first format": lambda data: b'{"key":"x","format":1}\n',
    "a later format": lambda data: data.replace(b"manifest 2", b"manifest 3"),
    "a huge line": lambda data: data.partition(b"\n")[0] + b"\n" + b"[" * (1 << 22),
    "deep": lambda data: data.partition(b"\n")[0] + b"\n" + b'{"key":' * 100_000 + b"\n",
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_a_spoiled_manifest_is_damage_and_never_a_traceback(name: str, source: Path, target: Path) -> None:
    first = ensure(source, target)
    spoil(first.path / manifest.NAME, BAD_MANIFESTS[name])
    assert {used(source, target, tier) for tier in TIERS} == {None}
    said: list[str] = []
    second = ensure(source, target, verify=METADATA, notify=said.append)
    assert second.path != first.path
    assert manifest.NAME in said[0]
    if name not in {"a byte more", "half"}:
        with pytest.raises(NotReady, match="has no manifest that can be read"):
            provision.verify(first.path)


def test_a_manifest_that_is_too_large_is_not_read(source: Path, target: Path) -> None:
    first = ensure(source, target)
    file = first.path / manifest.NAME
    file.chmod(0o644)
    os.truncate(file, manifest.LIMIT + 1)
    said: list[str] = []
    assert ensure(source, target, notify=said.append).path != first.path
    assert "larger than" in said[0]


def test_on_one_processor_one_process_looks_at_both(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure(source, target)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert ensure(source, target).path == first.path
    grow(first.path / "bin" / "tool")
    assert ensure(source, target).path != first.path


def test_a_second_process_that_cannot_be_started_or_ends_early_changes_nothing(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure(source, target)
    for program in ("/nowhere/python", "/bin/false", "/bin/echo"):
        monkeypatch.setattr(ahead.sys, "executable", program)
        assert ensure(source, target).path == first.path
    monkeypatch.undo()
    grow(first.path / "bin" / "tool")
    assert ensure(source, target).path != first.path


def test_a_tree_that_was_changed_in_every_way_is_told_file_by_file(source: Path, target: Path) -> None:
    """Row 46 and T3: the full check names every class of file and what differs."""
    made = ensure(source, target)
    seen = {name: damage for name, damage in DAMAGES.items() if "owner" not in name}
    for name in (
        *("python, a byte", ".pth, larger", "script, a byte", ".so, a byte", ".py, replaced", "bytecode, touched"),
        *("link, elsewhere", "file, now a pipe", "empty directory, gone", "program, added", "mode of a directory"),
    ):
        seen[name].do(made.path / seen[name].path)
    found = provision.verify(target, prove=lambda env, source: "fine")
    assert not found
    assert {one.path: one.what for one in found.differing} == {
        "bin/python": ("content",),
        "bin/python3": ("target",),
        "bin/tool": ("content",),
        "share/data 3": ("type",),
        f"{SITE}/hook.pth": ("content", "size", "time"),
        f"{SITE}/pkg": ("mode",),
        f"{SITE}/pkg/__init__.py": ("content", "time"),
        f"{SITE}/pkg/__pycache__/__init__.cpython-311.pyc": ("time",),
        f"{SITE}/pkg/code.so": ("content",),
    }
    assert (found.missing, found.extra) == (("share/empty",), ("bin/new",))
    assert "not tried" in found.problem


def test_what_came_is_not_run_to_prove_anything(source: Path, target: Path) -> None:
    made = ensure(source, target)
    (made.path / SITE / "sitecustomize.py").write_text("raise SystemExit")

    def prove(env: Path, source: Path | None) -> str:
        raise AssertionError("it was run")

    assert "not tried" in provision.verify(target, prove=prove).problem


def test_two_environments_are_compared_file_by_file(source: Path, target: Path, special: Path) -> None:
    one = ensure(source, target)
    assert not against(target, one.path / manifest.NAME)
    flip(source / "bin" / "tool")
    touch(source / "bin" / "tool")
    (source / SITE / "pkg" / "new.py").write_text("")
    (source / "share" / "data 3").unlink()
    other = ensure(source, special / "elsewhere" / "python_env")
    found = against(target, other.path)
    assert {one.path: one.what for one in found.differing} == {"bin/tool": ("content",)}
    assert (found.missing, found.extra) == (("share/data 3",), (f"{SITE}/pkg/new.py",))
    with pytest.raises(NotReady, match="is no manifest"):
        against(target, source)


def test_hashing_is_shared_out_and_whatever_happens_to_a_helper_is_made_good(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ensure(source, target)
    known = manifest.parse((made.path / manifest.NAME).read_bytes()).entries
    monkeypatch.setattr(hashing, "_LITTLE", 1)
    for program in (hashing.sys.executable, "/nowhere/python", "/bin/false", "/bin/echo"):
        monkeypatch.setattr(hashing.sys, "executable", program)
        assert tuple(hashing.look_again(made.path, known)) == tuple(scan(made.path))
    monkeypatch.undo()
    flip(made.path / SITE / "pkg" / "code.so")
    monkeypatch.setattr(hashing, "_LITTLE", 1)
    assert not provision.verify(target, prove=lambda env, source: "fine")


def test_an_environment_that_was_made_without_blake3_is_compared_by_what_it_has(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "best", lambda: digests.SHA256)
    copied = copy_module.copy_tree
    monkeypatch.setattr(copy_module, "copy_tree", lambda *places, **more: copied(*places, **{**more, "digests": False}))
    made = ensure(source, target)
    monkeypatch.undo()
    assert b"\tsha256:" in (made.path / manifest.NAME).read_bytes()
    assert b"\tblake3:" not in (made.path / manifest.NAME).read_bytes()
    assert provision.verify(target, prove=lambda env, source: "fine")
    assert ensure(source, target, verify=CONTENT).path == made.path
    flip(source / "bin" / "tool")
    assert ensure(source, target, verify=CONTENT).path != made.path


def test_without_blake3_contents_cannot_be_compared_and_it_is_said(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ensure(source, target)
    monkeypatch.setattr(digests, "best", lambda: digests.SHA256)
    digests._start.cache_clear()
    with pytest.raises(NotReady, match="of the kind 'blake3'") as caught:
        ensure(source, target, verify=CONTENT)
    assert "pip install blake3" in str(caught.value.hint)
    assert ensure(source, target).path == made.path
    monkeypatch.undo()
    digests._start.cache_clear()


def test_digests_of_an_unknown_kind_are_no_match(source: Path, target: Path) -> None:
    made = ensure(source, target)
    spoil(made.path / manifest.NAME, lambda data: data.replace(b"\tblake3:", b"\tmd17:"))
    with pytest.raises(NotReady, match="of the kind 'md17'"):
        provision.verify(target)
