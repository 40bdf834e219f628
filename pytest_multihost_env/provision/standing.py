"""Whether a published environment is still as its manifest says, looked at as closely as a tier says (`model.TIERS`).

What Python itself adds, bytecode beside modules that had none, is no damage.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from pytest_multihost_env.model import CONTENT, DIRECTORIES, METADATA, Checked
from pytest_multihost_env.provision import digests, manifest, walk
from pytest_multihost_env.provision.adopt import Damaged
from pytest_multihost_env.provision.compare import compare, is_bytecode
from pytest_multihost_env.provision.hashing import look_again
from pytest_multihost_env.provision.manifest import Listing, Listings
from pytest_multihost_env.provision.source import sites
from pytest_multihost_env.provision.walk import Block, Whole

_FEW = 3
_OF_A_FILE = 5
"""Fields of a file's line in a manifest; those of links and directories are fewer."""
_NO_DIRECTORY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES}
"""What something else in a directory's place answers."""

Problems = Iterator[str]
Walked = Callable[[], Whole]


def check(path: Path, data: bytes, tier: str, owners: Collection[int] = (), walked: Walked | None = None) -> Checked:
    """Compare the environment at `path` with its manifest and return how it was done.

    Args:
        path: The environment.
        data: Its manifest, which is the one that was published.
        tier: How closely it is looked at.
        owners: Users, besides this one and root, to whom something in it may belong.
        walked: For the tiers `stat` and `content`: returns what a walk shows that was begun elsewhere.

    Raises:
        Damaged: Something is not as it was published; it is named, and what about it.
        OSError: Something cannot be read.
    """
    began = time.monotonic()
    look = _Look(path, data, {0, os.geteuid(), *owners})
    try:
        problems = list(itertools.islice(look.problems(tier, walked or look.walked), _FEW + 1))
    except OSError as error:
        if error.errno not in _NO_DIRECTORY:
            raise
        problems = [f"{error.filename}: {error.strerror}"]
    except ValueError as error:
        raise Damaged(f"{path / manifest.NAME} cannot be read: {error}") from None
    if problems:
        more = "" if len(problems) <= _FEW else ", and there is more"
        raise Damaged(f"{path} is not as it was published: {', '.join(problems[:_FEW])}{more}")
    return Checked(tier, look.entries, time.monotonic() - began)


