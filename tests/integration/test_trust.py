"""What somebody else can change is not run, whatever they planted; what is shared on purpose has the modes for it.

A second user is needed for most of this, so most of it needs root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_multihost_env import files, provision
from pytest_multihost_env.errors import MultihostError, NotReady, UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import actor, garbage, manifest, pins, publish, sharing, trust
from pytest_multihost_env.provision.publish import DOOMED, READY
from pytest_multihost_env.provision.sharing import Sharing
from pytest_multihost_env.provision.trust import Trust
from tests.integration.tiny import TinyBuilder, finish, make_source

MALLORY = 65534
HOST = os.uname().nodename
ROOT = Path(__file__).parents[2]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a second user")


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that every user can look into; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory(prefix="it's #1 ü ") as text:
        path = Path(text)
        path.chmod(0o755)
        yield path


@pytest.fixture
def source(base: Path) -> Path:
    return make_source(base / "source")


@pytest.fixture
def target(base: Path) -> Path:
    (base / "shared").mkdir(mode=0o755)
    return base / "shared" / "python_env"


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    os.setegid(MALLORY)
    os.seteuid(MALLORY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def ensure(source: Path, target: Path, **more: object) -> Generation:
    request = provision.ProvisionRequest(source, target, **more)
    return provision.ensure(
        request, notify=lambda text: None, recipe=provision.Recipe(TinyBuilder(), finish), user=actor.myself()
    )


def theirs(path: Path) -> Path:
    os.chown(path, MALLORY, MALLORY, follow_symlinks=False)
    return path


# -- T1: what a second user planted --------------------------------------------------------------------------------


@dataclasses.dataclass
class Scene:
    """What stands when the attacker comes, and a file that must stay as it is."""

    base: Path
    target: Path
    made: Generation
    victim: Path

    @property
    def home(self) -> Path:
        return self.target.parent / ".python_env.d"

    @property
    def slot(self) -> Path:
        return self.made.path.parent.parent


PLANTED: dict[str, tuple[Callable[[Scene], object], str]] = {}
"""By name: how it is planted, and what the refusal says; "" where what was planted changes nothing."""


def planted(name: str, says: str) -> Callable[[Callable[[Scene], object]], Callable[[Scene], object]]:
    def add(plant: Callable[[Scene], object]) -> Callable[[Scene], object]:
        PLANTED[name] = plant, says
        return plant

    return add


@planted("a world-writable parent", "writable for everybody")
def _(scene: Scene) -> None:
    scene.target.parent.chmod(0o777)


@planted("a parent that a group of several may write", "writable for")
def _(scene: Scene) -> None:
    os.chown(scene.target.parent, 0, MALLORY)
    scene.target.parent.chmod(0o775)


@planted("a parent that an access list opens", "access list")
def _(scene: Scene) -> None:
    # acl(5): version 2, then user::rwx user:65534:rwx group::r-x mask::rwx other::r-x
    entries = ((1, 7, -1), (2, 7, MALLORY), (4, 5, -1), (16, 7, -1), (32, 5, -1))
    data = (2).to_bytes(4, "little")
    for tag, bits, who in entries:
        data += tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
    try:
        os.setxattr(scene.target.parent, "system.posix_acl_access", data)
    except OSError:
        pytest.skip("this file system has no access lists")


@planted("a parent of theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    theirs(scene.target.parent)


@planted("a sticky directory in which the store is theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    scene.target.parent.chmod(0o1777)
    theirs(scene.home)


@planted("a sticky directory", "")
def _(scene: Scene) -> None:
    scene.target.parent.chmod(0o1777)


@planted("a store that is a symlink of theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    moved = scene.base / "moved"
    scene.home.rename(moved)
    scene.home.symlink_to(moved)
    theirs(scene.home)


@planted("a slot of theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    theirs(scene.slot)


@planted("a READY of theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    theirs(scene.slot / READY)


@planted("a READY of theirs that is a symlink with text", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    text = (scene.slot / READY).read_text()
    (scene.slot / READY).unlink()
    (scene.slot / READY).symlink_to(text)
    theirs(scene.slot / READY)


@planted("a READY that is a pipe", "not a plain file")
def _(scene: Scene) -> None:
    (scene.slot / READY).unlink()
    os.mkfifo(scene.slot / READY)
    theirs(scene.slot / READY)


@planted("a READY that is a device", "not a plain file")
def _(scene: Scene) -> None:
    (scene.slot / READY).unlink()
    try:
        os.mknod(scene.slot / READY, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except OSError:
        pytest.skip("no device can be made here")


@planted("a READY that leads out of the store", "not a record of this package")
def _(scene: Scene) -> None:
    record = json.loads((scene.slot / READY).read_text())
    (scene.slot / READY).unlink()
    (scene.slot / READY).write_text(json.dumps({**record, "attempt": f"../../../../{scene.victim.name}"}))


@planted("an interpreter of theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    theirs(scene.made.python)


@planted("an interpreter that everybody may write", "writable for everybody")
def _(scene: Scene) -> None:
    scene.made.python.chmod(0o777)


@planted("an interpreter that is a symlink to theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    other = scene.base / "python"
    other.write_text("#!/bin/sh\necho mallory\n")
    other.chmod(0o755)
    theirs(other)
    scene.made.python.unlink()
    scene.made.python.symlink_to(other)


@planted("an interpreter that is a hard link to the victim", "")
def _(scene: Scene) -> None:
    scene.made.python.unlink()
    scene.made.python.hardlink_to(scene.victim)


@planted("an attempt of theirs in place of the published one", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    aside = scene.made.path.with_name("aside")
    scene.made.path.rename(aside)
    shutil.copytree(aside, scene.made.path, symlinks=True)
    for path in (scene.made.path, *scene.made.path.rglob("*")):
        theirs(path)


@planted("a manifest of theirs", "")
def _(scene: Scene) -> None:
    (scene.made.path / manifest.NAME).chmod(0o644)
    (scene.made.path / manifest.NAME).write_bytes(b"{}\n")
    theirs(scene.made.path / manifest.NAME)


@planted("a target that is a symlink to theirs", "was not made by multihost-env")
def _(scene: Scene) -> None:
    scene.target.unlink()
    (scene.base / "evil").mkdir()
    scene.target.symlink_to(scene.base / "evil")
    theirs(scene.target)


@planted("a target that is a directory of theirs", "and no environment")
def _(scene: Scene) -> None:
    scene.target.unlink()
    theirs(scene.target).mkdir() if scene.target.exists() else scene.target.mkdir()
    theirs(scene.target)


@planted("a target that is a pipe", "is a file")
def _(scene: Scene) -> None:
    scene.target.unlink()
    os.mkfifo(scene.target)
    theirs(scene.target)


@planted("a target that is a hard link to the victim", "is a file")
def _(scene: Scene) -> None:
    scene.target.unlink()
    scene.target.hardlink_to(scene.victim)


@planted("a way through a symlink of theirs", f"belongs to uid {MALLORY}")
def _(scene: Scene) -> None:
    moved = scene.base / "moved"
    scene.target.parent.rename(moved)
    scene.target.parent.symlink_to(moved)
    theirs(scene.target.parent)


@planted("a pin that is a pipe of theirs", "")
def _(scene: Scene) -> None:
    os.mkfifo(scene.slot / "pins" / "n1.x.1.1.x")
    theirs(scene.slot / "pins" / "n1.x.1.1.x")


@planted("a lease record of theirs for a build that is wanted", "")
def _(scene: Scene) -> None:
    (scene.slot / "lease" / "c00000009").write_text('{"token":"feed","holder":1}')
    theirs(scene.slot / "lease" / "c00000009")


@as_root
@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_refused_or_changes_nothing(base: Path, source: Path, target: Path, name: str) -> None:
    """T1: refused, or another whole environment of ours; and the victim's file stays as it is."""
    victim = base / "victim"
    victim.write_text("precious")
    before = victim.stat()
    scene = Scene(base, target, ensure(source, target), victim)
    plant, says = PLANTED[name]
    plant(scene)
    refusal = None
    try:
        made = ensure(source, target)
    except MultihostError as error:
        refusal = error
    if refusal is not None:
        assert says, refusal
        assert says in str(refusal)
        assert refusal.hint
    else:
        assert not says, "it was used"
        assert provision.verify(made.path, prove=lambda env, source: "fine")
        assert made.python.read_text() == "#!/bin/sh\necho tiny\n"
        assert {path.lstat().st_uid for path in made.path.rglob("*")} == {0}
    assert victim.read_text() == "precious"
    after = victim.stat()
    assert (before.st_mode, before.st_uid, before.st_mtime_ns) == (after.st_mode, after.st_uid, after.st_mtime_ns)


