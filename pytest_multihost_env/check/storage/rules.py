"""What each outcome of a trial means: one row for each question that a host answers by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pytest_multihost_env.check.doctor.finding import ERROR, OK, WARNING


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """How a trial's outcome is judged.

    Attributes:
        trial: Its name (`trials.TRIALS`), and the finding's.
        question: What it asks, for people.
        good: The outcome that is wanted; "": any.
        otherwise: The verdict on any other.
        sentence: What another outcome means; `{hosts}` have it.
        remedy: What to do about it.
    """

    trial: str
    question: str
    good: str = ""
    otherwise: str = OK
    sentence: str = ""
    remedy: str = ""

    def judged(self, outcomes: Mapping[str, str]) -> tuple[str, str]:
        """Return the verdict on this trial's outcome, and the outcome."""
        outcome = outcomes[self.trial]
        return OK if not self.good or outcome == self.good else self.otherwise, outcome


ELSEWHERE = "choose a directory on another file system"

RULES = (
    Rule(
        "exclusive",
        "O_EXCL refuses a taken name",
        "refuses",
        ERROR,
        "on {hosts} two processes can both create the same file and believe that it is theirs",
        ELSEWHERE,
    ),
    Rule(
        "replace",
        "a rename replaces a file in one step",
        "yes",
        ERROR,
        "on {hosts} no file can be renamed over another, so an environment could not be swapped for a newer one",
        ELSEWHERE,
    ),
    Rule(
        "rename_over",
        "a rename spares a full directory",
        "refuses",
        WARNING,
        "on {hosts} a rename loses the content of the directory that was there: nothing of ours renames directories, "
        "but other installers do",
        "do not let two programs install to one place there at the same time",
    ),
    Rule(
        "execute",
        "programs run from here",
        "yes",
        ERROR,
        "on {hosts} nothing can be executed from this directory, so neither can an environment's Python",
        "mount it without `noexec` there, or choose another directory",
    ),
    Rule(
        "modes",
        "modes of files are kept",
        "yes",
        WARNING,
        "on {hosts} the mode of a file is not kept, so what is published cannot be protected from writes",
        "mount it with UNIX permissions there (for SMB: `mfsymlinks` and POSIX extensions)",
    ),
)

EXTRAS = (
    Rule("exchange", "two names can be exchanged"),
    Rule("reflink", "copies share blocks (reflink)"),
    Rule("copy_range", "copy_file_range copies"),
)
"""Nothing of ours needs these; they explain why something is fast, slow or refused elsewhere."""

_FCNTL = ("a lock of fcntl(2)", "SQLite, HDF5 and MPI-IO lock their files with it")
LOCKS: dict[str, tuple[str, str, str]] = {
    "flock": ("flock between hosts", "flock(2)", "uv, pip, conda and Hugging Face lock their caches with it"),
    "posix": ("POSIX locks (fcntl) between hosts", *_FCNTL),
    "ofd": ("OFD locks (fcntl) between hosts", *_FCNTL),
}
"""Question, what it is about, and who relies on it.  Nothing of ours does."""

SIGHTS: dict[str, tuple[str, str, str]] = {
    "listing": (
        "a new name is listed elsewhere",
        "a new name is listed late on {hosts}: whoever waits there for an environment waits that much longer",
        "shorten the time for which clients cache directories (NFS: `acdirmax`), or look with a longer --patience",
    ),
    "fresh": (
        "a new name is found elsewhere",
        "a new name is found late on {hosts}, even when nobody asked for it before; nothing of ours asks by name",
        "have programs that wait for a file list its directory",
    ),
    "asked": (
        "... if it was asked for too early",
        "a name that was asked for too early stays missing on {hosts} for a while; scripts that wait for a file ask too early",
        "list the directory instead (`ls`), or mount with a shorter negative cache (NFS: `lookupcache=positive`)",
    ),
    "content": (
        "changed content is read elsewhere",
        "the old content of a file that another host has changed in place is still read on {hosts}",
        "replace files by rename instead of changing them; nothing of ours changes what is published",
    ),
    "mtime": (
        "a changed time is seen elsewhere",
        "a file's old time is still seen on {hosts}: programs that compare times (make, reloaders) come late there",
        "shorten the time for which clients cache attributes (NFS: `acregmax`) where that matters",
    ),
}
"""Question, what being late means, and the remedy, by the way of looking; the last three concern other programs."""

PROBLEMS = {
    "ENOENT": "create it there, or mount there what the other hosts have",
    "ENOTDIR": "there is a file of that name; make it a directory, as on the other hosts",
    "EROFS": "mount it for reading and writing there",
    "EACCES": "give this user the right to write there, or choose another directory",
    "EPERM": "give this user the right to write there, or choose another directory",
    "ENOSPC": "free some space, or some inodes (`df -i`)",
    "EDQUOT": "free some of this user's quota, or have it raised",
    "ESTALE": "mount it again there: the server does not know this client's handle any more",
    "ENOTCONN": "mount it again there: the program behind this FUSE mount has ended",
    "EIO": "see the kernel's log there (`dmesg`): the file system does not read or write",
}
