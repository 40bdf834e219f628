"""Laws of a copy: it equals its source entry by entry, whoever made it, and its digests are those of what it holds."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env import files
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import digests
from pytest_multihost_env.provision.copy import Hire, copy_tree
from pytest_multihost_env.provision.crew import Alone, Threads

CREWS: dict[str, Hire] = {
    "alone": lambda setup, skip: Alone(setup._replace(portion=1), skip),
    "threads": lambda setup, skip: Threads(setup._replace(portion=2), skip, 3),
}

# Names are bytes: all but "/" and NUL, and the two that every directory has.
names = st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"\n"))
names = names.filter(lambda name: name not in {b".", b".."}) | st.sampled_from([b"it's #1 \xc3\xbc", b"x" * 200])
times = st.integers(0, 4_000_000_000_999_999_999)
contents = st.binary(max_size=50) | st.integers(0, 40).map(lambda size: b"\1\2\3" * (size << 15))
regular = st.tuples(st.just("file"), st.integers(0, 0o777).map(lambda mode: mode | 0o400), times, contents)
links = st.tuples(st.just("link"), st.just(0o777), times, names | st.just(b"../up") | st.just(b"/nowhere/at all"))


def directory_of(children: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    entries = st.dictionaries(names, children, max_size=5)
    return st.tuples(st.just("directory"), st.integers(0, 0o777).map(lambda mode: mode | 0o500), times, entries)


trees = st.recursive(regular | links, directory_of, max_leaves=12)


def make(path: Path, entry: tuple[str, int, int, object]) -> None:
    kind, mode, time, inside = entry
    if kind == "link":
        path.symlink_to(os.fsdecode(inside))
    elif kind == "file":
        path.write_bytes(inside)
        path.chmod(mode)
    else:
        path.mkdir()
        for name, child in inside.items():
            make(path / os.fsdecode(name), child)
        path.chmod(mode)
    os.utime(path, ns=(time, time), follow_symlinks=False)


def described(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *top.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(top))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.mark.parametrize("crew", CREWS)
@given(entries=st.dictionaries(names, trees, max_size=6))
def test_a_copy_is_equal_to_its_source(crew: str, entries: dict[bytes, tuple[str, int, int, object]]) -> None:
    top = Path(tempfile.mkdtemp(prefix="copy-"))
    try:
        make(top / "source", ("directory", 0o755, 1, entries))
        work = Work()
        copied = copy_tree(top / "source", top / "copy", work=work, digests=True, hire=CREWS[crew])
        before, after = described(top / "source"), described(top / "copy")
        assert after == before
        assert copied.files == len(work.read)
        for name, told in work.read.items():
            status = (top / "copy" / name).lstat()
            assert (told.inode, told.size, told.mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)
            assert told.digest == digests.of_file(str(top / "copy" / name))
            assert status.st_nlink == 1
    finally:
        assert files.remove_tree(top) == ()
