"""Makes a virtual environment out of a Python installation that brings its packages, such as conda's.

The installation lies at `ENV/py`; `ENV` is a virtual environment (PEP 405) of its Python, so that
`sys.prefix` is ENV and `sys.base_prefix` is `ENV/py`, as in every environment here.  The packages are ENV's, and a link
leads to them from where they were; so are the scripts of Python, and links lead to all other programs.
"""

from __future__ import annotations

import os
from pathlib import Path

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import ask, mishaps, scripts

_KEPT = ("python", "activate", "Activate.ps1", "deactivate")


def make(env: Path) -> None:
    """Make `env`, which holds nothing but an installation at `env/py`, a virtual environment.

    Raises:
        NotReady: The installation's Python does not run.
    """
    base = env / "py"
    python = base / "bin" / "python"
    if not python.exists():
        raise NotReady(f"{python} does not exist", where=str(base), hint="add python to what is installed")
    _quote_build_data(base)
    done = ask.run([str(python), "-I", "-m", "venv", "--without-pip", "--symlinks", str(env)])
    if not done:
        raise NotReady(
            "the Python that was installed cannot make a virtual environment",
            where=str(python),
            hint="add a Python with its whole standard library",
            details={"it wrote": "\n".join(done.stderr.strip().splitlines()[-10:])},
        )
    with mishaps.named("joining the installation and the environment"):
        _share_packages(env, base)
        for program in sorted((base / "bin").iterdir()):
            _offer(program, env)


def _quote_build_data(base: Path) -> None:
    """Have strings of Python hold the path that conda put into them as it is, quotes and all."""
    plain = str(base)
    quoted = plain.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"')
    if quoted != plain:
        for file in base.glob("lib/python3.*/_sysconfigdata*.py"):
            text = file.read_text(encoding="utf-8", errors="surrogateescape")
            scripts.replace(file, text.replace(plain, quoted).encode("utf-8", "surrogateescape"))


def _share_packages(env: Path, base: Path) -> None:
    """Move the packages to `env`, where `RECORD` files find their scripts, and leave a link in the installation."""
    for site in (env / "lib").glob("python3.*/site-packages"):
        there = base / site.relative_to(env)
        there.mkdir(parents=True, exist_ok=True)
        site.rmdir()
        there.rename(site)
        there.symlink_to(os.path.relpath(site, there.parent))


def _offer(program: Path, env: Path) -> None:
    """Have `program` of the installation in `env/bin` as well."""
    own = env / "bin" / program.name
    if program.name.startswith(_KEPT) or own.is_symlink() or own.exists():
        return
    head = None
    if program.is_file() and not program.is_symlink():
        with program.open("rb") as file:
            content = file.read() if file.read(2) == b"#!" else b""
        head = scripts.read(b"#!" + content) if content else None
    if head is None or not _is_python(head, program.parent):
        own.symlink_to(os.path.relpath(program, own.parent))
        return
    options = "" if head.program.endswith("/env") else head.options
    own.write_bytes(scripts.header(str(env / "bin" / "python"), options) + (b"#!" + content)[head.length :])
    own.chmod(0o755)


def _is_python(head: scripts.Header, folder: Path) -> bool:
    if head.program == "/usr/bin/env":  # what a long or awkward path becomes
        return head.options.split()[:1] in (["python"], ["python3"])
    return Path(head.program).parent == folder and Path(head.program).name.startswith("python")
