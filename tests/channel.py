"""A conda channel of this machine's own Python and two tiny packages, as files: nothing is reached over a network."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pytest_multihost_env.provision.bundle import bundle_interpreter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}.get(platform.machine(), "linux-64")
SHORT = f"{sys.version_info.major}.{sys.version_info.minor}"


def make(channel: Path, scratch: Path) -> Path:
    """Make the channel: python (the interpreter that runs the tests), `condaling` 1.0 and 2.0, `clashing`."""
    venv.create(scratch / "env", with_pip=False, symlinks=True)
    bundle_interpreter(scratch / "env")
    _python(channel / SUBDIR, scratch / "env" / "py")
    for version, needs in (("1.0", ["python"]), ("2.0", ["python >=3.99"])):
        _noarch(channel / "noarch", version, needs)
    for folder in (channel / SUBDIR, channel / "noarch"):
        index(folder)
    return channel


def index(folder: Path) -> None:
    """Write the index of one directory of packages."""
    packages = {}
    for file in folder.glob("*.conda"):
        with zipfile.ZipFile(file) as packed:
            (inner,) = [name for name in packed.namelist() if name.startswith("info-")]
            with tarfile.open(fileobj=io.BytesIO(zstd.decompress(packed.read(inner)))) as info:
                member = info.extractfile("info/index.json")
                assert member is not None
                record = json.load(member)
        data = file.read_bytes()
        packages[file.name] = {
            **record,
            "sha256": hashlib.sha256(data).hexdigest(),
            "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "size": len(data),
        }
    content = {"info": {"subdir": folder.name}, "packages": {}, "packages.conda": packages, "repodata_version": 1}
    (folder / "repodata.json").write_text(json.dumps(content))


def _python(folder: Path, tree: Path) -> None:
    """Pack the installation `tree`; where it names its own path, conda's rule for prefixes applies."""
    files = [
        path
        for path in sorted(tree.rglob("*"))
        if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts
    ]
    record = {"name": "python", "version": platform.python_version(), "depends": [], "subdir": SUBDIR}
    _pack(folder, record, [(str(path.relative_to(tree)), path) for path in files], str(tree))


def _noarch(folder: Path, version: str, depends: list[str]) -> None:
    info = f"site-packages/condaling-{version}.dist-info"
    content = {
        "site-packages/condaling.py": f"version = {version!r}\ndef main():\n    import sys; print(version, sys.prefix)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: condaling\nVersion: {version}\n",
        f"{info}/RECORD": "condaling.py,,\n",
        f"{info}/INSTALLER": "conda\n",
    }
    record = {"name": "condaling", "version": version, "depends": depends, "subdir": "noarch", "noarch": "python"}
    link = {"noarch": {"type": "python", "entry_points": ["say-conda = condaling:main"]}, "package_metadata_version": 1}
    _pack(folder, record, [(name, text.encode()) for name, text in content.items()], "", link)


def _pack(
    folder: Path,
    record: dict[str, object],
    files: Iterable[tuple[str, Path | bytes]],
    placeholder: str,
    link: dict[str, object] | None = None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {**record, "build": "0", "build_number": 0, "timestamp": 1_700_000_000_000}
    paths, packed = [], io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, source in files:
            paths.append(_add(tar, name, source, placeholder))
    info = io.BytesIO()
    with tarfile.open(fileobj=info, mode="w") as tar:
        contents = {"index.json": record, "paths.json": {"paths": paths, "paths_version": 1}, "about.json": {}}
        if link is not None:
            contents["link.json"] = link
        for name, content in contents.items():
            _add(tar, f"info/{name}", json.dumps(content).encode(), "")
        _add(tar, "info/files", "".join(f"{path['_path']}\n" for path in paths).encode(), "")
    stem = f"{record['name']}-{record['version']}-0"
    with zipfile.ZipFile(folder / f"{stem}.conda", "w") as conda:
        conda.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        conda.writestr(f"pkg-{stem}.tar.zst", zstd.compress(packed.getvalue(), 1))
        conda.writestr(f"info-{stem}.tar.zst", zstd.compress(info.getvalue(), 1))


def _add(tar: tarfile.TarFile, name: str, source: Path | bytes, placeholder: str) -> dict[str, object]:
    if isinstance(source, Path) and source.is_symlink():
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, str(source.readlink())
        tar.addfile(member)
        target = source.resolve().read_bytes()
        return {
            "_path": name,
            "path_type": "softlink",
            "sha256": hashlib.sha256(target).hexdigest(),
            "size_in_bytes": 0,
        }
    data = source if isinstance(source, bytes) else source.read_bytes()
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), 1_700_000_000
    member.mode = source.stat().st_mode & 0o777 if isinstance(source, Path) else 0o644
    tar.addfile(member, io.BytesIO(data))
    path = {
        "_path": name,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if placeholder and b"\0" not in data and re.search(re.escape(placeholder.encode()), data):
        path |= {"prefix_placeholder": placeholder, "file_mode": "text"}
    return path
