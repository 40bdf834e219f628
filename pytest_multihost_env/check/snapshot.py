"""What one host says about its Python environment.  A program: the standard library only, nothing of this package.

Run as `python -P snapshot.py` with the environment's own interpreter: a JSON request on stdin, one line of JSON on
stdout.  Three layers: *declared* (what the metadata says), *imported* (what an import gives), *loaded* (which shared
libraries are then mapped).  Each module is imported in a process of its own, so that one that prints, ends the
interpreter or crashes speaks only for itself.

Request: `packages` (distribution or import names), `imports` (module names), `all_packages`, `variables` (names),
`path` (entries put before `sys.path` for imports), `layers` (default: all), `timeout` (seconds for one import),
`salt` (mixed into the hash of a variable that looks secret).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pytest_multihost_env.check.alone import import_alone
else:  # the environment that is looked at need not have this package, and `-P` keeps this directory off `sys.path`
    _spec = importlib.util.spec_from_file_location("multihost_alone", Path(__file__).with_name("alone.py"))
    _alone = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_alone)
    import_alone = _alone.import_alone

VERSION = 1
Found = dict[str, list[Distribution]]
_SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH|COOKIE|SESSION", re.IGNORECASE)
# These lines of a RECORD tell where and how something was installed, not what.
_INSTALL_NOISE = re.compile(
    r"^(\.\.[/\\]|/)|\.pyc,|\.dist-info/(INSTALLER|REQUESTED|RECORD|direct_url\.json|uv_\w+\.json),"
)


def normal(name: str) -> str:
    """Return a distribution's name in its one normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


# ---- declared ------------------------------------------------------------------------------------------------------


def installed(problems: list[str]) -> Found:
    """Return the distributions by normal name; of two with the same name the first on `sys.path`, as for an import."""
    found: Found = {}
    for dist in importlib.metadata.distributions():
        folder = Path(str(getattr(dist, "_path", ""))).name
        if folder.startswith("~"):
            continue  # what pip leaves when it could not finish an uninstall
        try:
            name = str(dist.metadata["Name"] or "")
            readable = bool(name) and isinstance(dist.version, str)
        except Exception:  # noqa: BLE001 - metadata is a file that anybody may have broken
            readable = False
        if not readable:
            problems.append(f"{folder or 'a distribution'}: its metadata gives no name or no version")
            continue
        found.setdefault(normal(name), []).append(dist)
    return found


def declared(dists: Sequence[Distribution]) -> dict[str, Any]:
    """Describe the distribution that an import would use, and the others of the same name that it hides."""
    dist = dists[0]
    origin = _direct_url(dist)
    vcs = origin.get("vcs_info") or {}
    return {
        "version": dist.version,
        "location": _location(dist),
        "files": _record_digest(dist),
        "commit": vcs.get("commit_id"),
        "revision": vcs.get("requested_revision"),
        "editable": _editable(origin),
        "hidden": [{"version": str(d.version), "location": _location(d)} for d in dists[1:]],
    }


def _location(dist: Distribution) -> str:
    return str(Path(str(dist.locate_file(""))).absolute())


def _direct_url(dist: Distribution) -> dict[str, Any]:
    with contextlib.suppress(Exception):
        data = json.loads(dist.read_text("direct_url.json") or "{}")
        if isinstance(data, dict):
            return data
    return {}


def _editable(origin: Mapping[str, Any]) -> str | None:
    if not (origin.get("dir_info") or {}).get("editable"):
        return None
    return unquote(urlsplit(origin.get("url", "")).path) or None


def _record_digest(dist: Distribution) -> str | None:
    """Return a digest of the installed files' digests, equal for equal wheels wherever they are installed."""
    record = dist.read_text("RECORD")
    if not record:
        return None
    lines = sorted(line for line in record.splitlines() if line and not _INSTALL_NOISE.search(line))
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def owners() -> dict[str, list[str]]:
    """Return which distributions own which top-level module."""
    with contextlib.suppress(Exception):
        found = importlib.metadata.packages_distributions()
        return {module: sorted({normal(d) for d in names if d}) for module, names in found.items()}
    return {}