class _Look:
    def __init__(self, path: Path, data: bytes, owners: AbstractSet[int]) -> None:
        self.entries = 0
        self._root = str(path)
        self._data = data
        self._owners = owners

    @functools.cached_property
    def _known(self) -> Mapping[str, Listing]:
        return Listings(self._data)

    def walked(self) -> Whole:
        """Walk through it now."""
        return walk.whole(self._root, manifest.NAME)

    def problems(self, tier: str, walked: Walked) -> Problems:
        """Yield a phrase for each thing that is not as it was published."""
        if tier == METADATA:
            yield from self._metadata()
        elif tier == DIRECTORIES:
            yield from self._metadata()
            yield from self._directories()
        else:
            yield from self._everything(walked())
            yield from self._contents() if tier == CONTENT else self._decisive()

    def _everything(self, found: Whole) -> Problems:
        self.entries = found.entries
        if found.digest != manifest.parse_header(self._data).look:  # else nothing more is to be compared
            for path, text in walk.parted(found.text):
                yield from self._changed(path, text)
        if not found.uids <= self._owners:
            yield from self._owned(Path(self._root))
            for path, _ in walk.parted(found.text):
                yield from self._foreign(path)

    def _metadata(self) -> Problems:
        """Look at the top and at `bin`, at site-packages by name, and at each distribution's metadata."""
        for path in ("", "bin"):
            yield from self._by_stat(path)
        for site in sites(self._root):
            yield from self._by_name(walk.one(self._root, site, walk.with_names))
            for name in os.listdir(f"{self._root}/{site}"):  # noqa: PTH208
                if name.endswith(".dist-info"):
                    yield from self._by_stat(f"{site}/{name}")

    def _directories(self) -> Problems:
        """Look at each directory by one lstat(2): a name that comes or goes changes its time."""
        for path, known in self._known.items():
            try:
                status = os.lstat(f"{self._root}/{path}")
            except (FileNotFoundError, NotADirectoryError):
                yield f"{walk.escaped(path)} is gone"
                continue
            self.entries += 1
            if status.st_uid not in self._owners:
                yield from self._owned(Path(self._root, path))
            if not stat.S_ISDIR(status.st_mode):
                yield f"{walk.escaped(path)} (type)"
            elif status.st_mtime_ns != known.mtime_ns:  # perhaps bytecode came: here, and only here, each file counts
                yield from self._by_stat(path)

    def _by_name(self, block: Block) -> Problems:
        known = set(_rows(self._known[block.path].visible, slash=True)) if block.path in self._known else set()
        now = set(block.text.split("\n")) if block.text else set()
        self.entries += block.entries
        yield from self._came_and_went(block.path, known, now)

    def _by_stat(self, path: str) -> Problems:
        block = walk.one(self._root, path, walk.with_stat)
        self.entries += block.entries
        yield from self._changed(path, block.text if path else _without_manifest(block.text))
        if not block.uids <= self._owners:
            yield from self._foreign(path)

    def _changed(self, path: str, text: str) -> Problems:
        known = self._known.get(path)
        if known is None or text == known.visible:  # of a directory that came, its parent's names tell
            return
        then, now = _rows(known.visible), _rows(text)
        yield from self._came_and_went(path, then.keys(), now.keys())
        for name in then.keys() & now.keys():
            if then[name] != now[name]:
                yield f"{_shown(path, name)} ({', '.join(_what(then[name], now[name]))})"

    def _came_and_went(self, path: str, then: AbstractSet[str], now: AbstractSet[str]) -> Problems:
        yield from (f"{_shown(path, name)} is gone" for name in sorted(then - now))
        yield from (
            f"{_shown(path, name)} was added" for name in sorted(now - then) if not is_bytecode(_shown(path, name))
        )

    def _foreign(self, path: str) -> Problems:
        """Yield a phrase for each thing in a directory that belongs to somebody else."""
        directory = Path(self._root, path)
        for one in sorted(directory.iterdir()):
            yield from self._owned(one)

    def _owned(self, one: Path) -> Problems:
        uid = one.lstat().st_uid
        if uid not in self._owners:
            yield f"{walk.escaped(str(one.relative_to(self._root)))} belongs to uid {uid}"

    def _decisive(self) -> Problems:
        """Read what decides what runs before any module does: the interpreter, `pyvenv.cfg`, scripts, `.pth` files."""
        top = self._known[""].lines
        bundled = ["py/bin"] if any(line.endswith("\tpy\t-") for line in top) else []
        for directory in ("", "bin", *bundled, *sites(self._root)):
            listing = self._known.get(directory)
            for line in listing.lines if listing is not None else ():
                fields = line.split("\t")
                if len(fields) == _OF_A_FILE and _decides(directory, fields[3], int(fields[1])):
                    yield from self._other_content(_shown(directory, fields[3]), fields[4])

    def _other_content(self, shown: str, content: str) -> Problems:
        try:
            now = digests.of_file(f"{self._root}/{walk.plain(shown)}", digests.algorithm(content))
        except LookupError:
            return  # without blake3: who asks for the tier `content` is told
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            return  # the walk has shown that it is gone, or something else
        if now != content:
            yield f"{shown} (content)"

    def _contents(self) -> Problems:
        known = manifest.parse(self._data).entries
        found = compare(known, look_again(Path(self._root), known))
        yield from (f"{walk.escaped(one.path)} ({', '.join(one.what)})" for one in found.differing)


def _decides(directory: str, name: str, size: int) -> bool:
    if directory in {"bin", "py/bin"}:
        return size < digests.LARGE or name.startswith("python")  # other large ones are programs, and no scripts
    return name.endswith(".pth") if directory else name == "pyvenv.cfg"


def _without_manifest(text: str) -> str:
    return "\n".join([line for line in text.split("\n") if not line.endswith(f"\t{manifest.NAME}")])


def _rows(text: str, *, slash: bool = False) -> dict[str, list[str]]:
    """Return the fields of each line by the name in it, that of a directory with a slash if so wanted."""
    rows = [line.split("\t") for line in text.split("\n")] if text else []
    names = [fields[3 if len(fields) == 4 else 1] for fields in rows]
    if slash:
        names = [
            f"{name}/" if _kind(fields) == stat.S_IFDIR else name for name, fields in zip(names, rows, strict=True)
        ]
    return dict(zip(names, rows, strict=True))


def _kind(fields: list[str]) -> int:
    return stat.S_IFMT(int(fields[0], 8))


def _what(then: list[str], now: list[str]) -> Iterator[str]:
    """Yield what differs between the fields of two lines."""
    if _kind(then) != _kind(now):
        yield "type"
        return
    labels = {4: ("mode", "size", "time"), 3: ("mode", "", "target")}.get(len(then), ("mode",))
    yield from (label for label, before, after in zip(labels, then, now, strict=False) if before != after)


def _shown(path: str, name: str) -> str:
    name = name.rstrip("/")
    return f"{walk.escaped(path)}/{name}" if path else name
