"""A packed environment becomes a generation; what is damaged or would write elsewhere is refused before anything stands."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import scripts
from pytest_multihost_env.provision.archive import stream, unpack
from pytest_multihost_env.provision.builders import ArchiveBuilder
from tests import tricks
from tests.tricks import END, TRICKS


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


PACKERS = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd}


def everything(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        size = 0 if path.is_dir() else status.st_size  # a directory's depends on the file system
        found[str(path)] = (status.st_mode, status.st_mtime_ns if path != root else 0, size)
    return found


def build(archive: bytes, special: Path) -> Path:
    source = special / "env.bin"
    source.write_bytes(archive)
    ArchiveBuilder().build(source, special / "attempt", Work())
    return special / "attempt"


def refused(archive: bytes, special: Path) -> str:
    with pytest.raises(NotReady) as caught:
        build(archive, special)
    assert caught.value.hint
    assert not (special / "attempt").exists()
    return str(caught.value)


# Row 97: by content ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("top", ["", "./", "my env/"])
def test_each_packing_and_each_layout_is_known_by_its_content(packer: str, top: str, special: Path) -> None:
    around = tricks.header(top, b"5") if top else b""
    source = special / "no suffix"
    source.write_bytes(PACKERS[packer](around + tricks.environment(top) + END))
    assert ArchiveBuilder().refuses(source) is None
    ArchiveBuilder().build(source, special / "attempt", Work())
    assert sorted(path.name for path in (special / "attempt").iterdir()) == ["bin", "lib", "pyvenv.cfg"]
    assert (special / "attempt" / "bin" / "python3").samefile(sys.executable)


def test_what_is_no_archive_is_refused_by_what_it_is(special: Path) -> None:
    builder, file = ArchiveBuilder(), special / "env.tar.gz"
    assert "not a file" in str(builder.refuses(special))
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a", "b")
    assert "zip" in str(builder.refuses(file))
    for content, said in (
        (b"", "does not begin"),
        (gzip.compress(b"hello"), "no tar"),
    ):
        file.write_bytes(content)
        assert said in str(builder.refuses(file))
    with pytest.raises(UsageProblem, match="no builder") as caught:
        provision.ensure(provision.ProvisionRequest(file, special / "shared" / "env"), notify=print)
    assert "archive:" in str(caught.value)
    assert "venv:" in str(caught.value)
    assert not (special / "shared").exists()


def test_an_archive_without_an_environment_is_refused(special: Path) -> None:
    assert "holds no virtual environment" in refused(tricks.member("a/b", b"x") + END, special)
    two = tricks.environment("one/") + tricks.member("two/x", b"")
    assert "holds no virtual environment" in refused(two + END, special)
    without_python = tricks.member("pyvenv.cfg", b"home = /usr/bin\n")
    assert "no bin/python" in refused(without_python + END, special)


def test_names_of_every_kind_arrive(special: Path) -> None:
    long, deep = "n" * 200, "/".join(["d" * 60] * 5)
    members = tricks.pax(("path", f"lib/{long}"), ("mtime", "1700000000.25")) + tricks.member("x", b"1")
    members += tricks.member("l", b"lib/" + b"g" * 180 + b"\0", b"L") + tricks.member("x", b"2", magic=b"ustar  \0")
    members += tricks.pax(("path", f"lib/{deep}/f"), ("comment", "x")) + tricks.member("x", b"3")
    members += tricks.member("f \udcff".encode("utf-8", "surrogateescape"), b"4")
    members += tricks.member("lib/run", b"5", mode=0o6711) + tricks.link("lib/again", "lib/run", b"1")
    members += tricks.link("lib/gone", "nowhere") + tricks.pax(("comment", "git archive"), kind=b"g")
    env = build(tricks.environment() + members + END, special)
    assert (env / "lib" / long).read_bytes() == b"1"
    assert (env / "lib" / long).stat().st_mtime_ns == 1_700_000_000_250_000_000
    assert (env / "lib" / ("g" * 180)).read_bytes() == b"2"
    assert (env / "lib" / deep / "f").read_bytes() == b"3"
    assert (env / "f \udcff").read_bytes() == b"4"
    assert (env / "lib" / "gone").readlink() == Path("nowhere")
    run, again = (env / "lib" / name for name in ("run", "again"))
    assert again.read_bytes() == b"5"
    assert not run.samefile(again)
    assert [path.stat().st_mode & 0o7777 for path in (run, again, env / "pyvenv.cfg")] == [0o755, 0o755, 0o644]


# Row 101: nothing is written elsewhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", ["plain", "gzip"])
@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_refused_and_touches_nothing(name: str, packer: str, special: Path) -> None:
    outside = special / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    trick = TRICKS[name]
    (special / "env.bin").touch()
    before = everything(special)
    said = refused(PACKERS[packer](tricks.environment() + trick.made(outside) + trick.end), special)
    assert trick.said in said
    (special / "env.bin").write_bytes(b"")
    after = everything(special)
    assert {path: seen for path, seen in after.items() if not path.endswith("env.bin")} == {
        path: seen for path, seen in before.items() if not path.endswith("env.bin")
    }


def test_an_interpreter_that_others_may_change_is_refused(special: Path) -> None:
    planted = special / "open" / "python3"
    planted.parent.mkdir()
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o777)
    made = tricks.pax(("linkpath", str(planted))) + tricks.link("bin/python", "x") + tricks.member("pyvenv.cfg", b"")
    with pytest.raises(NotReady, match="writable for everybody"):
        build(made + END, special)
    assert not (special / "attempt").exists()


_NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "", "lib", "bin", "python"]), max_size=4).map("/".join)
_TARGETS = st.one_of(_NAMES, _NAMES.map("/{}".format))
_MEMBERS = st.one_of(
    st.builds(tricks.member, _NAMES, st.binary(max_size=600)),
    st.builds(tricks.link, _NAMES, _TARGETS, st.sampled_from([b"1", b"2"])),
    st.builds(lambda name: tricks.header(name, b"5"), _NAMES),
    st.builds(lambda path, target: tricks.pax(("path", path), ("linkpath", target)), _TARGETS, _TARGETS),
    st.builds(lambda name: tricks.member("l", name.encode() + b"\0", b"L"), _TARGETS),
    st.binary(min_size=512, max_size=512),
)


@hypothesis.settings(max_examples=300)
@hypothesis.given(members=st.lists(_MEMBERS, max_size=8))
def test_whatever_an_archive_says_it_is_refused_or_stays_inside(
    members: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("fuzz")
    (top / "kept").write_text("kept")
    (top / "env.bin").write_bytes(tricks.environment() + b"".join(members) + END)
    before = everything(top)
    try:
        ArchiveBuilder().build(top / "env.bin", top / "attempt", Work())
    except NotReady:
        assert everything(top) == before
        return
    attempt = top / "attempt"
    for path in attempt.rglob("*"):
        if path.is_symlink() and not path.name.startswith("python"):
            assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(attempt))
        else:
            assert path.lstat().st_nlink == 1 or path.is_dir()
    after = everything(top)
    assert {path: seen for path, seen in after.items() if not path.startswith(str(attempt))} == before


# Row 100: damage --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> bytes:
    """A small environment with something in it that does not compress."""
    noise = random.Random(7).randbytes(30_000)
    return tricks.environment() + tricks.member("lib/noise", noise) + tricks.member("lib/text", b"text " * 9000) + END


@pytest.mark.parametrize("packer", PACKERS)
def test_wherever_it_is_cut_it_is_refused(packer: str, good: bytes, special: Path) -> None:
    whole = PACKERS[packer](good)
    build(whole, special)
    cuts = [*random.Random(11).sample(range(512, len(whole) - 1), 40), len(whole) - 1]
    (special / "attempt").rename(special / "whole")
    for cut in cuts:
        refused(whole[:cut], special)


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_wherever_a_bit_is_wrong_it_is_refused_or_nothing_changed(packer: str, good: bytes, special: Path) -> None:
    whole = PACKERS[packer](good)
    expected = {path.name: path.read_bytes() for path in build(whole, special).rglob("*") if path.is_file()}
    (special / "attempt").rename(special / "whole")
    generator, found = random.Random(13), 0
    for _ in range(60):
        bad = bytearray(whole)
        bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
        try:
            env = build(bytes(bad), special)
        except NotReady:
            found += 1
            assert not (special / "attempt").exists()
            continue
        # a few bits mean nothing (gzip's time, its operating system)
        assert {path.name: path.read_bytes() for path in env.rglob("*") if path.is_file()} == expected
        env.rename(special / f"same {found} {_}")
    assert found >= 50


def test_a_wrong_bit_in_a_header_of_a_plain_archive_is_found(good: bytes, special: Path) -> None:
    for position in range(0, 512, 7):
        bad = bytearray(good)
        bad[position] ^= 4
        assert "damaged" in refused(bytes(bad), special)


def test_what_follows_a_compressed_archive_is_refused_unless_it_is_padding(good: bytes, special: Path) -> None:
    assert "is damaged" in refused(gzip.compress(good) + b"more", special)
    build(gzip.compress(good[:5000]) + gzip.compress(good[5000:]) + bytes(700), special)


# Row 98: little memory, and no bombs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", ["gzip -1", "xz -0", "zstd -q -1"])
def test_a_bomb_is_refused_early(packer: str, special: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 40
    with (special / "packed").open("wb") as file:
        program = subprocess.Popen(packer.split(), stdin=subprocess.PIPE, stdout=file)
        with program, program.stdin as pipe:  # type: ignore[union-attr]
            pipe.write(tricks.environment() + tricks.header("zeros", size_field=b"\x80" + size.to_bytes(11, "big")))
            for _ in range((stream.FREE >> 20) + 64):
                pipe.write(bytes(1 << 20))
    written = 0

    def counted(fd: int, data: bytes) -> None:
        nonlocal written
        written += len(data)

    monkeypatch.setattr(unpack, "_write_all", counted)
    with pytest.raises(NotReady, match="times as large"):
        ArchiveBuilder().build(special / "packed", special / "attempt", Work())
    assert stream.FREE * 0.9 < written < stream.FREE * 1.1
    assert not (special / "attempt").exists()


def test_hard_links_make_no_bomb_either(special: Path) -> None:
    big = tricks.member("big", bytes(8 << 20))
    links = b"".join(tricks.link(f"again {number}", "big", b"1") for number in range(200))
    assert "times as large" in refused(gzip.compress(tricks.environment() + big + links + END), special)


def test_memory_does_not_grow_with_the_archive(special: Path) -> None:
    program = """
