"""What of an environment is imported from outside of it: refused by name, unless it is allowed by name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_multihost_env.errors import NotReady


class Outside:
    """The paths outside of an environment that something in it leads to.

    Args:
        allowed: Distributions that may be imported from outside, and names of `.pth` files that no distribution has.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = {plain(name) for name in allowed}
        self._refused: dict[str, None] = {}
        self._names: set[str] = set()
        self._paths: dict[str, list[str]] = {}

    def add(self, file: Path, label: str, path: str, owner: str = "") -> None:
        """Note that `file` of the environment leads to `path`.

        Args:
            file: What leads outside: a file or link of site-packages.
            label: How a person is told.
            path: Where it leads.
            owner: The distribution that it belongs to; "": the one that recorded `file`.
        """
        owner = owner or owner_of(Path(file.name), file.parent, path)
        if plain(owner or file.name) in self._allowed:
            known = self._paths.setdefault(owner or file.name, [])
            if path not in known:
                known.append(path)
            return
        self._refused[f"{label} ({owner})" if owner and owner not in label else label] = None
        self._names.add(owner or file.name)

    def check(self) -> None:
        """Raise when something was noted that is not allowed.

        Raises:
            NotReady: Names each.
        """
        if not self._refused:
            return
        names = ", ".join(sorted(self._names))
        raise NotReady(
            "the environment imports code from outside of itself, so other hosts may see another or none",
            where="\n".join(self._refused),
            hint="install it non-editable (`pip install PATH`, without -e), remove the .pth file, or, where every host "
            f"has the same path, allow it by name: --multihost-allow-outside={names}",
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Where what is allowed leads, sorted."""
        return tuple(sorted({path for paths in self._paths.values() for path in paths}))

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each distribution that is allowed and was met."""
        return tuple(
            f"{name} is imported from outside of the environment, as allowed: {', '.join(paths)}"
            for name, paths in sorted(self._paths.items())
        )


def owner_of(file: Path, site: Path, path: str = "") -> str:
    """Return the name of the distribution of `site` that `file`, relative to it, belongs to; "" for none.

    RECORD names it; an old `setup.py develop` has a `.egg-link` for the `path` instead; a link of flit's has the
    distribution's own name.
    """
    for information in sorted(site.glob("*.dist-info")):
        try:
            text = (information / "RECORD").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            text = ""
        name = information.name.partition("-")[0]
        if re.search(rf"^{re.escape(file.as_posix())}[,/]", text, re.MULTILINE) or plain(name) == plain(file.name):
            return name
    for link in sorted(site.glob("*.egg-link")):
        lines = link.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        if lines and os.path.normpath(lines[0].strip()) == os.path.normpath(path):
            return link.stem
    return ""


def plain(name: str) -> str:
    """Return the name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
