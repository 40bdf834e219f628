"""When two version texts mean the same (PEP 440)."""

from __future__ import annotations

STRICT = "strict"
IGNORE_LOCAL = "ignore-local"


def same(one: str, other: str, local: str = STRICT) -> bool:
    """Whether two hosts have the same version.  Under `ignore-local`, `2.9.1+cu128` is `2.9.1`."""
    from packaging.version import InvalidVersion, Version  # the plugin loads this module without using it

    if one == other:
        return True
    try:
        left, right = Version(one), Version(other)
    except InvalidVersion:
        return False
    return left.public == right.public if local == IGNORE_LOCAL else left == right


def same_here(declared: str, imported: str) -> bool:
    """Whether a module's `__version__` agrees with its distribution's version on one and the same host.

    Wheels are looser than hosts may be: PyTorch's from PyPI declare `2.9.1` and import as `2.9.1+cu128`, OpenCV's
    declare `4.9.0.80` and import as `4.9.0`.  A local label counts only where both have one.
    """
    from packaging.version import InvalidVersion, Version

    if declared == imported:
        return True
    try:
        left, right = Version(declared), Version(imported)
    except InvalidVersion:
        return False
    if left.local and right.local and left.local != right.local:
        return False
    shorter = min(len(left.release), len(right.release))
    if shorter >= 3 and left.release[:shorter] == right.release[:shorter] and left.release != right.release:
        return not (left.is_prerelease or right.is_prerelease)
    return Version(left.public) == Version(right.public)
