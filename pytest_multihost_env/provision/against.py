"""Which files two environments do not have in common, by what their manifests say: on two hosts, or of two days."""

from __future__ import annotations

from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.provision import manifest
from pytest_multihost_env.provision.compare import Differences, compare
from pytest_multihost_env.provision.manifest import Entry


def against(one: Path, other: Path) -> Differences:
    """Return how the manifest of `other` differs from that of `one`; times do not count.

    Args:
        one: An environment that `ensure` made, the symlink to it, or a manifest that was brought from another host.
        other: Another of these.  What it lacks is `missing`, what only it has is `extra`.

    Raises:
        NotReady: There is no manifest.
    """
    return compare(_entries(one), _entries(other))


def _entries(place: Path) -> list[Entry]:
    file = place.resolve() / manifest.NAME if place.is_dir() else place
    try:
        known = manifest.parse(files.read_record(file, limit=manifest.LIMIT).data)
    except (OSError, ValueError) as error:
        raise NotReady(
            f"{file} is no manifest that can be read: {error}",
            expected="an environment that multihost-env made, or the file .multihost-manifest of one",
            hint="name another",
        ) from None
    return [entry._replace(mtime_ns=0) for entry in known.entries]