def test_enough_is_planted() -> None:
    assert len(PLANTED) >= 20


@as_root
def test_what_somebody_made_before_us_is_not_adopted(base: Path, source: Path) -> None:
    """In /tmp anybody may come first: the store's name is known, and `mkdir -p` would be content."""
    (base / "tmp").mkdir()
    (base / "tmp").chmod(0o1777)
    target = base / "tmp" / "python_env"
    for made in (target.with_name(".python_env.d"), target.with_name(".python_env.d") / "v1"):
        made.mkdir(exist_ok=True)
        theirs(made)
        with pytest.raises(NotReady, match=f"belongs to uid {MALLORY}"):
            ensure(source, target)
        os.chown(made, 0, 0)
    assert list((base / "tmp" / ".python_env.d" / "v1").rglob("*/att/*")) == []
    shutil.rmtree(target.with_name(".python_env.d"))
    assert ensure(source, target).path.exists()


@as_root
def test_somebody_else_can_neither_doom_nor_pin_nor_clear_up(source: Path, target: Path) -> None:
    made = ensure(source, target)
    slot = publish.slot_of(made.path)
    with somebody_else():
        with pytest.raises(PermissionError):
            files.publish_once(slot.pins / DOOMED, b"{}")
        said: list[str] = []
        assert pins.hold(slot, actor.myself(), said.append) is None
        assert "cannot be pinned" in said[0]
        with pytest.raises(NotReady, match="belongs to uid 0") if MALLORY == 0 else contextlib.nullcontext():
            items = garbage.collect(target, garbage.Wish(keep=0))
        assert all(item.kept for item in items)
    assert not slot.is_doomed()
    assert provision.verify(made.path, prove=lambda env, source: "fine")


