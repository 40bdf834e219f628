"""What a part must offer to be one of its kind.  Each has at most four members; each can be registered by others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from pytest_multihost_env.model import Allocation, Command, LaunchSpec, ReadFile, Traits


class HostSource(Protocol):
    """Names the hosts of the job from one place (a hostfile, a scheduler)."""

    name: str

    def find(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the hosts, or None when this source has nothing to say here.

        A machine may be in it several times, under several names: `hosts.find` adds its slots up.  Called on the
        controller only.

        Raises:
            MultihostError: The source should answer and cannot: that is never "one host".
        """
        ...


class Launcher(Protocol):
    """Turns "these ranks on these hosts" into commands.  Computes only; `launch.job` starts them."""

    name: str
    traits: Traits

    def refuses(self, executable: str, version_text: str) -> str | None:
        """Return a sentence why `executable`, which printed `version_text`, is not this launcher; None if it is."""
        ...

    def commands(self, spec: LaunchSpec) -> tuple[Command, ...]:
        """Return the commands that start every rank of `spec`."""
        ...


@runtime_checkable
class OfScheduler(Protocol):
    """A launcher that starts ranks in the job of a scheduler and nowhere else.

    `auto` tries it before the others.
    """

    def outside(self, environ: Mapping[str, str], hosts: Sequence[str]) -> str | None:
        """Return why this process is in no such job, or `hosts` are not its hosts; None when all is well."""
        ...

    def questions(self, executable: str, python: str) -> tuple[tuple[str, ...], ...]:
        """Return commands to run, with the variables of a rank; what they print becomes `LaunchSpec.answers`.

        `python` is the interpreter of the ranks.  What cannot be run has the answer "".
        """
        ...

    def mismatch(self, answers: Sequence[str]) -> str | None:
        """Return a sentence why, after these answers, no rank could be started well; None if it could."""
        ...


class Progress(Protocol):
    """Shows how far a long piece of work has come; called by the process that builds, one stage at a time."""

    def begin(self, stage: str, files: int | None = None, size: int | None = None) -> None:
        """Begin `stage` ("copying"); `files` and `size` (bytes) are what there is to do, None when nobody knows."""
        ...

    def advance(self, files: int, size: int) -> None:
        """Note that so many more files and bytes are done.  May be called often, from one thread at a time."""
        ...

    def end(self) -> None:
        """End the stage, also after a failure."""
        ...


class Silent:
    """Progress that nobody looks at."""

    def begin(self, stage: str, files: int | None = None, size: int | None = None) -> None:
        """Do nothing."""

    def advance(self, files: int, size: int) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What a build gets beside its source: whom to tell, and where to note what it has read.

    Attributes:
        notify: Receives a sentence that a person may want to know.
        progress: Shows how far it has come.
        read: For files of the destination whose content went through this process's hands: what was read, by the
            path relative to the destination.  The manifest need not read them again while they are unchanged.
        facts: What a host must know before it runs the result, by name; the manifest records them.
        notes: What a person should know about the result, in sentences; likewise.
        files: How many files the source has; None when that is not known before it is read.
        size: How many bytes the source has.
    """

    notify: Callable[[str], None] = lambda _text: None
    progress: Progress = dataclasses.field(default_factory=Silent)
    read: dict[str, ReadFile] = dataclasses.field(default_factory=dict)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    files: int | None = None
    size: int | None = None


@runtime_checkable
class TakesPython(Protocol):
    """A builder whose source does not bring a Python: it can be told which one to use."""

    def using(self, python: str) -> Builder:
        """Return a builder like this one that uses `python`: a path, a program on PATH, or a version."""
        ...


@runtime_checkable
class Glancing(Protocol):
    """A builder whose source can be looked at less closely, or more closely, than its `fingerprint` does.

    Of any other builder's source the fingerprint is taken whatever the tier.
    """

    def glance(self, source: Path, tier: str, read: Mapping[str, ReadFile], algorithm: str = "") -> str:
        """Return a digest of what a look of `tier` (`model.TIERS`) at `source` shows; `stat`: the fingerprint.

        `read` has digests of the source's files, by relative name, that `build` noted: they need not be read again.
        The others' digests are taken by `algorithm`; "": the best one.
        """
        ...


class Builder(Protocol):
    """Makes a tree out of one kind of SOURCE."""

    name: str

    def refuses(self, source: Path) -> str | None:
        """Return a sentence why this builder cannot make an environment from `source`; None if it can."""
        ...

    def fingerprint(self, source: Path) -> str:
        """Return a digest that changes when the outcome of `build` would."""
        ...

    def build(self, source: Path, destination: Path, work: Work) -> None:
        """Put a virtual environment into `destination`, which does not exist yet.

        Raises:
            NotReady: It could not be made; nothing outside `destination` was touched.
        """
        ...