def resolve(name: str, found: Found, owned: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the distributions and the modules that a person means with `name`."""
    if normal(name) not in found:
        return {"distributions": [d for d in owned.get(name, []) if d in found], "modules": [name]}
    key = normal(name)
    modules = [m for m, names in owned.items() if key in names and m.isidentifier() and not m.startswith("_")]
    twin = next((m for m in modules if normal(m) == key), None)
    if not modules:  # an editable install, or one that lists only compiled files
        guess = key.replace("-", "_")
        with contextlib.suppress(Exception):
            modules = [guess] if guess.isidentifier() and importlib.util.find_spec(guess) else []
    return {"distributions": [key], "modules": [twin] if twin else sorted(modules)}


def _under(path: str, roots: Sequence[str | None]) -> bool:
    real = os.path.realpath(path)
    return any(
        path == root
        or path.startswith(root.rstrip("/") + "/")
        or real.startswith(os.path.realpath(root).rstrip("/") + "/")
        for root in roots
        if root
    )


def origin(file: str | None, dists: Sequence[Mapping[str, Any]]) -> str:
    """Say where an imported file lies: editable, misplaced, environment, stdlib, builtin or outside.

    "misplaced": inside the environment, yet not where the distribution that claims the module is installed.
    """
    if file is None:
        return "builtin"
    if _under(file, [d["editable"] for d in dists]):
        return "editable"
    home = [sys.prefix, *site.getsitepackages()]
    if _under(file, home):
        return "environment" if not dists or _under(file, [d["location"] for d in dists]) else "misplaced"
    if _under(file, [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]):
        return "outside" if re.search(r"/(site|dist)-packages/", file) else "stdlib"
    return "outside"


# ---- the whole -----------------------------------------------------------------------------------------------------


def facts() -> dict[str, str | None]:
    """Return what this interpreter and this machine are."""
    glibc = None
    with contextlib.suppress(ValueError, OSError):  # another C library does not know the name
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    return {
        "python": platform.python_version(),
        "build": sys.version,
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "platform": sysconfig.get_platform(),
        "machine": platform.machine(),
        "glibc": glibc,
        "kernel": platform.release(),
    }


def markers() -> dict[str, str]:
    """Return the values of the environment markers here (PEP 508)."""
    info = sys.implementation.version
    level = "" if info.releaselevel == "final" else info.releaselevel[0] + str(info.serial)
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": f"{info.major}.{info.minor}.{info.micro}{level}",
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def variable(name: str, salt: str) -> str | None:
    """Return the value of a variable, or a hash that two hosts can compare where the name looks secret."""
    value = os.environ.get(name)
    if value is None or not _SECRET.search(name):
        return value
    return "hash:" + hmac.new(salt.encode(), os.fsencode(value), hashlib.sha256).hexdigest()[:16]


def snapshot(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to `request`."""
    problems: list[str] = []
    layers = request.get("layers") or ["declared", "imported", "loaded"]
    found = installed(problems)
    owned = owners() if request.get("packages") or request.get("imports") else {}
    asked = {name: resolve(name, found, owned) for name in request.get("packages") or []}
    wanted = set(found) if request.get("all_packages") else {d for a in asked.values() for d in a["distributions"]}
    names = {name: _claimants(name, found, owned) for name in request.get("imports") or []}
    if "imported" in layers:
        for answer in asked.values():
            names.update(dict.fromkeys(answer["modules"], answer["distributions"]))
    modules, loaded = look(names, found, request)
    return {
        "multihost_snapshot": VERSION,
        "hostname": platform.node(),
        "platform": facts(),
        "markers": markers(),
        "variables": {n: variable(n, str(request.get("salt") or "")) for n in request.get("variables") or []},
        "asked": asked,
        "declared": {name: declared(found[name]) for name in sorted(wanted)},
        "modules": modules,
        "loaded": loaded if "loaded" in layers else [],
        "problems": problems,
    }


def _claimants(module: str, found: Found, owned: Mapping[str, list[str]]) -> list[str]:
    top = module.partition(".")[0]
    return [d for d in owned.get(top) or [normal(top)] if d in found]


def look(
    names: Mapping[str, list[str]], found: Found, request: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Import each module alone; return what came of it, and the libraries with the modules that mapped them."""
    modules: dict[str, Any] = {}
    loaded: dict[str, dict[str, Any]] = {}
    for name, mine in names.items():
        result = import_alone(name, list(request.get("path") or []), float(request.get("timeout") or 120))
        for library in result.pop("libraries", []):
            loaded.setdefault(library["path"], {**library, "modules": []})["modules"].append(name)
        claims = [declared(found[d]) for d in mine]
        modules[name] = {**result, "distributions": mine, "origin": origin(result.get("file"), claims)}
    return modules, [loaded[path] for path in sorted(loaded)]


def main() -> None:
    """Answer the request on stdin; whatever else is printed goes to stderr."""
    answer = os.dup(1)
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.read() or b"{}")
    data = b"\n" + json.dumps(snapshot(request), sort_keys=True).encode() + b"\n"
    while data:
        data = data[os.write(answer, data) :]


if __name__ == "__main__":
    main()
