"""One contender for each host: a lock in a directory of this machine that only this user can write to."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from pytest_multihost_env.errors import NotReady


class Chair:
    """The seat of this host's contender for `subject`; the kernel frees it when its holder dies.

    Args:
        subject: What is contended for; equal paths of one host share a seat.
        notify: Told once when this machine cannot lock: then everybody may contend.
    """

    def __init__(self, subject: Path, notify: Callable[[str], None]) -> None:
        import filelock  # only who builds needs it

        self._notify = notify
        self._taken = False
        text = f"{socket.gethostname()}\0{os.path.realpath(subject)}"
        name = hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
        self._lock = filelock.UnixFileLock(private_directory() / f"{name}.lock", fallback_to_soft=False)

    def take(self) -> bool:
        """Return whether this process has the seat, now or since an earlier call."""
        if self._taken:
            return True
        import filelock

        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        except OSError as error:
            self._notify(f"this machine cannot lock {self._lock.lock_file} ({error}); several may build, one will win")
        self._taken = True
        return True

    def leave(self) -> None:
        """Free the seat."""
        self._lock.release(force=True)
        self._taken = False


def private_directory() -> Path:
    """Return this user's directory for locks on this machine's own storage, made when it is not there.

    Raises:
        NotReady: Somebody else made it, or others may write to it.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and _is_ours(Path(runtime)):
        path = Path(runtime) / "multihost-env"
    else:
        path = Path(tempfile.gettempdir()) / f"multihost-env-{os.geteuid()}"
    try:
        path.mkdir(mode=0o700)
        path.chmod(0o700)  # the caller's umask may take even our own rights, and the directory stays
    except FileExistsError:
        pass
    except OSError as error:
        raise NotReady("a directory for locks cannot be made", where=f"{path}: {error}", hint="set TMPDIR") from None
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NotReady(
            f"{path} is not a directory of ours alone (owner uid {status.st_uid}, mode {stat.filemode(status.st_mode)})",
            expected=f"a directory of uid {os.geteuid()} with mode 0700: others could swap what is locked there",
            hint="remove it, or set TMPDIR to a directory of your own",
        )
    return path


def _is_ours(runtime: Path) -> bool:
    """Return whether `runtime` is a directory of this user: under `sudo -E` it is the caller's, and would stay spoiled."""
    try:
        status = runtime.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and os.access(runtime, os.W_OK)