# -- groups --------------------------------------------------------------------------------------------------------


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A machine on which ada has a group of her own, and ada and bob are in the group gpu."""
    users = {
        name: pwd.struct_passwd((name, "x", uid, gid, "", "/", ""))
        for name, uid, gid in (("root", 0, 0), ("ada", 2001, 2001), ("bob", 2002, 2002), ("eve", 2003, 100))
    }
    groups = {
        name: grp.struct_group((name, "x", gid, members))
        for name, gid, members in (
            ("root", 0, []),
            ("ada", 2001, []),
            ("bob", 2002, ["eve"]),
            ("gpu", 3000, ["ada", "bob"]),
            ("users", 100, []),
        )
    }

    def one(table: dict[str, object], attribute: str) -> Callable[[object], object]:
        def find(wanted: object) -> object:
            for entry in table.values():
                if wanted in {entry[0], getattr(entry, attribute)}:
                    return entry
            raise KeyError(wanted)

        return find

    monkeypatch.setattr(pwd, "getpwall", lambda: list(users.values()))
    monkeypatch.setattr(pwd, "getpwnam", one(users, "pw_uid"))
    monkeypatch.setattr(pwd, "getpwuid", one(users, "pw_uid"))
    monkeypatch.setattr(grp, "getgrgid", one(groups, "gr_gid"))
    monkeypatch.setattr(grp, "getgrnam", one(groups, "gr_gid"))
    trust._members.cache_clear()
    yield users
    trust._members.cache_clear()


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("gid", "owner", "named", "safe"),
    [
        (2001, 2001, None, True),  # ada's own group
        (2002, 2001, None, False),  # bob's group has eve in it
        (3000, 2001, None, False),  # gpu, which nobody named
        (3000, 2001, 3000, True),  # gpu, named
        (100, 2001, 3000, False),  # another than the one that was named
        (0, 0, None, True),  # root's
        (7777, 7777, None, True),  # no name here, and the number of its owner: a group of their own on another machine
        (7777, 2001, None, False),
        (100, 2003, None, False),  # everybody's group, of whom this machine knows one
    ],
)
def test_a_group_is_as_good_as_its_members(
    gid: int, owner: int, named: int | None, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2001)
    assert Trust(group=named).lets_write(gid, owner) == safe


@pytest.mark.usefixtures("people")
def test_members_of_the_named_group_may_own_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2001)
    assert Trust(group=3000).users == {0, 2001, 2002}
    assert Trust(owners=frozenset({2003})).users == {0, 2001, 2003}
    assert (trust.user("bob"), trust.user("17"), trust.group("gpu")) == (2002, 17, 3000)
    assert str(Trust(frozenset({2003}), 3000)) == "eve, the members of the group gpu"
    with pytest.raises(UsageProblem, match="no user mallory"):
        trust.user("mallory")
    with pytest.raises(UsageProblem, match="no group mallory"):
        trust.group("mallory")


@pytest.mark.parametrize(
    ("group", "umask", "bits"),
    [(None, None, 0o022), (7, None, 0o002), (7, "007", 0o007), (None, "077", 0o077), (None, "0027", 0o027)],
)
def test_how_to_share(group: int | None, umask: str | None, bits: int) -> None:
    assert sharing.parse(group, umask) == Sharing(group, bits)


@pytest.mark.parametrize(("group", "umask"), [(None, "002"), (7, "000"), (None, "9"), (None, "700"), (7, "rwx")])
def test_how_not_to_share(group: int | None, umask: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        sharing.parse(group, umask)
    assert caught.value.expected


def modes(root: Path) -> dict[str, tuple[str, int]]:
    """By path: mode and group of every entry, with what is random in a name left out."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        words = [re.sub(rf"^([cr]0\d+|{HOST}[-.].*?)(?=\.json$|$)", "*", part) for part in path.relative_to(root).parts]
        found["/".join(words)] = (stat.filemode(status.st_mode), status.st_gid)
    return found


