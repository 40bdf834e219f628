"""Whose files may be run: who can change them decides that, at every step of the way to them.

A group that may write is as good as its members, and who they are no machine knows for sure: a directory service need
not tell.  So a group is refused unless it was named, with one exception: where each user has a group of their own
(Debian, Fedora) that has the user's name and nobody else in it.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from pytest_multihost_env import files
from pytest_multihost_env.errors import NotReady, UsageProblem

_MAX_LINKS = 40
_ACL = "system.posix_acl_access"


@dataclasses.dataclass(frozen=True, slots=True)
class Trust:
    """Whom to trust besides this user and root.

    Attributes:
        owners: Users whose files may be run.
        group: The group whose members may write, or None.
    """

    owners: frozenset[int] = frozenset()
    group: int | None = None

    @property
    def users(self) -> frozenset[int]:
        """All users who are trusted."""
        members = _members(self.group) if self.group is not None else frozenset()
        return frozenset({0, os.geteuid()}) | self.owners | members

    def __str__(self) -> str:
        names = [name_of_user(uid) for uid in sorted(self.owners)]
        group = [] if self.group is None else [f"the members of the group {name_of_group(self.group)}"]
        return ", ".join([*names, *group])

    def lets_write(self, gid: int, owner: int) -> bool:
        """Return whether everybody in the group `gid` of something that `owner`, who is trusted, owns is trusted."""
        return gid in {0, self.group} or (_is_own(gid, owner) and _members(gid) <= self.users)


NOBODY_ELSE = Trust()


def user(text: str) -> int:
    """Return the uid of a user who is given by name or number.

    Raises:
        UsageProblem: There is none.
    """
    try:
        return int(text) if text.isdecimal() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise UsageProblem(f"there is no user {text}", where="owners", hint="write a user's name or number") from None


def group(text: str) -> int:
    """Return the gid of a group that is given by name or number.

    Raises:
        UsageProblem: There is none.
    """
    try:
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise UsageProblem(f"there is no group {text}", where="group", hint="write a group's name or number") from None


def name_of_user(uid: int) -> str:
    """Return the name of the user `uid`, or its number when it has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def name_of_group(gid: int) -> str:
    """Return the name of the group `gid`, or its number when it has none here."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def _is_own(gid: int, owner: int) -> bool:
    """Return whether `gid` is the group that has the name of the user `owner`, or the number where it has no name."""
    try:
        name = grp.getgrgid(gid).gr_name
    except KeyError:
        return gid == owner
    return name == name_of_user(owner)


@functools.cache
def _members(gid: int) -> frozenset[int]:
    """Return the users of the group `gid` that this machine knows."""
    primary = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid}
    try:
        names = grp.getgrgid(gid).gr_mem
    except KeyError:
        return frozenset(primary)
    known = set()
    for name in names:
        try:
            known.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            known.add(-1)  # somebody, whoever that is
    return frozenset(known | primary)


def trusted_path(path: Path, trust: Trust = NOBODY_ELSE) -> None:
    """Check that nobody but this user, root and those of `trust` can change what `path` leads to.

    Every component counts, and every component of each symlink's destination: all belong to one of them, and none can
    be written to by anybody else, but for directories with the sticky bit, where nobody can rename what is another's.

    Raises:
        NotReady: One is not; the message names it.
    """
    for component, status in _components(path.absolute()):
        if status.st_uid not in trust.users:
            raise _distrust(path, f"{component} belongs to {_user(status.st_uid)}", component)
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if stat.S_ISLNK(status.st_mode) or sticky:
            continue
        if status.st_mode & stat.S_IWOTH:
            raise _distrust(path, f"{component} is writable for everybody", component)
        if status.st_mode & stat.S_IWGRP and not _may_group_write(component, status, trust):
            raise _distrust(path, f"{component} is writable for {_whom(component, status)}", component, status.st_gid)


def trusted_owner(path: Path, uid: int, trust: Trust = NOBODY_ELSE) -> None:
    """Check that the record `path`, which `uid` owns, was made by this user, root or one of `trust`.

    The record may be a symlink that carries text and leads nowhere; `trusted_path` is for its directory.

    Raises:
        NotReady: Somebody else made it.
    """
    if uid not in trust.users:
        raise _distrust(path, f"it belongs to {_user(uid)}", path)


def _may_group_write(component: Path, status: os.stat_result, trust: Trust) -> bool:
    if status.st_gid != trust.group and _has_access_list(component):
        return False  # then the group's bits are what the most powerful entry may do, whoever that is (acl(5))
    return trust.lets_write(status.st_gid, status.st_uid)


def _has_access_list(component: Path) -> bool:
    try:
        return bool(os.getxattr(component, _ACL, follow_symlinks=False))
    except OSError:
        return False


def _whom(component: Path, status: os.stat_result) -> str:
    if _has_access_list(component):
        return "those whom its access list names"
    return f"the group {name_of_group(status.st_gid)}"


def _user(uid: int) -> str:
    name = name_of_user(uid)
    return name if name == f"uid {uid}" else f"uid {uid} ({name})"


def _distrust(path: Path, reason: str, component: Path, gid: int | None = None) -> NotReady:
    who = f"uid {os.geteuid()} or root" if os.geteuid() else "root"
    trusting = "name the owner as trusted (--multihost-owners)"
    if gid is not None:
        trusting = f"trust everybody in that group with --multihost-group={name_of_group(gid).removeprefix('gid ')}"
    return NotReady(
        f"{path} will not be run: {reason}",
        where=str(component),
        expected=f"every component belongs to {who}, and nobody else can write to it",
        hint=f"change its owner or mode, choose a target elsewhere, or {trusting}",
    )


def _components(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each directory, symlink and file that the kernel passes on the way to `path`."""
    here, todo, links = Path("/"), list(path.parts[1:]), 0
    yield here, here.lstat()
    while todo:
        name = todo.pop(0)
        if name == "..":
            here = here.parent
            continue
        step = here / name
        status = files.settled(step.lstat, {errno.ESTALE})
        yield step, status
        if not stat.S_ISLNK(status.st_mode):
            here = step
            continue
        links += 1
        if links > _MAX_LINKS:
            raise NotReady(f"{path} leads through too many symlinks", where=str(step))
        destination = step.readlink()
        if destination.is_absolute():
            here = Path("/")
        todo[:0] = [part for part in destination.parts if part != "/"]
