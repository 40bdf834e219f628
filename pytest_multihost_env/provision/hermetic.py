"""Proves that an environment uses nothing of the host but the C library, the kernel and the GPU driver."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_multihost_env import process
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import ask, elf, pyvenv

STANDARD = ("ssl", "sqlite3", "ctypes", "zlib", "bz2", "lzma", "hashlib", "json", "uuid")
"""What every environment must be able to import, so far as the interpreter that it came from was built with it."""

OURS = ("pytest", "pytest_multihost_env")

_SYSTEM = ("/bin", "/boot", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
_HIDE = 'while [ "$1" != -- ]; do mount -t tmpfs -o size=4k,mode=0755 hidden "$1" || exit 125; shift; done; shift; exec "$@"'


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """What was seen while the environment's interpreter ran with nothing of the caller's environment.

    Attributes:
        python: Its version.
        prefix: `sys.prefix`.
        base_prefix: `sys.base_prefix`.
        libraries_outside: Names of the host's libraries that it loaded; all of them are expected on every host.
        seconds: How long the proof took.
        hidden: Directories that were out of sight meanwhile: the source, the original interpreter.
        absent: Standard modules that the original interpreter was built without.
        in_sight: A sentence about what of it could not be hidden, and why; "" when everything was.
    """

    python: str
    prefix: Path
    base_prefix: Path
    libraries_outside: tuple[str, ...]
    seconds: float
    hidden: tuple[Path, ...] = ()
    absent: tuple[str, ...] = ()
    in_sight: str = ""


def prove(
    env: Path,
    *,
    modules: Sequence[str] = (),
    original: Path | None = None,
    allowed: Sequence[str] = (),
    timeout: float = 60,
) -> Proof:
    """Run `env/bin/python` on its own, import, and check where everything came from.

    The directory `original`, and the prefix that the interpreter was bundled from, are covered by an empty one
    meanwhile, where this user may make a mount namespace (unshare(1)) and they are no system directories.

    Args:
        env: The environment, an absolute path.
        modules: What must be importable, beside `STANDARD` and `OURS`.
        original: The source that `env` was copied from.
        allowed: Paths outside that may be imported from.
        timeout: Seconds until the proof has failed.

    Raises:
        NotReady: An import fails, or a prefix, a search path, a module or a mapped library lies outside of `env`.
    """
    began = time.monotonic()
    python = env / "bin" / "python"
    expected = _expected(original)
    hidden, in_sight = _hideable(env, original, allowed)
    command = [str(python), *ask.question(["imports", *STANDARD, *OURS, *modules], flags=("-B",))]
    seen, failure = _run(python, command, hidden, timeout)
    absent = tuple(name for name in seen["absent"] if name in STANDARD and name not in expected)
    problems = _problems(env, _without(seen, allowed), absent)
    if failure is not None and not problems:
        raise failure
    if problems:
        raise NotReady(
            "the environment is not hermetic: on another host it may run something else, or not run\n"
            + "\n".join(f"  {problem}" for problem in problems),
            where=str(env),
            expected=f"everything below {env}, but for the C library and the GPU driver of the host",
            hint="install what is named into SOURCE from wheels (they bring their libraries), and provision again",
        )
    libraries = sorted({path.rpartition("/")[2] for path in _outside(env, seen["mapped"])})
    return Proof(
        python=seen["version"],
        prefix=Path(seen["prefix"]),
        base_prefix=Path(seen["base_prefix"]),
        libraries_outside=tuple(name for name in libraries if ".so" in name),
        seconds=time.monotonic() - began,
        hidden=hidden,
        absent=absent,
        in_sight=in_sight,
    )


def _run(
    python: Path, command: Sequence[str], hidden: Sequence[Path], timeout: float
) -> tuple[Mapping[str, Any], NotReady | None]:
    """Return what was seen, and why it could not be seen with `hidden` out of sight.

    An interpreter that needs what is hidden ends with a riddle ("No module named 'encodings'"); with it in sight it
    tells what it takes from there.
    """
    if not hidden:
        return ask.answer(ask.run(command, timeout=timeout), python), None
    try:
        return ask.answer(ask.run([*_namespace(hidden), *command], timeout=timeout), python), None
    except NotReady as error:
        return ask.answer(ask.run(command, timeout=timeout), python), error


def _expected(original: Path | None) -> set[str]:
    """Return those of `STANDARD` that the original interpreter can import; none when it is gone."""
    python = original / "bin" / "python" if original is not None else None
    if python is None or not os.access(python, os.X_OK):
        return set()
    try:
        return set(ask.interpreter(python, ["has", *STANDARD]))
    except NotReady:
        return set()


def _problems(env: Path, seen: Mapping[str, Any], absent: Sequence[str]) -> list[str]:
    """Return a sentence for each thing that failed or lies outside."""
    problems = [f"import {name}: {why}" for name, why in seen["failed"].items() if name not in absent]
    executable = Path(seen["executable"])  # a link, which must not be followed
    if executable.name != "python" or not _same(str(executable.parent), env / "bin"):
        problems.append(f"sys.executable is {seen['executable']}")
    if not _same(seen["prefix"], env):
        problems.append(f"sys.prefix is {seen['prefix']}")
    if not _in(env, seen["base_prefix"]):
        problems.append(f"sys.base_prefix is {seen['base_prefix']}: that is where the standard library comes from")
    if _same(seen["base_prefix"], Path(seen["prefix"])):
        problems.append("sys.base_prefix is sys.prefix: that is no virtual environment any more")
    problems += [f"sys.path holds {path}" for path in seen["path"] if not _in(env, path)]
    problems += [f"module {name} is {file}" for name, file in seen["modules"].items() if not _in(env, file)]
    for path in _outside(env, seen["mapped"]):
        if not elf.stays_on_host(path):
            problems.append(f"library {path} is mapped")
    return problems


def _outside(env: Path, mapped: Sequence[str]) -> list[str]:
    """Return the mapped files that lie outside; shared memory and devices are no files of an environment."""
    return [path for path in mapped if not _in(env, path) and not path.startswith(("/dev/", "/memfd:", "/SYSV"))]


def _in(env: Path, path: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(env))


def _below(path: str, top: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(top))


def _without(seen: Mapping[str, Any], allowed: Sequence[str]) -> Mapping[str, Any]:
    """Return what was seen, less what lies below the paths that are allowed."""
    tops = [Path(path) for path in allowed]

    def counts(path: str) -> bool:
        return not any(_below(path, top) for top in tops)

    return {
        **seen,
        "path": [path for path in seen["path"] if counts(path)],
        "modules": {name: file for name, file in seen["modules"].items() if counts(file)},
        "mapped": [path for path in seen["mapped"] if counts(path)],
    }


def _same(path: str, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _hideable(env: Path, original: Path | None, allowed: Sequence[str]) -> tuple[tuple[Path, ...], str]:
    """Return the directories that can be covered, and a sentence on the others.

    None that the system, `env` itself, or what is allowed needs can be.
    """
    good: list[Path] = []
    bad: list[str] = []
    for path in _originals(env, original):
        real = Path(os.path.realpath(path))
        if not real.is_dir() or real in good:
            continue
        system = len(real.parts) < 3 or any(real.is_relative_to(top) for top in _SYSTEM)
        if system and not real.name.startswith("python3"):
            bad.append(f"{real} (the system needs it)")
        elif any(_below(one, real) for one in (str(env), *allowed)):
            bad.append(f"{real} (what is used lies in it)")
        else:
            good.append(real)
    if good and not _namespaces_work(good):
        bad += [f"{path} (this user may not make a mount namespace)" for path in good]
        good = []
    return tuple(good), f"in sight during the proof: {', '.join(bad)}" if bad else ""


def _originals(env: Path, original: Path | None) -> Iterator[Path]:
    """Yield the source and the interpreter's first place: its prefix, or of a system's Python its libraries alone."""
    if original is not None:
        yield original
    bundled = pyvenv.read(env / "pyvenv.cfg").get("bundled-from")
    if not bundled:
        return
    if bundled in {"/", "/usr", "/usr/local"}:
        yield from sorted(path for path in Path(bundled, "lib").glob("python3*") if path.is_dir())
    else:
        yield Path(bundled)


def _namespace(hidden: Sequence[Path]) -> list[str]:
    """Return the beginning of a command line that runs the rest where `hidden` are empty."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["/usr/bin/unshare", *user, "--mount", "/bin/sh", "-c", _HIDE, "sh", *map(str, hidden), "--"]


def _namespaces_work(hidden: Sequence[Path]) -> bool:
    try:
        done = process.run([*_namespace(hidden), "/bin/true"], env=ask.CLEAN, cwd=Path("/"), timeout=10)
    except OSError:
        return False
    return bool(done)