@as_root
@pytest.mark.parametrize(("group", "mask"), [(None, 0o022), (MALLORY, 0o002), (MALLORY, 0o007), (None, 0o077)])
def test_every_entry_has_its_mode_whatever_the_callers_umask(
    base: Path, source: Path, group: int | None, mask: int
) -> None:
    """T5, rows 20 and 29."""
    (source / "private.py").write_text("x")
    (source / "private.py").chmod(0o600)
    (source / "lib" / "pkg 1").chmod(0o700)
    seen = []
    for number, umask in enumerate((0, 0o022, 0o077)):
        target = base / f"shared {number}" / "python_env"
        target.parent.mkdir()
        before = os.umask(umask)
        try:
            ensure(source, target, sharing=Sharing(group, mask), trust=Trust(group=group))
        finally:
            assert os.umask(before) == umask, "the caller's umask is the caller's"
        seen.append(modes(target.with_name(".python_env.d")))
    assert seen[0] == seen[1] == seen[2]
    for path, (mode, gid) in seen[0].items():
        assert gid == (group or 0), path
        if mode[0] == "d" and (group is not None or "pkg 1" not in path):
            assert mode == stat.filemode(stat.S_IFDIR | Sharing(group, mask).directory()), path
        elif mode[0] == "-" and "/att/" in path and not path.endswith(".json"):
            assert "w" not in mode, path
            if group is not None:
                assert mode[4] == "r", path
                assert (mode[6] in "xs") == (mode[3] in "xs"), path


