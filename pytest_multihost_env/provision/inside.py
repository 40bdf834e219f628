"""Answers questions about the interpreter that runs it.  Standard library only, Python 3.11 to 3.14.

Its text is handed to another interpreter with `-c`, so that nothing of ours needs to be importable there.
`python -c TEXT QUESTION ARGUMENTS...` prints one line: `MARK` and JSON.  What else is printed is that of modules and
`.pth` files, before the answer or, by what they registered for the end, after it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable
from typing import Any

MARK = "multihost-env answers: "


def runtime() -> dict[str, Any]:
    """Return where the base interpreter and its parts lie."""
    stdlib = sysconfig.get_path("stdlib")
    dynload = [path for path in sys.path if os.path.basename(path) == "lib-dynload"]  # noqa: PTH119
    return {
        "version": platform.python_version(),
        "name": os.path.basename(stdlib),  # noqa: PTH119
        "base_prefix": sys.base_prefix,
        "base_executable": getattr(sys, "_base_executable", "") or sys.executable,
        "platlibdir": getattr(sys, "platlibdir", "lib"),
        "stdlib": stdlib,
        "dynload": dynload[0] if dynload else "",
        "include": sysconfig.get_config_var("INCLUDEPY") or "",
        "certificates": _certificates(),
    }


def _certificates() -> list[str]:
    """Return the file and the directory that OpenSSL was built to read certificates from."""
    try:
        import ssl

        paths = ssl.get_default_verify_paths()
    except ImportError:
        return []
    return [paths.openssl_cafile, paths.openssl_capath]


def packages() -> dict[str, Any]:
    """Return the marker environment (PEP 508), the install paths and the distributions of this interpreter."""
    info = sys.implementation.version
    suffix = "" if info.releaselevel == "final" else info.releaselevel[0] + str(info.serial)
    marker = {
        "implementation_name": sys.implementation.name,
        "implementation_version": f"{info.major}.{info.minor}.{info.micro}{suffix}",
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "platform_python_implementation": platform.python_implementation(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }
    found: dict[str, list[Any]] = {}
    for dist in _distributions():
        metadata = dist.metadata
        if metadata is not None and "Name" in metadata:  # what an interrupted removal left has none
            # the first on sys.path is the one that is imported
            found.setdefault(metadata["Name"], [dist.version, list(dist.requires or [])])
    return {
        "marker": marker,
        "paths": {key: sysconfig.get_path(key) for key in ("purelib", "platlib", "scripts")},
        "suffix": importlib.machinery.EXTENSION_SUFFIXES[0],
        "cache_tag": sys.implementation.cache_tag,
        "distributions": found,
    }


def _distributions() -> Iterable[Any]:
    try:
        from importlib.metadata import distributions
    except ImportError:  # Python 3.7, whose version then tells that it is too old
        return ()
    return distributions()


def bytecode() -> list[str]:
    """Return the tag in the names of bytecode files and, in hexadecimal, the four bytes that they begin with."""
    return [sys.implementation.cache_tag or "", importlib.util.MAGIC_NUMBER.hex()]


def has(names: list[str]) -> list[str]:
    """Return those of `names` that can be imported."""
    good = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001, S112 - whatever it raises, it cannot be imported
            continue
        good.append(name)
    return good


def imports(names: list[str]) -> dict[str, Any]:
    """Import `names` and return what was loaded: prefixes, search path, module files, mapped files, failures."""
    failed: dict[str, str] = {}
    absent: list[str] = []
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            absent.append(name)
            failed[name] = str(error)
        except BaseException as error:  # noqa: BLE001 - a module may even call sys.exit()
            failed[name] = f"{type(error).__name__}: {error}"
    return {
        "version": platform.python_version(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "path": [path for path in sys.path if path],
        "modules": _module_files(),
        "mapped": _mapped(),
        "failed": failed,
        "absent": absent,
    }


def _module_files() -> dict[str, str]:
    """Return module name to file, of all loaded modules that name one by an absolute path.

    A relative `__file__` is invented by the module itself (`torch.ops` says "_ops.py") and locates nothing.
    """
    files: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        try:
            file = getattr(module, "__file__", None)
        except Exception:  # noqa: BLE001, S112 - a module that loads itself when it is asked may raise anything
            continue
        if isinstance(file, str) and file.startswith("/"):
            files[name] = os.path.realpath(file)
    return files


def _mapped() -> list[str]:
    """Return the files that are mapped into this process (proc(5): a newline in a name reads as an escape)."""
    paths = set()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:  # noqa: PTH123
        for line in lines:
            fields = line.rstrip("\n").split(None, 5)
            if len(fields) == 6 and fields[5].startswith("/"):
                paths.add(fields[5])
    return sorted(paths)


def main(arguments: list[str]) -> None:
    """Print the answer to the question in `arguments[0]`."""
    question, rest = arguments[0], arguments[1:]
    if question == "version":
        answer: Any = sys.version
    elif question == "runtime":
        answer = runtime()
    elif question == "packages":
        answer = packages()
    elif question == "bytecode":
        answer = bytecode()
    elif question == "has":
        answer = has(rest)
    else:
        answer = imports(rest)
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")  # ASCII, on a line of its own whatever modules print


if __name__ == "__main__":
    main(sys.argv[1:])
