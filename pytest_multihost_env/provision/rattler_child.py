"""Solves and installs conda packages with py-rattler, in a process of its own.  Needs nothing else of this package.

Standard input is one JSON object, `{channels, packages, prefix, cache}`; standard output ends with one line of JSON: the
packages that were installed, or `{error, kind, index}`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import urllib.parse
from pathlib import Path
from typing import Any

# No link into the cache: an environment must not change with it.
_CONFIG = "allow-hard-links = false\nallow-symbolic-links = false\n"


def answer(wish: dict[str, Any]) -> dict[str, Any]:
    """Return what was installed, or why nothing was."""
    try:
        import rattler
        from rattler.exceptions import SolverError
    except ImportError as error:
        return {"error": str(error), "kind": "absent"}
    specs = []
    for index, text in enumerate(wish["packages"]):
        try:
            specs.append(rattler.MatchSpec(text))
        except Exception as error:  # noqa: BLE001 - whatever it says, this one is wrong
            return {"error": str(error), "kind": "spec", "index": index}
    try:
        return {"installed": asyncio.run(_install(wish, specs))}
    except SolverError as error:
        return {"error": str(error), "kind": "solver"}
    except Exception as error:  # noqa: BLE001 - the caller tells what it means
        return {"error": str(error) or type(error).__name__, "kind": type(error).__name__}


async def _install(wish: dict[str, Any], specs: list[Any]) -> list[str]:
    import rattler

    virtual = rattler.VirtualPackage.detect(rattler.VirtualPackageOverrides.from_env())
    gateway = rattler.Gateway(cache_dir=Path(wish["cache"], "repodata"))
    records = await rattler.solve(
        sources=[rattler.Channel(channel) for channel in wish["channels"]],
        specs=specs,
        gateway=gateway,
        virtual_packages=virtual,
    )
    names = {record.name.normalized for record in records}
    if "python" not in names:
        raise LookupError("none of the packages brings a Python: add python to the dependencies")
    for record in records:
        _check(record)
    await rattler.install(
        records=records,
        target_prefix=wish["prefix"],
        cache_dir=Path(wish["cache"], "pkgs"),
        show_progress=False,
        config=rattler.Config.from_toml(_CONFIG),
    )
    return sorted(f"{record.name.normalized} {record.version}" for record in records)


def _check(record: Any) -> None:
    """Compare a package that is a file with its digest in the index: rattler does so only with what it downloads.

    Raises:
        ValueError: It has another one.
    """
    url = urllib.parse.urlsplit(record.url)
    if url.scheme != "file" or record.sha256 is None:
        return
    with Path(urllib.parse.unquote(url.path)).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != record.sha256.hex():
        raise ValueError(f"hash mismatch: {record.url} has sha256 {found}, and its channel says {record.sha256.hex()}")


if __name__ == "__main__":
    print("\n" + json.dumps(answer(json.load(sys.stdin))))