@as_root
def test_a_member_of_the_group_builds_pins_and_clears_up(base: Path, source: Path) -> None:
    """Rows 20 and 29: another user of the group goes on where the first one stopped."""
    shared = base / "project"
    shared.mkdir()
    os.chown(shared, 0, 100)
    shared.chmod(0o2775)
    target = shared / "python_env"
    with pytest.raises(NotReady, match="is writable for the group users") as caught:
        ensure(source, target)
    assert "--multihost-group=users" in str(caught.value.hint)
    how = {"sharing": Sharing(100, 0o002), "trust": Trust(frozenset({MALLORY}), 100)}
    first = ensure(source, target, **how)
    os.setgroups([100])
    try:
        with somebody_else():
            used = ensure(source, target, **how)
            assert used.path == first.path
            assert {pin.path.lstat().st_uid for pin in pins.found(publish.slot_of(used.path), None)} == {0, MALLORY}
            (source_of_theirs := base / "project" / "more").mkdir()
            second = ensure(make_source(source_of_theirs / "source"), target, force=True, **how)
            assert second.path.lstat().st_uid == MALLORY
    finally:
        os.setgroups([])
    assert target.samefile(second.path)
    for pin in pins.found(publish.slot_of(first.path), None):
        pin.path.unlink()
    os.setgroups([100])
    try:
        with somebody_else():
            items = {str(item.path): item for item in garbage.collect(target, garbage.Wish(trust=how["trust"]))}
    finally:
        os.setgroups([])
    assert items[str(first.path)].left == ()
    assert not first.path.exists()
    assert ensure(source, target, **how).path == second.path


@as_root
def test_without_the_groups_leave_a_members_environment_is_not_run(base: Path, source: Path, target: Path) -> None:
    made = ensure(source, target, sharing=Sharing(100, 0o002), trust=Trust(group=100))
    with pytest.raises(NotReady, match="writable for the group users"):
        ensure(source, target)
    with pytest.raises(NotReady, match="writable for the group users"):
        garbage.collect(target)
    assert not provision.verify(made.path, prove=lambda env, source: "fine")


def test_a_group_that_we_are_not_in_is_said(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(NotReady, match="cannot be given to the group with gid 12345") as caught:
        ensure(source, target, sharing=Sharing(12345, 0o002), trust=Trust(group=12345))
    assert "member" in str(caught.value.expected)


# -- T4: a server that maps root to somebody else ------------------------------------------------------------------

SQUASHED = """
import ctypes, os, sys
from pathlib import Path
from pytest_multihost_env import provision
from pytest_multihost_env.errors import MultihostError
from tests.integration.tiny import TinyBuilder, finish

def ensure(target):
    trust = provision.Trust(frozenset({65534}))  # in the namespace, what is the true root's is shown as nobody's
    request = provision.ProvisionRequest(Path(sys.argv[1]), Path(target), trust=trust)
    provision.ensure(request, notify=print, recipe=provision.Recipe(TinyBuilder(), finish))

ensure(sys.argv[2])  # by the true root: afterwards this Python's own files may be out of reach
os.setgroups([])
os.setresuid(65534, 65534, 65534)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: else /proc/self is still root's
if libc.unshare(0x10000000) != 0:  # CLONE_NEWUSER
    sys.exit(77)
Path("/proc/self/uid_map").write_text("0 65534 1")
os.environ["TMPDIR"] = os.environ["XDG_RUNTIME_DIR"] = "/tmp"
assert os.geteuid() == 0
try:
    ensure(sys.argv[3])
except MultihostError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@as_root
def test_root_on_a_server_that_squashes_root_is_told_so(base: Path, source: Path, target: Path) -> None:
    """T4: root of a user namespace has no rights over what is another's, as root has none on such an export."""
    argv = [sys.executable, "-c", SQUASHED, str(source), str(base / "first"), str(target)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("needs user namespaces")
    assert done.returncode == 3, done.stderr
    assert "though this is root" in done.stdout
    assert "root_squash" in done.stdout
    assert list(target.parent.iterdir()) == []


@as_root
def test_a_server_that_maps_users_is_recognised_by_its_first_answer(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other half of T4, which no namespace shows: the server lets root write, and the result is somebody's."""
    real = Path.mkdir

    def mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        real(path, mode, parents, exist_ok)
        os.chown(path, MALLORY, MALLORY)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(
        NotReady, match=f"what root, as which this runs, makes there belongs to uid {MALLORY}"
    ) as caught:
        ensure(source, target)
    assert "root_squash" in str(caught.value.hint)
    assert list(target.parent.iterdir()) == []
