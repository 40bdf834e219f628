"""Interpreters of every kind that a virtual environment can rest on are put inside, and nothing of the original is missed."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import Generation
from pytest_multihost_env.protocols import Work
from pytest_multihost_env.provision import elf, manifest, pyvenv
from pytest_multihost_env.provision.builders import VenvBuilder
from pytest_multihost_env.provision.bundle import bundle_interpreter
from pytest_multihost_env.provision.hermetic import STANDARD, prove
from pytest_multihost_env.provision.relocate import relocate
from tests.environments import missing

SHORT = f"python{sys.version_info[0]}.{sys.version_info[1]}"
CODE = f"import sys, {', '.join(STANDARD)}; print(sys.prefix, sys.base_prefix)"
BASE = Path(sys.base_prefix)


def run(*argv: str | Path, **environ: str) -> str:
    done = subprocess.run(argv, cwd="/", env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(source: Path, env: Path) -> Path:
    """Copy, bundle, relocate; the rest of provisioning is tested elsewhere."""
    env.parent.mkdir(parents=True, exist_ok=True)
    assert VenvBuilder().refuses(source) is None
    VenvBuilder().build(source, env, Work())
    bundle_interpreter(env)
    relocate(env, source)
    return env


def new(python: Path | str, env: Path) -> Path:
    subprocess.run([python, "-m", "venv", "--without-pip", env], check=True, capture_output=True, timeout=120)
    return env


def copied_base(top: Path) -> Path:
    """This Python's installation in another place, without what no test needs."""
    if str(BASE) in {"/", "/usr"}:
        pytest.skip("a system's Python lies between everything else")

    def left_out(folder: str, names: list[str]) -> list[str]:
        unwanted = {"test", "tests", "idlelib", "tkinter", "site-packages", "ensurepip", "include", "share"}
        return [name for name in names if name in unwanted or name.startswith("config-") or name.endswith(".a")]

    shutil.copytree(BASE, top, symlinks=True, ignore=left_out)
    for site in (top / "lib").glob("python3.*"):
        (site / "site-packages").mkdir()
    program = top / "bin" / SHORT
    library = sysconfig.get_config_var("INSTSONAME")
    if (top / "lib" / str(library)).exists():
        run(elf.patchelf(), "--set-rpath", "$ORIGIN/../lib", program)
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("uv") / "python"
    full = f"cpython-{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}-linux-x86_64-gnu"
    real = copied_base(top / full)
    for data in (top / full / "lib").glob("python3.*/_sysconfigdata_*.py"):
        data.write_text(data.read_text().replace(str(BASE), "/install"))
    link = top / f"cpython-{sys.version_info[0]}.{sys.version_info[1]}-linux-x86_64-gnu"
    link.symlink_to(full)
    return link / real.relative_to(top / full)


class TestStandalone:
    """python-build-standalone, which `uv python install` gets: it cannot be had in a test, its layout can.

    The installation lies below a directory with the full version, and a link without the last part leads to it; the
    program finds its library by `$ORIGIN`; build variables name `/install`, where nothing is.
    """

    @pytest.mark.parametrize("maker", ["venv", "uv"])
    def test_it_is_bundled_whole(self, program: Path, special: Path, maker: str) -> None:
        source = special / "source"
        if maker == "venv":
            new(program, source)
        else:
            uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
            assert uv is not None
            run(uv, "venv", "-q", "--no-project", "--python", program, source, PATH="/usr/bin:/bin", HOME=str(special))
        env = built(source, special / "made" / "env")
        installation = Path(os.path.realpath(program)).parents[1]
        proof = prove_plain(env, source)
        assert proof == f"{env} {env}/py\n"
        hidden = installation.rename(installation.with_name("hidden"))
        try:
            assert run(env / "bin" / "python", "-c", CODE) == f"{env} {env}/py\n"
        finally:
            hidden.rename(installation)


def prove_plain(env: Path, source: Path) -> str:
    assert source.exists()
    return run(env / "bin" / "python", "-c", CODE)


