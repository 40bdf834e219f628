"""Whatever tree was published and whatever is done to it: each tier finds what it claims to find, and nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from pytest_multihost_env.model import TIERS
from pytest_multihost_env.provision import manifest, standing
from pytest_multihost_env.provision.adopt import Damaged
from pytest_multihost_env.provision.scan import scan

METADATA, DIRECTORIES, STAT, CONTENT = TIERS
names = st.sampled_from(
    ["a", "b", "bin", "caf\udce9", "new\nline", "back\\slash", "ü", "__pycache__", "x.pyc", ".pth", "-"]
)
leaves = st.binary(max_size=20) | st.sampled_from(["a", "nowhere", "../x"])
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda below: st.dictionaries(names, leaves | below, max_size=4),
    max_leaves=10,
)
MUTATIONS = ("flip", "grow", "touch", "chmod", "delete", "retype", "add")


def fill(directory: Path, tree: dict[str, object]) -> None:
    """Make a tree: bytes are files, text is a symlink."""
    for name, what in tree.items():
        path = directory / name
        if isinstance(what, bytes):
            path.write_bytes(what)
        elif isinstance(what, str):
            path.symlink_to(what)
        else:
            path.mkdir()
            fill(path, what)


def mutate(path: Path, how: str) -> str:
    """Do one thing to `path` and return what was done, which depends on what it is."""
    if how == "add" and path.is_dir() and not path.is_symlink():
        (path / "added").write_text("x")
        return "add"
    if path.is_symlink() or path.is_dir() or how in {"delete", "add"}:
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
        return "delete"
    before = path.stat()
    if how == "retype":
        path.unlink()
        path.mkdir()
    elif how == "touch":
        os.utime(path, ns=(1, before.st_mtime_ns + 1))
    elif how == "chmod":
        path.chmod(before.st_mode ^ 0o100)
    elif how == "flip" and before.st_size:
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.write_bytes(path.read_bytes() + b"x")
        return "grow"
    return how


def claims(tier: str, done: str, place: str) -> bool:
    """Return whether a tier says that it finds what was done in the directory `place`."""
    if done == "flip":
        return tier == CONTENT or (tier == STAT and place == "bin")
    if tier in {STAT, CONTENT} or place in {"", "bin"}:
        return True
    return tier == DIRECTORIES and done in {"add", "delete", "retype"}


def is_damaged(root: Path, known: bytes, tier: str) -> bool:
    try:
        standing.check(root, known, tier)
    except Damaged:
        return True
    return False


@hypothesis.given(trees, st.data())
@hypothesis.settings(max_examples=150)
def test_each_tier_finds_what_it_claims(tree: dict[str, object], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(prefix="it's #1 ü") as name:
        root = Path(name)
        (root / "bin").mkdir()
        fill(root, {key: what for key, what in tree.items() if key != "bin"})
        known = manifest.render(manifest.Header("key", name, "/b", "3.11", "0", {}), scan(root))
        (root / manifest.NAME).write_bytes(known)
        for tier in TIERS:
            standing.check(root, known, tier)
        paths = [path for path in sorted(root.rglob("*")) if path.name != manifest.NAME]
        victim = data.draw(st.sampled_from(paths))
        relative = victim.relative_to(root)
        # What Python may write at any time is no difference when it comes.
        done = mutate(victim, data.draw(st.sampled_from(MUTATIONS)))
        place = str(relative if done == "add" else relative.parent)
        hypothesis.assume(not (done == "add" and "__pycache__" in relative.parts))
        found = {tier for tier in TIERS if is_damaged(root, known, tier)}
        assert found == {tier for tier in TIERS if claims(tier, done, "" if place == "." else place)}, (done, victim)
