"""Turns what the operating system says into what a person can mend."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from pytest_multihost_env.errors import NotReady


@contextlib.contextmanager
def named(doing: str) -> Iterator[None]:
    """Run the block; an OSError in it becomes a NotReady that names the path.

    Args:
        doing: What is done, as the subject of "... failed".

    Raises:
        NotReady: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        path = error.filename2 or error.filename
        raise NotReady(
            f"{doing} failed: {error.strerror or error}",
            where=None if path is None else str(path),
            hint=_hint(error),
        ) from error


def _hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "let this user read the source and write the destination (ls -ld the path and its parents)"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "free space, or choose a destination on another file system"
    if isinstance(error, FileExistsError):
        return "choose a name that does not exist yet"
    return "mend that and try again"