class TestHome:
    def test_a_home_behind_a_link_is_followed(self, special: Path) -> None:  # cpython#106045
        (special / "python").symlink_to(BASE)
        source = new(special / "python" / "bin" / SHORT, special / "source")
        assert pyvenv.read(source / "pyvenv.cfg")["home"] == f"{special}/python/bin"
        env = built(source, special / "made")
        (special / "python").unlink()
        assert run(env / "bin" / "python", "-c", CODE) == f"{env} {env}/py\n"

    def test_a_source_that_was_moved_is_good(self, special: Path) -> None:  # row 35
        source = new(sys.executable, special / "first")
        script = source / "bin" / "tool"
        script.write_bytes(f"#!/bin/sh\n'''exec' \"{source}/bin/python\" \"$0\" \"$@\"\n' '''\n{CODE}\n".encode())
        script.chmod(0o755)
        moved = source.rename(special / "second")
        env = built(moved, special / "made")
        assert run(env / "bin" / "tool", PATH="/usr/bin:/bin") == f"{env} {env}/py\n"
        activate = '. "$0/bin/activate"; printf %s "$VIRTUAL_ENV"'
        assert run("/bin/sh", "-c", activate, env, PATH="/usr/bin:/bin") == str(env)

    def test_a_script_in_the_place_of_the_interpreter_is_named(self, special: Path) -> None:
        shim, source = special / "shim", new(sys.executable, special / "source")
        shim.write_text(f'#!/bin/bash\nexec -a "$0" {BASE / "bin" / SHORT} "$@"\n')
        shim.chmod(0o755)
        (source / "bin" / "python").unlink()
        (source / "bin" / "python").symlink_to(shim)
        VenvBuilder().build(source, special / "made", Work())
        with pytest.raises(NotReady, match=f"{shim} is a script that starts another one"):
            bundle_interpreter(special / "made")

    def test_a_standard_library_in_an_archive_is_refused(self, special: Path) -> None:
        program = copied_base(special / "python")
        source = new(program, special / "source")
        library = special / "python" / "lib" / SHORT
        packed = special / "python" / "lib" / f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
        dynload = (library / "lib-dynload").rename(special / "lib-dynload")
        shutil.make_archive(str(packed.with_suffix("")), "zip", library)
        shutil.rmtree(library)
        library.mkdir()
        dynload.rename(library / "lib-dynload")
        env = special / "made"
        VenvBuilder().build(source, env, Work())
        with pytest.raises(NotReady, match=r"not a directory with an os\.py in it|ended with") as caught:
            bundle_interpreter(env)
        assert "remedy: " in str(caught.value)


SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CERTIFICATES = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"


class TestCertificates:
    def test_those_in_the_interpreters_own_prefix_come_along(self, special: Path) -> None:
        """As conda's Python has them.  OpenSSL's path is compiled in: here another one of the same length is put there."""
        program, link = copied_base(special / "python"), Path(f"/tmp/{secrets.token_hex(4)[:7]}")
        own = special / "python" / "ssl"
        own.mkdir()
        (own / "cert.pem").write_text(SYSTEM_CERTIFICATES.read_text().partition("-----END CERTIFICATE-----\n")[0])
        with (own / "cert.pem").open("a") as file:
            file.write("-----END CERTIFICATE-----\n")
        library, modules = special / "python" / "lib", special / "python" / "lib" / SHORT / "lib-dynload"
        ssl = next(modules.glob("_ssl.*"))
        for name, path in elf.needs([ssl])[ssl].found.items():
            if name.startswith(("libssl", "libcrypto")):
                data = Path(path).read_bytes()
                assert data.count(b"/usr/lib/ssl") or name.startswith("libssl")
                (library / name).write_bytes(data.replace(b"/usr/lib/ssl", os.fsencode(link)))
        elf.set_search_path([ssl, next(modules.glob("_hashlib.*"))], "$ORIGIN/../..")
        link.symlink_to(own)
        try:
            source = new(program, special / "source")
            assert run(source / "bin" / "python", "-c", CERTIFICATES) == "1\n"
            env = built(source, special / "made" / "env")
        finally:
            link.unlink()
        assert run(source / "bin" / "python", "-c", CERTIFICATES) == "0\n", "another host"
        (special / "python").rename(special / "hidden")
        assert run(env / "bin" / "python", "-c", CERTIFICATES) == "1\n"
        assert int(run(env / "bin" / "python", "-c", CERTIFICATES, SSL_CERT_FILE=str(SYSTEM_CERTIFICATES))) > 1
        again = built(env, special / "again" / "env")
        shutil.rmtree(env)
        assert run(again / "bin" / "python", "-c", CERTIFICATES) == "1\n"

    def test_those_of_the_system_stay_each_hosts(self, made: Generation) -> None:
        note = [text for text in manifest.parse_header(manifest.read(made.path)).notes if "certificates" in text]
        assert [text.endswith(" of each host") for text in note] == [True]
        assert not list(made.path.rglob("multihost_certificates.pth"))


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user of this machine can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="multihost-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def made(place: Path) -> Generation:
    source = new(sys.executable, place / "it's #1 ü" / "source")
    (next((source / "lib").glob("python3.*/site-packages")) / "mine.py").write_text("answer = 42\n")
    request = provision.ProvisionRequest(source, source.parent / "shared" / "env")
    return provision.ensure(request, notify=lambda _: None)


