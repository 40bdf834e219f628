"""Puts the interpreter that an environment uses into the environment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import ask, buildconfig, certificates, elf, elffile, mishaps, pyvenv
from pytest_multihost_env.provision.copy import Copied, copy_tree

# Test suites, the IDE, and Tk: its library of scripts and X11 are no part of a Python installation.
_LEFT_OUT = {"site-packages", "dist-packages", "idlelib", "turtledemo", "tkinter", "turtle.py"}
_TESTS = {"test", "tests", "idle_test"}
_LEFT_OUT_MODULES = ("_test", "_ctypes_test", "_xxtestfuzz", "xxlimited", "xxsubtype", "_tkinter")


@dataclasses.dataclass(frozen=True, slots=True)
class Bundle:
    """The interpreter that an environment runs, now inside of it.

    Attributes:
        version: Python's version, `3.11.7`.
        base: The prefix that it came from; the environment's own `py` when it was inside already.
        files: Number of files that were copied.
        bytes: Their size.
        libraries: Names of the shared libraries that were copied.
        notes: Sentences about what a person may want to know.
    """

    version: str
    base: Path
    files: int = 0
    bytes: int = 0
    libraries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def bundle_interpreter(env: Path) -> Bundle:
    """Make `env`, a virtual environment at its final absolute path, contain the interpreter that it uses.

    The run time (program, standard library, extension modules, libpython and every library that is not the host's)
    goes to `env/py`; `bin/python*` become relative links to it, and `pyvenv.cfg` names it.  `env` stays a virtual
    environment (PEP 405): `sys.prefix` is `env`, `sys.base_prefix` is `env/py`.

    Raises:
        NotReady: The interpreter cannot be run, or its run time cannot be found or copied.
    """
    with mishaps.named("bundling the interpreter"):
        return _bundle(env, env / "bin" / "python")


def _bundle(env: Path, python: Path) -> Bundle:
    _check_link(python)
    inside = _inside(env, python)
    if inside is not None:
        _configure(env, inside, base=None)
        facts = ask.interpreter(python, ["runtime"])
        return Bundle(version=facts["version"], base=inside.parent.parent)
    facts = ask.interpreter(python, ["runtime"], env=_environment())
    base = Path(facts["base_prefix"])
    if not (Path(facts["stdlib"]) / "os.py").is_file():
        raise NotReady(
            f"the standard library is not a directory with an os.py in it: {facts['stdlib']}",
            where=str(python),
            hint="make the environment with a Python that is installed as files, not as a zip archive",
        )
    if (env / "py").exists():
        raise NotReady(
            f"{env / 'py'} exists already and holds no interpreter",
            where=str(env / "py"),
            hint="rename it in the source environment: an interpreter that lies outside is put there",
        )
    program = _copy_program(env, facts)
    copied = _copy_library(env, facts)
    libraries, notes = _copy_shared(env, facts, program)
    _configure(env, program, base=base)
    buildconfig.rewrite(env / "py" / facts["platlibdir"] / facts["name"], base, env / "py")
    files, size = _count(copied, program, [env / "py" / "lib" / name for name in libraries])
    return Bundle(facts["version"], base, files, size, tuple(libraries), (*notes, *_notes(env, base, facts)))


def _check_link(python: Path) -> None:
    if python.exists():
        return
    what = f"leads to {os.path.realpath(python)}, which does not exist" if os.path.lexists(python) else "does not exist"
    raise NotReady(
        f"{python} {what}",
        where=str(python),
        hint="install that interpreter again, or make the source anew with `python3 -m venv --clear`",
    )


def _environment() -> Mapping[str, str]:
    """Return a clean environment in which an interpreter that depends on LD_LIBRARY_PATH still starts."""
    path = os.environ.get("LD_LIBRARY_PATH")
    return {**ask.CLEAN, "LD_LIBRARY_PATH": path} if path else ask.CLEAN


def _inside(env: Path, python: Path) -> Path | None:
    """Return the interpreter's real file, by its name below `env`, when it and its standard library lie there."""
    real = Path(os.path.realpath(python))
    top = Path(os.path.realpath(env))
    if not real.is_relative_to(top):
        return None
    for library in ("lib", "lib64"):
        if any((real.parent.parent / library).glob("python3.*/os.py")):
            return env / real.relative_to(top)
    return None


def _copy_program(env: Path, facts: Mapping[str, Any]) -> Path:
    """Copy the interpreter's program to `env/py/bin` and return its new path."""
    short = ".".join(facts["version"].split(".")[:2])
    program = env / "py" / "bin" / f"python{short}"
    program.parent.mkdir(parents=True)
    original = os.path.realpath(facts["base_executable"])
    if elffile.read(original) is None:
        raise NotReady(
            f"the interpreter {original} is a script that starts another one, which cannot be told from it",
            where=str(env / "bin" / "python"),
            hint="make the environment anew with the program that it starts",
        )
    shutil.copy2(original, program)
    program.chmod(0o755)
    for name in ("python", "python3"):
        (program.parent / name).symlink_to(program.name)
    return program


def _copy_library(env: Path, facts: Mapping[str, Any]) -> Copied:
    """Copy the standard library, its extension modules and the C headers to `env/py`."""
    stdlib, dynload = Path(facts["stdlib"]), facts["dynload"]
    target = env / "py" / facts["platlibdir"] / facts["name"]
    target.parent.mkdir(exist_ok=True)
    copied = copy_tree(stdlib, target, skip=_skip)
    for name in copied.outside:  # Debian links some files to /etc
        link = target / name
        real = Path(os.path.realpath(link))
        link.unlink()
        if real.is_file():
            shutil.copy2(real, link)
    if dynload and not (target / "lib-dynload").exists():  # an exec_prefix of its own
        copy_tree(Path(dynload), target / "lib-dynload", skip=_skip_module)
    include = Path(facts["include"])
    if (include / "Python.h").is_file():
        headers = env / "py" / "include" / include.name
        headers.parent.mkdir(exist_ok=True)
        copy_tree(include, headers)
    return copied


def _skip(name: str) -> bool:
    """Whether `name`, relative to the standard library, is left out of a run time."""
    top, _, rest = name.partition("/")
    last = name.rpartition("/")[2]
    if top in _LEFT_OUT or last in _TESTS or top.startswith("config-") or last.endswith((".opt-1.pyc", ".opt-2.pyc")):
        return True
    return top == "lib-dynload" and _skip_module(rest)


def _skip_module(name: str) -> bool:
    return name.startswith(_LEFT_OUT_MODULES)


def _copy_shared(env: Path, facts: Mapping[str, Any], program: Path) -> tuple[list[str], list[str]]:
    """Copy the libraries of the run time to `env/py/lib`, make all find them there; return names and notes.

    The originals are asked, not the copies: a search path with $ORIGIN in it leads elsewhere from a copy.
    """
    copies = env / "py" / facts["platlibdir"] / facts["name"] / "lib-dynload"
    modules = sorted(copies.glob("*.so")) if copies.is_dir() else []
    original = Path(os.path.realpath(facts["base_executable"]))
    origins = {original: program, **{Path(facts["dynload"]) / module.name: module for module in modules}}
    libraries: dict[str, str] = {}
    notes: list[str] = []
    for file, need in elf.needs(list(origins)).items():
        for name, path in need.found.items():
            if not elf.stays_on_host(name):
                libraries.setdefault(name, path)
        notes.extend(f"{file.name} needs {name}, which this machine lacks as well" for name in need.lost)
    folder = env / "py" / "lib"
    folder.mkdir(exist_ok=True)
    for name, path in libraries.items():
        shutil.copy2(os.path.realpath(path), folder / name)
        (folder / name).chmod(0o755)
    elf.set_search_path([program], "$ORIGIN/../lib")
    up = "/".join([".."] * len(copies.relative_to(env / "py").parts))
    elf.set_search_path(modules, f"$ORIGIN/{up}/lib")
    elf.set_search_path([folder / name for name in libraries], "$ORIGIN")
    return sorted(libraries), notes


def _configure(env: Path, program: Path, *, base: Path | None) -> None:
    """Link `env/bin/python*` to `program` and say in `pyvenv.cfg` that it is the base interpreter."""
    bin_ = env / "bin"
    goal = os.path.relpath(program, bin_)
    for name in ("python", "python3", program.name):
        link = bin_ / name
        if link.is_symlink() and os.readlink(link) == goal:  # noqa: PTH115 - compared as text
            continue
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(goal)
    config = pyvenv.read(env / "pyvenv.cfg")
    values = {**config, "home": str(program.parent)}
    values["executable"] = str(program)
    values["command"] = f"{program} -m venv {env}"
    for key, value in (
        ("prefix", program.parent.parent),
        ("exec-prefix", program.parent.parent),
        ("executable", program),
    ):
        if f"base-{key}" in values:  # virtualenv's
            values[f"base-{key}"] = str(value)
    if base is not None:
        values["bundled-from"] = str(base)
    pyvenv.write(env / "pyvenv.cfg", values)


def _count(copied: Copied, program: Path, libraries: list[Path]) -> tuple[int, int]:
    extra = [program, *libraries]
    return copied.files + len(extra), copied.bytes + sum(file.stat().st_size for file in extra)


def _notes(env: Path, base: Path, facts: Mapping[str, Any]) -> list[str]:
    notes = []
    if facts["certificates"]:
        notes.append(certificates.take(env, base, facts["certificates"]))
    if not any((Path(facts["stdlib"]) / "__pycache__").glob("os.*.pyc")):
        notes.append("the interpreter's standard library has no bytecode, so none was copied")
    return notes
