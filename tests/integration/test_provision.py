"""The environment is made once, is whole whenever it can be seen, and nothing is made when it cannot be right."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import garbage, manifest
from pytest_multihost_env.provision.scan import scan
from tests.integration.tiny import TinyBuilder, finish, make_source


@pytest.fixture
def source(special: Path) -> Path:
    return make_source(special / "source")


@pytest.fixture
def target(special: Path) -> Path:
    return special / "shared" / "python_env"


def ensure(source: Path, target: Path, **more: object) -> Generation:
    builder = TinyBuilder(**{name: more.pop(name) for name in ("log", "gate", "fail") if name in more})
    notify = more.pop("notify", lambda text: None)
    request = provision.ProvisionRequest(source, target, **more)
    return provision.ensure(request, notify=notify, recipe=provision.Recipe(builder, finish))


def listing(root: Path) -> list[str]:
    return sorted(str(path) for path in root.rglob("*"))


def identities(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in root.rglob("*")}


def test_first_builds_and_the_next_uses_it(source: Path, target: Path) -> None:
    """Row 4."""
    first = ensure(source, target)
    before = identities(first.path)
    second = ensure(source, target)
    assert (first.reused, second.reused) == (False, True)
    assert dataclasses.replace(second, reused=False, seconds=first.seconds, checked=None) == first
    assert identities(first.path) == before
    assert first.added == ("addition 1.0",)
    assert first.built_by.endswith(f":{os.getpid()}")
    assert target.samefile(first.path)
    assert not target.readlink().is_absolute()
    assert (target / "lib" / "pkg 3" / "__init__.py").read_text() == "value = 3\n"
    assert (target / "empty dir").is_dir()


def test_what_is_published_is_sealed_and_listed(source: Path, target: Path) -> None:
    """Row 26, and nobody can write to it any more."""
    (source / "bin" / "python").chmod(0o4777)
    generation = ensure(source, target)
    for path in [generation.path, *generation.path.rglob("*")]:
        if not path.is_symlink():
            forbidden = 0o6022 if path.is_dir() else 0o6222
            assert path.stat().st_mode & forbidden == 0, path
    data = (generation.path / manifest.NAME).read_bytes()
    known = manifest.parse(data)
    assert manifest.digest(data) == generation.digest
    assert known.header.path == str(generation.path)
    assert known.header.python == "3.11.7"
    assert list(known.entries) == list(scan(generation.path))


def test_a_changed_source_gives_another_and_the_old_stays(source: Path, target: Path) -> None:
    """Row 5."""
    old = ensure(source, target)
    (source / "new.py").write_text("")
    new = ensure(source, target)
    assert new.key != old.key
    assert (target / "new.py").exists()
    assert provision.verify(old.path, prove=lambda env, source: "fine")


def test_force_builds_anew_and_the_next_call_uses_that(source: Path, target: Path) -> None:
    """Row 6."""
    old = ensure(source, target)
    new = ensure(source, target, force=True)
    assert new.path != old.path
    assert not new.reused
    assert ensure(source, target).path == new.path
    assert target.samefile(new.path)


def test_a_target_that_points_elsewhere_is_swapped(source: Path, target: Path) -> None:
    first = ensure(source, target)
    (source / "new.py").write_text("")
    ensure(source, target)
    (source / "new.py").unlink()
    back = ensure(source, target)
    assert back.reused
    assert back.path == first.path
    assert target.samefile(first.path)
    target.unlink()
    assert ensure(source, target).reused
    assert target.samefile(first.path)


def test_a_preview_creates_nothing(source: Path, target: Path, special: Path) -> None:
    """Row 31."""
    request, recipe = provision.ProvisionRequest(source, target), provision.Recipe(TinyBuilder(), finish)
    before = listing(special)
    assert isinstance(provision.preview(request, recipe=recipe), Path)
    assert listing(special) == before
    made = ensure(source, target)
    found = provision.preview(request, recipe=recipe)
    assert isinstance(found, Generation)
    assert found.path == made.path


BAD = {
    "no source": ("nothing", "shared/env", "does not exist"),
    "dangling source": ("dangling", "shared/env", "dangling symlink"),
    "no environment": ("shared", "env", "not a virtual environment"),
    "a file as source": ("file", "env", "not a directory"),
    "root": ("source", "/", "root of the file system"),
    "home": ("source", "home", "home directory"),
    "above home": ("source", ".", "home directory"),
    "the source": ("source", "source", "the source itself"),
    "the source by another name": ("source", "alias", "the source itself"),
    "inside": ("source", "source/lib/env", "inside the source"),
    "inside by another name": ("source", "alias/lib/env", "inside the source"),
    "around": ("nest/source", "nest", "contains the source"),
    "a file": ("source", "file", "is a file"),
    "dangling": ("source", "dangling", "which does not exist"),
    "below a file": ("source", "file/env", "not a directory"),
    "junk": ("source", "shared", "is a directory"),
    "somebody's environment": ("source", "venv", "was not made by multihost-env"),
    "somebody's symlink": ("source", "link", "was not made by multihost-env"),
    "colon": ("source", "a:b", "colon"),
    "bytes of another encoding": ("source", os.fsdecode(b"caf\xe9/env"), "no UTF-8"),
    "a long name": ("source", "shared/" + 240 * "x", "too long"),
    "a long name on the way": ("source", "new/" + 256 * "x" + "/env", "too long"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_creates_nothing(
    case: str, special: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 3, 10, 11 and 24."""
    for name in ("shared", "home", "nest", "venv"):
        (special / name).mkdir()
    (special / "venv" / "pyvenv.cfg").write_text("home = /usr/bin")
    (special / "file").write_text("x")
    (special / "shared" / "junk").write_text("x")
    (special / "dangling").symlink_to("nowhere")
    (special / "alias").symlink_to("source")
    (special / "link").symlink_to("venv")
    make_source(special / "nest" / "source")
    monkeypatch.setenv("HOME", str(special / "home"))
    name_of_source, name_of_target, reason = BAD[case]
    before = listing(special)
    with pytest.raises(UsageProblem, match=reason) as caught:
        ensure(special / name_of_source, special / name_of_target)
    assert caught.value.hint
    assert listing(special) == before