def as_root_of_namespaces(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script where mounts are its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    argv = ["unshare", *user, "--mount", "--", "/bin/sh", "-ec", script, "sh", *map(str, arguments)]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=120, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    )
    if "unshare failed" in done.stderr:
        missing(f"this user may not make a mount namespace: {done.stderr}")
    return done


class TestElsewhere:
    def test_it_runs_where_no_other_python_is_in_sight(self, made: Generation) -> None:  # R2
        hidden = {
            str(BASE),
            *map(str, Path("/usr/lib").glob("python3*")),
            *map(os.path.realpath, Path("/usr/lib").glob("*/libpython*.so*")),
        }
        script = (
            'python=$1; shift; for path; do if [ -d "$path" ]; then mount -t tmpfs hidden "$path"; '
            'else mount --bind /dev/null "$path"; fi; done; exec env -i "$python" -c "$CODE"'
        ).replace("$CODE", CODE.replace('"', '\\"'))
        paths = sorted(path for path in hidden if path not in {"/", "/usr"} and Path(path).exists())
        done = as_root_of_namespaces(script, made.python, *paths)
        assert done.stdout == f"{made.path} {made.path}/py\n", done.stderr

    def test_it_runs_read_only_and_for_another_user(self, made: Generation, place: Path) -> None:  # R7
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        script = (
            'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; ! touch "$1/x" 2>/dev/null; '
            'exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$2" -m pytest --version'
        )
        done = as_root_of_namespaces(script, made.path, made.python)
        assert (done.returncode, done.stdout.startswith("pytest ")) == (0, True), done.stderr
        script = script.replace("-m pytest --version", '-c "import mine; print(mine.answer, mine.__cached__)"')
        done = as_root_of_namespaces(script, made.path, made.python)
        assert done.stdout.startswith(f"42 {made.path}/"), done.stderr

    def test_a_published_environment_is_a_source(self, made: Generation, tmp_path: Path) -> None:
        again = provision.ensure(provision.ProvisionRequest(made.path, tmp_path / "again"), notify=lambda _: None)
        assert again.path != made.path
        assert run(again.python, "-c", CODE + "; import mine") == f"{again.path} {again.path}/py\n"
        found = provision.verify(tmp_path / "again")
        assert found, found
        assert str(made.path) in found.proof, "the source was out of sight during the proof"

    def test_a_moved_environment_is_told_apart(self, made: Generation, tmp_path: Path) -> None:  # row 47
        moved = tmp_path / "moved"
        shutil.copytree(made.path, moved, symlinks=True)
        found = provision.verify(moved)
        assert not found
        assert found.relocated == str(made.path)

    def test_the_interpreter_is_named_by_its_path(self, made: Generation, tmp_path: Path) -> None:  # row 48
        decoy = tmp_path / "python"
        decoy.write_text("#!/bin/sh\necho decoy\n")
        decoy.chmod(0o755)
        assert run(made.python, "-c", "import sys; print(sys.executable)", PATH=str(tmp_path)) == f"{made.python}\n"

    def test_no_pythonhome_is_needed_and_one_of_the_shell_is_gone_after_activation(
        self, made: Generation
    ) -> None:  # row 38
        from pytest_multihost_env.provision import activate

        code = activate.script(made) + "python -c 'import sys; print(sys.base_prefix)'"
        assert run("/bin/sh", "-c", code, PATH="/usr/bin:/bin", PYTHONHOME="/nowhere") == f"{made.path}/py\n"

    def test_the_prefixes_differ_and_lie_inside(self, made: Generation) -> None:  # row 36
        proof = prove(made.path)
        assert proof.prefix == made.path
        assert proof.base_prefix == made.path / "py"
