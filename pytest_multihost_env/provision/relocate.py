"""Makes the absolute paths in a copied environment name the place where it lies now."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from pytest_multihost_env.provision import mishaps, records, scripts, shells
from pytest_multihost_env.provision.outside import Outside
from pytest_multihost_env.provision.paths import Replacer

_EDITABLE_CODE = ("__editable__*.py", "_editable_*.py", "_*_editable.py", "_*_editable_loader.py")
_IMPORT = re.compile(r"import[ \t]+(\w+)")


def relocate(env: Path, old: Path, outside: Outside | None = None) -> list[Path]:
    """Rewrite paths below `old` to `env` in the places where installers write them; return the files that changed.

    Console scripts, activate scripts, `pyvenv.cfg`, `.pth` and `.egg-link` files, `direct_url.json` and the finders of
    editable installs (PEP 660).  The name that the environment was made under counts as old as well, when its activate script
    tells another.  Doing it twice changes nothing more.  `RECORD` gets the new digests.

    Args:
        env: The environment, an absolute path.
        old: Where it was copied from.
        outside: Notes what leads outside, and knows what of it is allowed.

    Returns:
        Paths relative to `env`, sorted.

    Raises:
        NotReady: Something is imported from outside of the environment (an editable install, a `.pth` file, a link)
            and is not allowed; each is named.  Or `env` has a character that scripts cannot express.
    """
    scripts.check_path(str(env))
    with mishaps.named("relocating"):
        return _relocate(env, old, outside or Outside())


def _relocate(env: Path, old: Path, outside: Outside) -> list[Path]:
    replacer = replacer_for(env, old)
    changes = dict((*_bin(env, replacer), *_config(env, replacer)))
    for site in records.site_directories(env):
        changes.update(_site(site, replacer, outside))
    outside.check()
    for path, content in changes.items():
        scripts.replace(path, content)
        if path.suffix == ".py":
            for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                stale.unlink()
    records.update(env, changes)
    return sorted(path.relative_to(env) for path in changes)


def replacer_for(env: Path, old: Path) -> Replacer:
    """Return what replaces `old`, and the name that the environment was made under, by `env`.

    Asked before `relocate` has rewritten the script that knows that name.
    """
    return Replacer(env, [old, Path(os.path.realpath(old)), *_made_as(env)])


def _made_as(env: Path) -> Iterator[Path]:
    """Yield the path that the environment was created under, which a later move or copy may have left behind."""
    script = env / "bin" / "activate"
    if script.is_file():
        name = shells.named(script.read_text(encoding="utf-8", errors="surrogateescape"))
        if name and len(Path(name).parts) > 2:
            yield Path(name)


def _changed(path: Path, before: bytes, after: bytes) -> Iterator[tuple[Path, bytes]]:
    if after != before:
        yield path, after


def _bin(env: Path, replacer: Replacer) -> Iterator[tuple[Path, bytes]]:
    """Yield the scripts of `env/bin` that change; binary files are looked at no further than their first bytes."""
    for path in sorted((env / "bin").iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as stream:
            if path.name not in shells.SHELLS and stream.read(2) != b"#!":
                continue
            stream.seek(0)
            content = stream.read()
        if path.name in shells.SHELLS:
            text = content.decode("utf-8", "surrogateescape")
            if shlex.quote(str(env)) == str(env):  # elsewhere in the script its quotes would have to be guessed
                text = replacer.text(text)
            fresh = shells.activate(path.name, text, str(env))
            yield from _changed(path, content, fresh.encode("utf-8", "surrogateescape"))
            continue
        head = scripts.read(content)
        if head is not None and replacer.path(head.program) != head.program:
            new = scripts.header(replacer.path(head.program), head.options)
            yield path, new + content[head.length :]


def _config(env: Path, replacer: Replacer) -> Iterator[tuple[Path, bytes]]:
    path = env / "pyvenv.cfg"
    content = path.read_bytes()
    lines = [
        # where the interpreter came from is no path of this environment
        line if line.startswith("bundled-from") else replacer.text(line)
        for line in content.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    ]
    yield from _changed(path, content, "".join(lines).encode("utf-8", "surrogateescape"))


def _site(site: Path, replacer: Replacer, outside: Outside) -> Iterator[tuple[Path, bytes]]:
    imported: set[Path] = set()
    for path in _files(site, "*.pth"):
        yield from _pth(path, replacer, outside)
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        imported |= {site / f"{match[1]}.py" for match in map(_IMPORT.match, text.splitlines()) if match}
    for path in _files(site, "*.egg-link"):
        yield from _egg_link(path, replacer)
    for path in _files(site, "*.dist-info/direct_url.json"):
        yield from _direct_url(path, replacer, outside)
    finders = {path for pattern in _EDITABLE_CODE for path in _files(site, pattern)}
    for path in sorted(finders):
        yield from _finder(path, replacer, outside)
    for path in sorted(path for path in imported - finders if path.is_file()):
        yield from _finder(path, replacer, None)  # any module; an absolute path in it need not be one to import from
    for path in sorted(path for path in site.iterdir() if path.is_symlink()):
        if not _within(replacer, str(path)):
            outside.add(path, f"{path.name}: a link to {os.path.realpath(path)}", os.path.realpath(path))


def _files(site: Path, pattern: str) -> list[Path]:
    """Return the files that match; Python passes over a directory or a dangling link of such a name as well."""
    return sorted(path for path in site.glob(pattern) if path.is_file())


def _pth(path: Path, replacer: Replacer, outside: Outside) -> Iterator[tuple[Path, bytes]]:
    """Rewrite a path configuration file (module `site`): one path per line; `import` begins code, `#` a comment."""
    content = path.read_bytes()
    lines: list[str] = []
    for line in content.decode("utf-8", "surrogateescape").splitlines(keepends=True):
        entry = line.rstrip()
        if not entry or entry.startswith("#"):
            lines.append(line)
        elif entry.startswith(("import ", "import\t")):
            lines.append(replacer.text(line))
        else:
            fresh = replacer.path(entry)
            full = os.path.normpath(path.parent / fresh)
            if not _within(replacer, full):
                outside.add(path, f"{path.name}: {entry}", full)
            lines.append(fresh + line[len(entry) :])
    yield from _changed(path, content, "".join(lines).encode("utf-8", "surrogateescape"))


def _within(replacer: Replacer, path: str) -> bool:
    real = Replacer(Path(os.path.realpath(replacer.new)), [])
    return replacer.inside(path) and (not os.path.exists(path) or real.inside(os.path.realpath(path)))  # noqa: PTH110


def _egg_link(path: Path, replacer: Replacer) -> Iterator[tuple[Path, bytes]]:
    """Rewrite the place that `setup.py develop` noted; what is imported stands in a `.pth` file."""
    content = path.read_bytes()
    lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    fresh = "".join(replacer.path(line.rstrip("\n")) + ("\n" if line.endswith("\n") else "") for line in lines)
    yield from _changed(path, content, fresh.encode("utf-8", "surrogateescape"))


def _direct_url(path: Path, replacer: Replacer, outside: Outside) -> Iterator[tuple[Path, bytes]]:
    """Rewrite the origin of a distribution (PEP 610); only an editable one is imported from there."""
    try:
        record = json.loads(path.read_bytes())
        url = urllib.parse.urlsplit(record["url"])
        editable = bool(record.get("dir_info", {}).get("editable"))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # nobody can be led outside by it
        return
    if url.scheme != "file":
        return
    place = urllib.parse.unquote(url.path)
    fresh = replacer.path(place)
    if editable and not replacer.inside(fresh):
        label = path.parent.name.removesuffix(".dist-info")
        outside.add(path, f"{label}: editable, in {place}", place, owner=label.partition("-")[0])
    if fresh != place:
        record["url"] = url._replace(path=urllib.parse.quote(fresh)).geturl()
        yield path, json.dumps(record).encode()


def _finder(path: Path, replacer: Replacer, outside: Outside | None) -> Iterator[tuple[Path, bytes]]:
    """Rewrite the absolute paths among the text constants of an editable install's import hook."""
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # nobody can be led outside by it
        return
    constants = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/")
    ]
    for node in sorted(constants, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        value = str(node.value)
        fresh = replacer.path(value)
        if outside is not None and len(Path(value).parts) > 1 and not replacer.inside(fresh):
            outside.add(path, f"{path.name}: {value}", value)
        if fresh != value and node.lineno == node.end_lineno and node.end_col_offset is not None:
            line = lines[node.lineno - 1]
            if _says(line[node.col_offset : node.end_col_offset], value):
                lines[node.lineno - 1] = line[: node.col_offset] + ascii(fresh).encode() + line[node.end_col_offset :]
    yield from _changed(path, content, b"".join(lines))


def _says(code: bytes, value: str) -> bool:
    """Whether `code` is `value` as a literal: it may be a part of an f-string, or offsets lie since the file is no UTF-8."""
    try:
        return bool(ast.literal_eval(code.decode("utf-8")) == value)
    except (SyntaxError, ValueError):
        return False
