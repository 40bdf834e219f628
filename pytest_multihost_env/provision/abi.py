"""Which hosts an environment can run on: the kind of machine and the oldest C library that its files are content with.

Both are read from the files, recorded in the manifest, and compared with a host before anything is run there: a host
that is too old would start Python and fail at some import, in the middle of a test.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import elffile, mishaps

GLIBC, GLIBC_OF, MACHINE = "glibc", "glibc_of", "machine"
"""Names of the facts in a manifest: `2.34`, the file that asks for it, `x86_64`."""

_PROGRAMS = frozenset({"bin", "sbin", "libexec"})


def min_glibc(root: Path) -> tuple[int, int]:
    """Return the newest version of glibc that an ELF file below `root` asks for; `(0, 0)` for none."""
    return _version(facts(candidates(root)).get(GLIBC, ""))


def candidates(root: Path) -> Iterator[Path]:
    """Yield the files below `root` that may be ELF files, by their names; symlinks are left out."""
    stack = [(str(root), False)]
    while stack:
        folder, programs = stack.pop()
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_symlink():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        stack.append((entry.path, entry.name in _PROGRAMS))
                elif programs or ".so" in entry.name:
                    yield Path(entry.path)


def record(root: Path, files: Iterable[Path], known: dict[str, str]) -> None:
    """Add to the facts `known` what `files` of the environment `root` ask of a host, and refuse this one if it lacks it.

    Raises:
        NotReady: Names host, found and needed.
    """
    found = facts(files)
    if _version(found.get(GLIBC, "")) >= _version(known.get(GLIBC, "")):
        if GLIBC_OF in found and Path(found[GLIBC_OF]).is_relative_to(root):
            found[GLIBC_OF] = str(Path(found[GLIBC_OF]).relative_to(root))
        known.update(found)
    require(known, "the environment")


def facts(files: Iterable[Path], machine: str = "") -> dict[str, str]:
    """Return what the ELF files among `files` ask of a host.

    Args:
        files: What to read.
        machine: Files for another kind of machine are data, which nobody loads here; "": this one.
    """
    machine = machine or platform.machine()
    newest, asking = (0, 0), ""
    with mishaps.named("reading shared libraries"):
        for file in files:
            said = elffile.read(file)
            if said is not None and said.machine == machine and said.glibc > newest:
                newest, asking = said.glibc, str(file)
    found = {MACHINE: machine}
    if asking:
        found |= {GLIBC: f"{newest[0]}.{newest[1]}", GLIBC_OF: asking}
    return found


def here() -> tuple[str, str]:
    """Return this host's C library as `glibc 2.36`, "" for another one, and its kind of machine."""
    library = ""
    with contextlib.suppress(ValueError, OSError):
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    return library, platform.machine()


def lacking(needed: Mapping[str, str], library: str, machine: str) -> str:
    """Return in a sentence what a host with `library` and `machine` lacks for an environment; "" for nothing.

    Args:
        needed: The facts of the environment's manifest.
        library: As `here` returns it.
        machine: Likewise.
    """
    if machine and needed.get(MACHINE, machine) != machine:
        return f"it is made for {needed[MACHINE]} and this is {machine}"
    if GLIBC not in needed:
        return ""
    of = f" ({needed[GLIBC_OF]} asks for it)" if needed.get(GLIBC_OF) else ""
    if not library.startswith("glibc "):
        return f"it needs glibc {needed[GLIBC]}{of} and this host has {library or 'another C library'}"
    if _version(library.removeprefix("glibc ")) < _version(needed[GLIBC]):
        return f"it needs glibc {needed[GLIBC]}{of} and this host has {library.removeprefix('glibc ')}"
    return ""


def require(needed: Mapping[str, str], what: str) -> None:
    """Refuse the environment `what` when this host cannot run it; nothing of it is run.

    Raises:
        NotReady: Names host, found and needed.
    """
    why = lacking(needed, *here())
    if why:
        raise NotReady(
            f"{what} cannot run on {platform.node()}: {why}",
            where=needed.get(GLIBC_OF) or what,
            expected=f"glibc {needed[GLIBC]} or newer" if GLIBC in needed else needed.get(MACHINE),
            hint="make SOURCE on the oldest of the hosts, or with packages that are built for older ones "
            "(manylinux_2_28, manylinux2014)",
        )


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    digits = minor.partition(".")[0]
    return (int(major), int(digits)) if major.isdigit() and digits.isdigit() else (0, 0)
