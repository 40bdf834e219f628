"""Makes what an interpreter says about its own installation (`sysconfig`) true for the copy."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from pytest_multihost_env.provision.paths import Replacer

_SYSTEM = {"/", "/usr"}


def rewrite(library: Path, base: Path, prefix: Path) -> list[Path]:
    """Replace `base` by `prefix` in the build variables below `library` and return the files that changed.

    A system's Python is left alone: below /usr, a name may as well mean another package's file.

    Args:
        library: The copied standard library.
        base: The prefix that it was built for.
        prefix: The prefix that it has now.
    """
    if str(base) in _SYSTEM:
        return []
    # In compiler flags a path follows -L, -I or -rpath without a break.
    replacer = Replacer(prefix, [base], glued=True)
    sources = sorted(library.glob("_sysconfigdata_*.py"))
    data = sorted([*library.glob("_sysconfig_vars_*.json"), *library.glob("build-details.json")])
    changed = [file for file in sources if _rewrite_python(file, replacer)]
    changed += [file for file in data if _rewrite_json(file, replacer)]
    return changed


def _rewrite_python(file: Path, replacer: Replacer) -> bool:
    """Rewrite `build_time_vars = {...}`: by its values, since a path with a quote would break the text."""
    text = file.read_text(encoding="utf-8")
    assigned = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    if len(assigned) != 1 or ast.unparse(assigned[0].targets[0]) != "build_time_vars":
        return False
    values = ast.literal_eval(assigned[0].value)
    fresh = _replace(values, replacer)
    if fresh == values:
        return False
    lines = "".join(f" {key!r}: {value!r},\n" for key, value in fresh.items())
    file.unlink()  # the copy of a read-only file
    file.write_text(f"# build-time variables, as installed here\nbuild_time_vars = {{\n{lines}}}\n", encoding="utf-8")
    return True


def _rewrite_json(file: Path, replacer: Replacer) -> bool:
    values = json.loads(file.read_text(encoding="utf-8"))
    fresh = _replace(values, replacer)
    if fresh == values:
        return False
    file.unlink()
    file.write_text(json.dumps(fresh, indent=2) + "\n", encoding="utf-8")
    return True


def _replace(value: Any, replacer: Replacer) -> Any:
    if isinstance(value, str):
        return replacer.text(value)
    if isinstance(value, list):
        return [_replace(item, replacer) for item in value]
    if isinstance(value, dict):
        return {key: _replace(item, replacer) for key, item in value.items()}
    return value
