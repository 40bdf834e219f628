"""Small distributions, so that a real installer has something to install where no index can be reached."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path


def wheel(
    place: Path,
    name: str = "tiny",
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    requires: tuple[str, ...] = (),
    script: str = "",
) -> Path:
    """Make a wheel with one module, `name`, that knows its `version`; equal arguments make equal bytes."""
    info = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": f"version = {version!r}\ndef main():\n    print({name!r}, version)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {text}\n" for text in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if script:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script} = {name}:main\n"
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = place / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for inner, text in content.items():
            packed.writestr(zipfile.ZipInfo(inner, (2024, 1, 1, 0, 0, 0)), text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def sha256(path: Path) -> str:
    """Return the digest of a file as lock files write it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


TELLING = """
import json, os, sys
sys.path.insert(0, os.path.dirname(__file__))

def build_wheel(directory, settings=None, metadata=None):
    import zipfile
    name = "telling-1.0-py3-none-any.whl"
    told = json.dumps(dict(os.environ))
    with zipfile.ZipFile(os.path.join(directory, name), "w") as packed:
        packed.writestr("telling.py", "environ = " + repr(told))
        packed.writestr("telling-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: telling\\nVersion: 1.0\\n")
        packed.writestr("telling-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        packed.writestr("telling-1.0.dist-info/RECORD", "")
    return name
"""


def telling_sdist(place: Path, backend: str = TELLING) -> Path:
    """Make a source distribution whose build back-end writes the environment that it is given into the wheel."""
    project = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    project += "[project]\nname = 'telling'\nversion = '1.0'\n"
    path = place / "telling-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name, text in {
            "pyproject.toml": project,
            "backend.py": backend,
            "PKG-INFO": "Metadata-Version: 2.1\nName: telling\nVersion: 1.0\n",
        }.items():
            info = tarfile.TarInfo(f"telling-1.0/{name}")
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text.encode()))
    return path
