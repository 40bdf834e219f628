"""A manifest says what went in, whatever the names; and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

from pytest_multihost_env.model import ReadFile
from pytest_multihost_env.provision import digests, manifest, walk
from pytest_multihost_env.provision.manifest import DIRECTORY, FILE, LINK, Entry
from pytest_multihost_env.provision.scan import scan
from pytest_multihost_env.provision.walk import escaped

NASTY = [
    "new\nline",
    "tab\t",
    'quo"te',
    "it's",
    "back\\slash",
    "\\x0a",
    "caf\udce9",
    "\x1b[31m",
    "\u2028",
    "\x85",
    " ",
    "-",
    "ü",
]
names = st.sampled_from(NASTY) | st.text(min_size=1, max_size=8).filter(
    lambda name: "/" not in name and "\0" not in name and name not in {".", ".."}
)
modes, times = st.integers(0, 0o7777), st.integers(-(1 << 62), 1 << 62)
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
texts = st.sampled_from(NASTY) | st.text(min_size=1).filter(lambda text: "\0" not in text)
contents = st.builds("{}:{}".format, st.sampled_from(["blake3", "sha256"]), hexes)
leaves = st.tuples(st.just(FILE), modes, st.integers(0, 1 << 60), times, contents) | st.tuples(
    st.just(LINK), st.just(0), st.just(0), st.just(0), texts
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda below: st.dictionaries(names, leaves | st.tuples(modes, times, below), max_size=4),
    max_leaves=12,
)
headers = st.builds(
    manifest.Header,
    key=st.text(),
    path=texts,
    source=texts,
    python=st.text(),
    tool=st.text(),
    builder=st.dictionaries(st.text(), st.text() | st.integers()),
    added=st.lists(st.text()).map(tuple),
    origin=st.dictionaries(st.text(), st.text()),
    conditions=st.text(),
    facts=st.dictionaries(st.text(), st.text()),
    notes=st.lists(st.text()).map(tuple),
)


def flat(tree) -> list[Entry]:
    """Return the entries of a tree in the order of a scan."""
    found, level = [], [("", tree)]
    while level:
        below = []
        for path, inner in level:
            for name in sorted(inner):
                full = f"{path}/{name}" if path else name
                if len(inner[name]) == 3:
                    mode, time, deeper = inner[name]
                    found.append(Entry(full, DIRECTORY, mode, mtime_ns=time))
                    below.append((full, deeper))
                else:
                    found.append(Entry(full, *inner[name]))
        level = below
    return found


@hypothesis.given(headers, trees)
def test_it_says_what_went_in(header: manifest.Header, tree: object) -> None:
    entries = tuple(flat(tree))
    data = manifest.render(header, entries)
    known = manifest.parse(data)
    assert known.entries == entries
    assert dataclasses.replace(known.header, look="") == header
    assert manifest.parse_header(data) == known.header
    assert manifest.render(header, entries) == data
    text = data.decode("utf-8")
    assert all(character.isprintable() or character in "\n\t" for character in text if ord(character) < 0xA0)


@hypothesis.given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_two_names_never_look_alike(two: list[str]) -> None:
    first, second = map(escaped, two)
    assert first != second
    assert [manifest.plain(first), manifest.plain(second)] == two


@hypothesis.given(st.binary() | st.binary().map(b"multihost-env manifest 2\n".__add__))
def test_noise_is_no_manifest(data: bytes) -> None:
    for read in (manifest.parse, manifest.parse_header, lambda data: dict(manifest.Listings(data))[""]):
        with contextlib.suppress(ValueError):
            read(data)
            raise AssertionError("it was taken for a manifest")


@hypothesis.given(trees, st.data())
def test_a_part_of_one_is_another_or_none(tree: object, data: st.DataObject) -> None:
    header = manifest.Header("key", "/a", "/b", "3.11", "0", {})
    whole = manifest.render(header, flat(tree))
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with contextlib.suppress(ValueError):
        assert len(manifest.parse(part).entries) < len(flat(tree))
    assert manifest.digest(part) != manifest.digest(whole)


@hypothesis.given(trees, st.data())
def test_a_changed_byte_is_an_error_or_another_content(tree: object, data: st.DataObject) -> None:
    header = manifest.Header("key", "/a", "/b", "3.11", "0", {})
    whole = bytearray(manifest.render(header, flat(tree)))
    where = data.draw(st.integers(0, len(whole) - 1))
    whole[where] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        manifest.parse(bytes(whole))


def fill(directory: Path, tree) -> None:
    """Make what a tree says, as far as a file system can; contents are names."""
    for name, what in tree.items():
        path = directory / name
        if len(what) == 3:
            path.mkdir()
            fill(path, what[2])
        elif what[0] == LINK:
            path.symlink_to(what[4][:50])
        else:
            path.write_bytes(os.fsencode(name) * 3)


def possible(tree) -> bool:
    return all(
        len(name.encode("utf-8", "surrogateescape")) < 200 and (len(what) != 3 or possible(what[2]))
        for name, what in tree.items()
    )


@hypothesis.given(trees.filter(possible))
@hypothesis.settings(max_examples=50)
def test_a_real_tree_is_told_as_it_is(tree: object) -> None:
    with tempfile.TemporaryDirectory(prefix="it's #1 ü") as name:
        root = Path(name)
        fill(root, tree)
        found = list(scan(root))
        data = manifest.render(manifest.Header("key", name, "/b", "3.11", "0", {}), found)
        assert list(manifest.parse(data).entries) == found
        assert [entry.path for entry in found] == [entry.path for entry in flat(tree)]
        assert walk.load(walk.dump(walk.whole(name, manifest.NAME))).digest == manifest.parse_header(data).look
        assert dict(walk.parted(walk.whole(name, manifest.NAME).text)) == {
            path: listing.visible for path, listing in manifest.Listings(data).items()
        }
        for entry in found:
            if entry.type == FILE:
                assert entry.content == digests.of_file(f"{name}/{entry.path}")


@hypothesis.given(st.sampled_from(["nothing", "inode", "size", "mtime_ns"]))
@hypothesis.settings(max_examples=8)
def test_what_was_read_is_believed_while_it_is_the_same_file(changed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "file"
        file.write_text("content")
        status = file.stat()
        note = {"inode": status.st_ino, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if changed != "nothing":
            note[changed] += 1
        (entry,) = scan(Path(name), {"file": ReadFile(**note, digest="blake3:noted")})
        assert (entry.content == "blake3:noted") == (changed == "nothing")