def test_the_longest_name_that_is_not_refused_works(source: Path, special: Path) -> None:
    assert ensure(source, special / (237 * "x")).path.is_dir()


def test_a_python_that_reads_names_in_another_way_is_refused(source: Path, target: Path, special: Path) -> None:
    """It would find another text in each manifest, take the environment for moved, and build one after another."""
    assert not str(target).isascii()
    before = listing(special)
    environ = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    argv = [sys.executable, "-m", "tests.integration.tiny", str(source), str(target)]
    done = subprocess.run(argv, env=environ, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 2
    assert "this Python reads file names as ascii" in done.stderr
    assert "remedy: set PYTHONUTF8=1" in done.stderr
    assert listing(special) == before


def test_a_generation_is_no_source_for_its_own_target(source: Path, target: Path) -> None:
    made = ensure(source, target)
    with pytest.raises(UsageProblem, match="own generations"):
        ensure(made.path, target)


def test_force_puts_a_foreign_environment_aside_and_deletes_nothing(source: Path, special: Path) -> None:
    theirs = make_source(special / "env")
    (theirs / "precious").write_text("x")
    made = ensure(source, theirs, force=True)
    assert theirs.samefile(made.path)
    assert [path.read_text() for path in (special / ".env.d").glob("replaced-*/precious")] == ["x"]


def test_force_replaces_a_symlink_and_follows_nothing(source: Path, special: Path) -> None:
    """Row 11."""
    theirs = make_source(special / "theirs")
    (special / "env").symlink_to("theirs")
    before = identities(theirs)
    made = ensure(source, special / "env", force=True)
    assert (special / "env").samefile(made.path)
    assert identities(theirs) == before


def test_too_little_space_creates_nothing(source: Path, target: Path, special: Path) -> None:
    """Row 23."""
    with (source / "huge").open("wb") as file:
        try:
            file.truncate(1 << 43)
        except OSError:
            pytest.skip("this file system has no sparse file of that size")
    before = listing(special)

    class Quick(TinyBuilder):
        def fingerprint(self, source: Path) -> str:
            return "fixed"

    with pytest.raises(NotReady, match=r"needs 9\.6 TiB"):
        provision.ensure(
            provision.ProvisionRequest(source, target), notify=print, recipe=provision.Recipe(Quick(), finish)
        )
    assert listing(special) == before


def test_too_few_free_inodes_create_nothing(
    source: Path, target: Path, special: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 23.  A file system that is full of names has to be described: to fill a real one takes a mount."""
    for number in range(12):
        (source / f"more {number}").write_text("")
    before, real = listing(special), os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        fields = list(real(path))
        fields[5:8] = [1000, 12, 12]  # f_files, f_ffree, f_favail
        return os.statvfs_result([*fields, 0])

    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.raises(NotReady, match=r"has 2\d files and the file system of .* has room for 12 more"):
        ensure(source, target)
    assert listing(special) == before


def test_a_path_of_two_hundred_characters(source: Path, special: Path) -> None:
    """Row 25, and a name as long as a name may be less what is put around it."""
    deep = special / ("a long name's #1 \N{LATIN SMALL LETTER U WITH DIAERESIS} " * 8).strip() / "python_env"
    assert len(str(deep)) > 200
    made = ensure(source, deep)
    assert deep.samefile(made.path)
    assert ensure(source, deep).reused
    assert provision.verify(deep, prove=lambda env, source: "fine")


def test_a_failed_build_leaves_its_reason_and_the_next_success_takes_it_away(source: Path, target: Path) -> None:
    with pytest.raises(NotReady, match="no wheel"):
        ensure(source, target, fail="no wheel for this machine")
    (slot,) = (target.parent / ".python_env.d" / "v1").iterdir()
    assert {path.name.partition("-")[0] for path in slot.iterdir()} == {"FAIL", "att", "lease", "pins"}
    assert not list((slot / "att").iterdir())
    assert not target.exists()
    assert not ensure(source, target, force=True).reused
    assert {path.name for path in slot.iterdir()} == {"READY", "att", "lease", "pins"}


def test_an_unexpected_error_is_a_reason_too(source: Path, target: Path) -> None:
    """Row 8: what fails before it stands leaves nothing standing."""

    def broken(env: Path, source: Path, work: Work) -> tuple[str, ...]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(env / "bin" / "python"))

    request = provision.ProvisionRequest(source, target)
    with pytest.raises(NotReady, match="No space left") as caught:
        provision.ensure(request, notify=print, recipe=provision.Recipe(TinyBuilder(), broken))
    assert "bin/python" in str(caught.value.where)
    assert not list(target.parent.glob(".python_env.d/v1/*/att/*"))


def test_a_source_that_changes_meanwhile_is_not_published(source: Path, target: Path) -> None:
    def meddle(env: Path, source: Path, work: Work) -> tuple[str, ...]:
        (source / "late").write_text("x")
        return ()

    request = provision.ProvisionRequest(source, target)
    with pytest.raises(NotReady, match="changed while"):
        provision.ensure(request, notify=print, recipe=provision.Recipe(TinyBuilder(), meddle))
    assert not target.exists()


def test_a_pipe_in_the_source_is_named(source: Path, target: Path) -> None:
    def plant(env: Path, source: Path, work: Work) -> tuple[str, ...]:
        os.mkfifo(env / "pipe")
        return ()

    request = provision.ProvisionRequest(source, target)
    with pytest.raises(NotReady, match="pipe is neither"):
        provision.ensure(request, notify=print, recipe=provision.Recipe(TinyBuilder(), plant))


@pytest.mark.parametrize("damage", ["manifest", "python", "attempt", "all attempts"])
def test_a_damaged_environment_is_not_used_and_another_is_made(source: Path, target: Path, damage: str) -> None:
    first = ensure(source, target)
    if damage == "manifest":
        (first.path / manifest.NAME).chmod(0o644)
        with (first.path / manifest.NAME).open("ab") as file:
            file.write(b"\n")
    elif damage == "python":
        first.python.unlink()
    else:  # somebody needed the room
        shutil.rmtree(first.path if damage == "attempt" else first.path.parent)
    said: list[str] = []
    second = ensure(source, target, notify=said.append)
    assert second.path != first.path
    assert not second.reused
    assert len(said) == 1
    assert str(first.path) in said[0]
    assert target.samefile(second.path)
    kept = [item.path for item in garbage.collect(target) if item.kept]
    assert kept == [second.path], "and gc clears it up"


def test_a_moved_store_is_recognised(source: Path, target: Path, special: Path) -> None:
    """Row 47."""
    first = ensure(source, target)
    target.parent.rename(special / "moved")
    moved = special / "moved" / "python_env"
    report = provision.verify(moved, prove=lambda env, source: "fine")
    assert report.relocated == str(first.path)
    assert not report
    said: list[str] = []
    second = ensure(source, moved, notify=said.append)
    assert "relocated" in said[0]
    assert second.path.is_relative_to(special / "moved")
    assert provision.verify(moved, prove=lambda env, source: "fine")


def test_another_name_of_the_same_directory_is_no_move(source: Path, target: Path, special: Path) -> None:
    first = ensure(source, target)
    (special / "alias").symlink_to("shared")
    assert ensure(source, special / "alias" / "python_env").reused
    assert (special / "alias" / "python_env").samefile(first.path)


def test_verify_names_every_change(source: Path, target: Path) -> None:
    made = ensure(source, target)
    assert provision.verify(target, prove=lambda env, source: "fine").proof == "fine"
    module = made.path / "lib" / "pkg 3" / "__init__.py"
    module.chmod(0o644)
    module.write_text("value = 4\n")
    module.chmod(0o444)
    (made.path / "lib" / "pkg 4" / "__init__.py").chmod(0o644)
    (made.path / "lib" / "pkg 5" / "__init__.py").unlink()
    (made.path / "bin" / "python3").unlink()
    (made.path / "bin" / "python3").symlink_to("/bin/sh")
    (made.path / "new").write_text("")
    (made.path / "lib" / "__pycache__").mkdir()
    (made.path / "lib" / "__pycache__" / "x.pyc").write_text("")
    report = provision.verify(target, prove=lambda env, source: "fine")
    assert not report
    assert report.digest_ok
    assert [str(one) for one in report.differing] == [
        "bin/python3 (target)",
        "lib/pkg 3/__init__.py (content, time)",
        "lib/pkg 4/__init__.py (mode)",
    ]
    assert (report.missing, report.extra) == (("lib/pkg 5/__init__.py",), ("new",))
    assert "not tried" in report.problem


def test_verify_needs_an_environment_of_ours(source: Path, special: Path) -> None:
    with pytest.raises(NotReady, match="has no manifest"):
        provision.verify(source)
    with pytest.raises(NotReady, match="is not an environment"):
        provision.verify(special / "nothing")


def test_a_failed_proof_is_no_pass(source: Path, target: Path) -> None:
    ensure(source, target)

    def prove(env: Path, source: Path | None) -> str:
        raise NotReady("libssl lies outside")

    report = provision.verify(target, prove=prove)
    assert not report
    assert "libssl" in report.problem


def test_what_others_can_write_is_not_run(source: Path, target: Path) -> None:
    made = ensure(source, target)
    target.parent.chmod(0o777)
    with pytest.raises(NotReady, match=r"shared is writable for everybody") as caught:
        ensure(source, target)
    assert caught.value.where == str(target.parent)
    target.parent.chmod(0o1777)
    assert ensure(source, target).path == made.path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("component", ["shared", "READY", "python", "link"])
def test_what_others_own_is_not_run(source: Path, target: Path, component: str, special: Path) -> None:
    made = ensure(source, target)
    through = special / "through"
    through.symlink_to("shared")
    planted = {
        "shared": target.parent,
        "READY": made.path.parent.parent / "READY",
        "python": made.python,
        "link": through,
    }[component]
    os.chown(planted, 65534, 65534, follow_symlinks=False)
    through_link = through / "python_env"
    with pytest.raises(NotReady, match="belongs to uid 65534"):
        ensure(source, through_link)
    assert ensure(source, through_link, trust=provision.Trust(frozenset({65534}))).path.samefile(made.path)


def test_a_planted_record_is_refused(source: Path, target: Path) -> None:
    made = ensure(source, target)
    ready = made.path.parent.parent / "READY"
    record = json.loads(ready.read_text())
    for attempt in ("../../../x", "/tmp/x", "", ".."):
        ready.unlink()
        ready.write_text(json.dumps({**record, "attempt": attempt}))
        with pytest.raises(NotReady, match="not a record of this package"):
            ensure(source, target)


def test_a_machine_that_cannot_lock_still_builds(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 19: the lock only saves work."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    said: list[str] = []
    assert not ensure(source, target, notify=said.append).reused
    assert any("cannot lock" in text for text in said)


def test_a_lock_directory_of_somebody_else_is_refused(
    source: Path, target: Path, special: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(special))
    (special / "multihost-env").mkdir(mode=0o755)
    with pytest.raises(NotReady, match="not a directory of ours alone"):
        ensure(source, target)
    (special / "multihost-env").chmod(0o700)
    ensure(source, target)
    locks = list((special / "multihost-env").iterdir())
    assert [path.suffix for path in locks] == [".lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own what is another's")
def test_the_runtime_directory_of_another_user_is_left_alone(
    source: Path, target: Path, special: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo -E` keeps the caller's XDG_RUNTIME_DIR; a directory of root's in it would lock the caller out."""
    (special / "run").mkdir()
    os.chown(special / "run", 65534, 65534)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(special / "run"))
    ensure(source, target)
    assert list((special / "run").iterdir()) == []


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_the_callers_umask_changes_no_mode_of_a_file(
    source: Path, target: Path, umask: int, special: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if umask & 0o700 and os.geteuid() != 0:
        pytest.skip("who takes their own rights away can make nothing")
    (special / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(special / "run"))
    old = os.umask(umask)
    try:
        made = ensure(source, target)
    finally:
        os.umask(old)
    modes = {stat.S_IMODE((made.path / "lib" / f"pkg {n}" / "__init__.py").stat().st_mode) for n in range(8)}
    assert modes == {0o444}
    assert stat.S_IMODE((special / "run" / "multihost-env").stat().st_mode) == 0o700
    with contextlib.suppress(NotReady):
        assert ensure(source, target).reused
