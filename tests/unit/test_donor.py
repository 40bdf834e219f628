"""Copying a distribution out of whichever root it was installed into."""

from __future__ import annotations

import importlib.metadata
import sysconfig
from pathlib import Path

import pytest

from pytest_multihost_env.provision import donor

PYTHON = f"python{sysconfig.get_python_version()}"


def install(site: Path) -> importlib.metadata.Distribution:
    """Put a distribution with a module, a program in `bin` and a data file in `share` below the root of `site`."""
    root, information = site.parents[2], site / "tool-1.0.dist-info"
    contents = {
        site / "tool.py": "VALUE = 1\n",
        root / "bin" / "tool-helper": "#!/bin/sh\necho helped\n",
        root / "share" / "tool" / "help.txt": "help\n",
        information / "METADATA": "Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n",
        information / "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
        information / "RECORD": "tool.py,,\n../../../bin/tool-helper,,\n../../../share/tool/help.txt,,\n"
        "tool-1.0.dist-info/METADATA,,\ntool-1.0.dist-info/WHEEL,,\ntool-1.0.dist-info/RECORD,,\n",
    }
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return next(iter(importlib.metadata.distributions(path=[str(site)])))


@pytest.mark.parametrize(
    "place", [f".local/lib/{PYTHON}/site-packages", f"usr/local/lib/{PYTHON}/dist-packages"], ids=["user", "Debian"]
)
def test_files_beside_site_packages_come_along_from_any_root(place: str, special: Path) -> None:
    dist = install(special / place)
    env = special / "env"
    site = env / "lib" / PYTHON / "site-packages"
    site.mkdir(parents=True)
    there = {"paths": {"purelib": str(site), "platlib": str(site)}, "suffix": ".so", "cache_tag": "cpython-399"}
    donor.copy(dist, env, there)
    assert (site / "tool.py").read_text() == "VALUE = 1\n"
    assert (env / "bin" / "tool-helper").read_text().endswith("echo helped\n")
    assert (env / "share" / "tool" / "help.txt").is_file()
    assert "../../../bin/tool-helper" in (site / "tool-1.0.dist-info" / "RECORD").read_text()
