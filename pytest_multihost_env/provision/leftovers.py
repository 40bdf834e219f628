"""Texts of an environment that still name the place it was copied from, after all known places were rewritten."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from pytest_multihost_env.provision import manifest, mishaps, records, scripts
from pytest_multihost_env.provision.paths import Replacer

_LOOKERS = 8
_LIMIT = 1 << 20  # bytes of a file that are looked at; a text that an installer wrote a path into is small
_BINARY = re.compile(r"\.so(\.|$)|\.(pyc|a|o|png|jpg|gif|svg|ttf|npy|npz|gz|xz|zip|whl|pdf|exe)$")
_MENDED = (".pc", ".cmake", ".la", ".mk", ".json", ".cfg", ".conf", ".ini", ".sh")
"""Kinds of texts in which a build or a tool looks a directory up: `pkg-config`, CMake, libtool, a Jupyter kernel."""
_FEW = 5


def mend(env: Path, replacer: Replacer) -> list[str]:
    """Rewrite the old paths in texts that only name directories, and return a sentence on the texts that keep one.

    What keeps one is harmless as a rule (a log, a note on how something was built) and is named, not refused: what the
    environment really uses is shown by the proof, with the source out of sight.  A new path with blanks or quotes would need
    each text's own grammar, so such an environment keeps more of them.
    """
    replacer = Replacer(env, [Path(path) for path in replacer.old], glued=True)
    escaped = _escaped(replacer)
    with mishaps.named("looking for old paths"):
        found = sorted(scan(env, replacer))
        plain = shlex.quote(replacer.new) == replacer.new
        changes: dict[Path, bytes] = {}
        left: list[str] = []
        for path in found:
            content = path.read_bytes()
            text = content.decode("utf-8", "surrogateescape")
            if not any(form in text for form in escaped) and not replacer.names_old(
                text
            ):  # another directory with the same beginning
                continue
            if plain and (path.suffix in _MENDED or (path.parent.name == "bin" and content.startswith(b"#!"))):
                text = replacer.text(text)
                changes[path] = text.encode("utf-8", "surrogateescape")
            if replacer.names_old(text) or any(form in text for form in escaped):
                left.append(str(path.relative_to(env)))
        for path, fresh in changes.items():
            scripts.replace(path, fresh)
        records.update(env, changes)
    if not left:
        return []
    more = f" and {len(left) - _FEW} more" if len(left) > _FEW else ""
    return [f"these files still name {replacer.old[-1]}: {', '.join(left[:_FEW])}{more}"]


def scan(env: Path, replacer: Replacer) -> Iterator[Path]:
    """Yield the text files below `env`, but for the interpreter's own, in which an old path stands."""
    old = [os.fsencode(path) for path in (*replacer.old, *_escaped(replacer))]
    with concurrent.futures.ThreadPoolExecutor(_LOOKERS) as pool:  # on shared storage each look is a wait
        for found in pool.map(lambda item: _look(item[0], item[1], old), _folders(env)):
            yield from found


def _escaped(replacer: Replacer) -> list[str]:
    """Return the old paths as JSON writes them, where that differs."""
    forms = [json.dumps(path)[1:-1] for path in replacer.old]
    return [form for form, path in zip(forms, replacer.old, strict=True) if form != path]


def _folders(env: Path) -> Iterator[tuple[str, list[str]]]:
    for folder, below, names in os.walk(env):
        below[:] = [name for name in below if name != "__pycache__" and not (folder == str(env) and name == "py")]
        texts = [name for name in names if not _BINARY.search(name) and name not in {"pyvenv.cfg", manifest.NAME}]
        if texts:
            yield folder, texts


def _look(folder: str, names: list[str], old: list[bytes]) -> list[Path]:
    found = []
    for name in names:
        path = f"{folder}/{name}"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # a symlink
            continue
        try:
            data = os.read(descriptor, _LIMIT)
        finally:
            os.close(descriptor)
        if any(prefix in data for prefix in old) and b"\0" not in data:
            found.append(Path(path))
    return found