import pathlib, resource, sys
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import scripts
from pytest_multihost_env.provision.builders import ArchiveBuilder
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ArchiveBuilder().build(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) / "one", Work())
small = peak()
ArchiveBuilder().build(pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[2]) / "two", Work())
print(peak() - small)
"""
    noise = random.Random(17).randbytes(1 << 20)
    for name, count in (("small", 4), ("large", 96)):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as packed:
            for number in range(count):
                info = tarfile.TarInfo(f"noise {number}")
                info.size = len(noise)
                packed.addfile(info, io.BytesIO(noise))
            link = tarfile.TarInfo("bin/python")
            link.type, link.linkname = tarfile.SYMTYPE, os.path.realpath(sys.executable)
            packed.addfile(link)
            packed.addfile(tarfile.TarInfo("pyvenv.cfg"))
        (special / name).write_bytes(data.getvalue())
    argv = [sys.executable, "-c", program, special / "small", special, special / "large"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100)
    assert int(done.stdout) < 16 << 10, "KiB more for an archive that is 92 MiB larger"


# A real one, from end to end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", ["tar czf", "tar --zstd", "tarfile"])
def test_a_packed_environment_is_provisioned_without_its_original(packer: str, special: Path) -> None:
    original = special / "original"
    venv.create(original, with_pip=False, symlinks=True)
    script = original / "bin" / "say"
    script.write_bytes(scripts.header(str(original / "bin" / "python")) + b"import mine; print(mine.__file__)\n")
    script.chmod(0o755)
    site = next(original.glob("lib/python3*/site-packages"))
    (site / "mine.py").write_text("answer = 42\n")
    subprocess.run([original / "bin" / "python", "-m", "compileall", "-q", site / "mine.py"], check=True)
    source, target = special / "packed", special / "shared" / "python_env"
    match packer:
        case "tar czf":  # one directory around it, as everybody types it
            subprocess.run(["tar", "czf", source, "-C", special, "original"], check=True)
        case "tar --zstd":
            subprocess.run(["tar", "--zstd", "-cf", source, "-C", original, "."], check=True)
        case "tarfile":  # none around it, as conda-pack and venv-pack write
            with tarfile.open(source, "w:gz") as packed:
                for path in original.iterdir():
                    packed.add(path, path.name)
    original.rename(special / "away")
    made = provision.ensure(provision.ProvisionRequest(source, target), notify=print)
    say = [made.path / "bin" / "python", "-v", "-c", "import mine, sys; print(sys.prefix, mine.answer)"]
    done = subprocess.run(say, env={}, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == f"{made.path} 42\n"
    assert "matches" in next(line for line in done.stderr.splitlines() if "mine" in line and "__pycache__" in line)
    said = subprocess.run([made.path / "bin" / "say"], env={}, capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"{made.path}/")
    assert provision.ensure(provision.ProvisionRequest(source, target), notify=print).reused
    source.write_bytes(source.read_bytes()[:-200])  # row 96: another archive is another environment
    with pytest.raises(NotReady, match="archive"):
        provision.ensure(provision.ProvisionRequest(source, target), notify=print)
    assert target.samefile(made.path)
    assert [path.name for path in made.path.parent.iterdir() if not path.name.endswith(".json")] == [made.path.name]
