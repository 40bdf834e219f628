"""With whom what is made is shared: modes and group of every directory, file and record, whatever the caller's umask."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pytest_multihost_env.errors import NotReady, UsageProblem

ALONE, TOGETHER = 0o022, 0o002


@dataclasses.dataclass(frozen=True, slots=True)
class Sharing:
    """Who may do what with what is made.

    Attributes:
        group: The group that it belongs to, whose members may also build, pin and clear up; None: the caller's.
        umask: Bits that nobody gets (umask(2)).
    """

    group: int | None = None
    umask: int = ALONE

    def directory(self, mode: int = 0o777) -> int:
        """Return the mode of a directory that came with `mode`.

        Members of the group may do what we may; in a set-group-id directory what is made later is the group's too.
        """
        if self.group is not None:
            return stat.S_ISGID | (0o777 & ~self.umask)
        return (mode | stat.S_IRWXU) & 0o777 & ~self.umask

    def file(self, mode: int) -> int:
        """Return the mode of a published file that came with `mode`: nobody may write, and the group may what we may."""
        mode |= stat.S_IRUSR
        if self.group is not None:
            mode |= (mode & stat.S_IRWXU) >> 3
        return mode & 0o555 & ~self.umask

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Run the block, and the programs that it starts, under this umask instead of the caller's."""
        before = os.umask(self.umask)
        try:
            yield
        finally:
            os.umask(before)

    def make(self, path: Path) -> None:
        """Create the directory `path` if it is not there; ours gets mode and group.

        Raises:
            NotReady: It is there and is no directory, or what this user makes there belongs to somebody else.
            OSError: It cannot be made.
        """
        with contextlib.suppress(FileExistsError):  # "is it there?" would be answered from a stale cache
            path.mkdir(mode=0o700)
            self._refuse_mapped(path)
            self.settle(path)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotReady(f"{path} is no directory", expected="a directory that this package made", where=str(path))
        if self.group is not None and status.st_uid == os.geteuid():
            self._settle(path, status, self.directory())  # it may be from before it was shared

    def settle(self, directory: Path) -> None:
        """Give a directory that we have just made its mode and group."""
        self._settle(directory, directory.lstat(), self.directory())

    def seal(self, root: Path) -> None:
        """Give everything below `root`, and `root`, its final mode and group; files can no more be written to."""
        for directory, _, found in os.walk(root):
            path = Path(directory)
            status = path.lstat()
            self._settle(path, status, self.directory(stat.S_IMODE(status.st_mode)))
            for name in found:
                file = path / name
                status = file.lstat()
                if self.group not in {None, status.st_gid}:
                    self._give(file)
                if stat.S_ISREG(status.st_mode):
                    file.chmod(self.file(stat.S_IMODE(status.st_mode)))

    def _settle(self, directory: Path, status: os.stat_result, mode: int) -> None:
        given = self.group not in {None, status.st_gid}
        if given:
            self._give(directory)
        if given or stat.S_IMODE(status.st_mode) != mode:
            directory.chmod(mode)  # after chown(2), which takes the set-group-id bit away

    def _give(self, path: Path) -> None:
        assert self.group is not None  # noqa: S101 - the callers have looked
        try:
            os.chown(path, -1, self.group, follow_symlinks=False)
        except PermissionError:
            raise NotReady(
                f"what this user makes cannot be given to the group with gid {self.group}",
                where=str(path),
                expected="a group that this user is a member of",
                hint="name another with --multihost-group, or become a member (newgrp)",
            ) from None

    def _refuse_mapped(self, path: Path) -> None:
        owner = path.lstat().st_uid
        if owner == os.geteuid():
            return
        with contextlib.suppress(OSError):
            path.rmdir()
        whose = "root, as which this runs," if os.geteuid() == 0 else f"uid {os.geteuid()}"
        raise NotReady(
            f"what {whose} makes there belongs to uid {owner}: the file server maps users",
            where=str(path.parent),
            expected=f"files that belong to uid {os.geteuid()}",
            hint="run this as an ordinary user who may write there; an export with root_squash is never root's",
        )


NOBODY = Sharing()


def parse(group: int | None, umask: str | None) -> Sharing:
    """Return how to share.

    Args:
        group: Whom with; None: nobody.
        umask: Octal, as a shell takes it; None: 022, or 002 with a group.

    Raises:
        UsageProblem: The umask is none, or it would let somebody write whom nobody named.
    """
    floor = ALONE if group is None else TOGETHER
    try:
        bits = floor if umask is None else int(umask, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o777 or bits & 0o700:
        raise UsageProblem(f"{umask} is no umask", where="umask", expected="three octal digits, the first of them 0")
    if bits & floor != floor:
        raise UsageProblem(
            f"the umask {umask} would let others write what is run here",
            where="umask",
            expected=f"at least {floor:03o}",
            hint="name the group that may write with --multihost-group" if group is None else "use 002 or 007",
        )
    return Sharing(group, bits)
