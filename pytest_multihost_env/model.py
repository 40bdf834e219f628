"""The values that the stages hand to each other: frozen, small, and without behaviour that touches the world."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """One machine of the job and the number of ranks that it may run at the same time.

    Attributes:
        name: As its source writes it.
        slots: How many ranks.
        where: Where its source names it: a file and its lines (`hosts.txt:3`), a variable, an option.
    """

    name: str
    slots: int
    where: str = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Allocation:
    """The hosts of this job, in the order of their source, and which source named them."""

    hosts: tuple[Host, ...]
    source: str

    @property
    def slots(self) -> int:
        """All slots of all hosts."""
        return sum(host.slots for host in self.hosts)

    @property
    def names(self) -> tuple[str, ...]:
        """Host names, in order."""
        return tuple(host.name for host in self.hosts)


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a test asks for.  Tests of equal shape share a warm gang.

    Attributes:
        ranks: Size of the communicator.
        hosts: Exactly this many hosts, or None: as few as hold the ranks.
        per_host: Exactly this many ranks on each host, or None.
        env: Variables that the marker sets on the ranks, or (None) has absent; sorted by name.
        secrets: Names of the secrets that the ranks receive; None: those that every test receives.
    """

    ranks: int
    hosts: int | None = None
    per_host: int | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    secrets: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where one rank runs.  `local_rank` counts the ranks of the same gang on that host from 0."""

    rank: int
    host: str
    local_rank: int


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """One place for each rank, in rank order; ranks of one host are neighbours."""

    places: tuple[Place, ...]

    @property
    def size(self) -> int:
        """Number of ranks (the world size)."""
        return len(self.places)

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """`(host, number of ranks)` in rank order."""
        counts: dict[str, int] = {}
        for place in self.places:
            counts[place.host] = counts.get(place.host, 0) + 1
        return tuple(counts.items())

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts that hold a rank, in rank order."""
        return tuple(host for host, _ in self.counts)


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """A process to start.

    Attributes:
        argv: Its arguments.
        env: What it adds to the environment; what the user has set under the same name wins.
        stdin: What it reads there, or None.
        scripts: Shell scripts that it needs while it runs, at a path without blanks: that path takes the place of
            `{name}` in the values of `env`.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    stdin: str | None = dataclasses.field(default=None, repr=False)
    scripts: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """What must be known of a launcher before it is called.

    Attributes:
        programs: Names of its executable, best first; empty: it needs none.
        version_flag: Makes the executable print its name and version.
        mpi: The ranks that it starts form an MPI world.
        remote: It can start ranks on other machines.
    """

    programs: tuple[str, ...] = ()
    version_flag: str = "--version"
    mpi: bool = False
    remote: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What a launcher turns into commands: these ranks, on these hosts, each running `program`.

    Attributes:
        placement: One place for each rank.
        program: Arguments of the process that every rank runs; the first is an absolute path.
        executable: The launcher's own program (`/x/bin/mpirun`), or "" when it has none.
        version: The launcher's version as `(5, 0)`; `()` when unknown.
        forward: Names of variables, set in the launcher's environment, that each rank must receive.
        secret: Handed to each rank out of sight: never in an argument.
        secret_name: The variable that carries `secret` where the launcher forwards variables.
        extra_args: The user's own launcher arguments; they win over ours.
        answers: What came of the questions that this launcher asks (`protocols.OfScheduler`).
        silence: Seconds after which a host of which nothing is heard is lost.
        local_only: Every rank runs on this machine.
        as_root: The user is root, which Open MPI refuses unless told.
    """

    placement: Placement
    program: tuple[str, ...]
    executable: str
    version: tuple[int, ...]
    forward: tuple[str, ...]
    secret: str = dataclasses.field(repr=False)
    secret_name: str
    extra_args: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    silence: int = 20
    local_only: bool = True
    as_root: bool = False


class Secret(str):
    """Text that shows itself as `***` wherever it is printed, formatted or represented; joined and encoded it is itself."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Return `text` wrapped, also when it is one already: `str()` of that would be `***`."""
        return super().__new__(cls, text[:])

    def __repr__(self) -> str:
        return repr("***")

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """One decision about one environment variable of one rank.

    Attributes:
        name: The variable.
        value: What the rank receives, a `Secret` where it was declared one; None when it does not receive it.
        status: `SET`, `PASSED`, `BLOCKED` or `UNSET`.
        rule: The rule that decided, as a person would write it (`prefix TT_`).
        origin: Where that rule stands (`profile tenstorrent`, `pyproject.toml`, `marker`).
    """

    name: str
    value: str | None = dataclasses.field(repr=False)
    status: str
    rule: str
    origin: str


@dataclasses.dataclass(frozen=True, slots=True)
class RankEnv:
    """The environment of one rank with the reason for each variable.

    Attributes:
        variables: The decisions, sorted by name.
        files: Secrets that the rank finds in files, by the variable that will have the path.
        caches: Who asked for a directory on the rank's own host, by the variable that will have the path.
    """

    variables: tuple[Variable, ...]
    files: Mapping[str, Secret] = dataclasses.field(default_factory=dict, repr=False)
    caches: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def values(self) -> dict[str, str]:
        """Name to value, of what the rank receives."""
        return {v.name: v.value for v in self.variables if v.value is not None}

    @property
    def changes(self) -> dict[str, str | None]:
        """The same, and None for what it is not to have, whoever started it."""
        return {v.name: v.value for v in self.variables if v.value is not None or v.status == "UNSET"}

    @property
    def order(self) -> dict[str, object]:
        """What the rank's supervisor is told of it."""
        changes = self.changes
        private = bool(self.files) or any(isinstance(value, Secret) for value in changes.values())
        return {"env": changes, "files": dict(self.files), "private": private, "caches": list(self.caches)}


METADATA, DIRECTORIES, STAT, CONTENT = "metadata", "directories", "stat", "content"
TIERS = (METADATA, DIRECTORIES, STAT, CONTENT)
"""How closely a source and an environment are looked at before the environment is used again, weakest first."""


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """How a published environment was looked at before it was used again.

    Attributes:
        tier: One of `TIERS`.
        entries: How many files, directories and symlinks in it were looked at.
        seconds: How long it took, the look at its source included.
    """

    tier: str
    entries: int
    seconds: float

    def __str__(self) -> str:
        how = {METADATA: "package records", DIRECTORIES: "directory times", STAT: "stat walk", CONTENT: "content"}
        return f"{how[self.tier]}, {self.entries:,} entries in {self.seconds:.2f} s"


OUTSIDE = "outside"
"""The fact of a generation that names, as a JSON list, the paths outside of it that it imports from."""


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """A published environment: immutable, proven, known by its manifest's digest.

    Attributes:
        path: Its directory; absolute and final.
        key: Fingerprint of source, interpreter, platform, options and tool version.
        digest: sha256 of its manifest.
        reused: It was there already; nothing was copied.
        built_by: `host:pid` of the builder.
        added: Distributions that SOURCE lacked and that were added (`pytest 9.0`).
        seconds: How long making or proving it took.
        facts: What a host must have to run it, by name (`glibc`).
        checked: How it was looked at before it was used again; None when it was just made.
    """

    path: Path
    key: str
    digest: str
    reused: bool
    built_by: str
    added: tuple[str, ...]
    seconds: float
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    checked: Checked | None = None

    @property
    def python(self) -> Path:
        """The interpreter that ranks and pytest run."""
        return self.path / "bin" / "python"

    @property
    def outside(self) -> tuple[str, ...]:
        """Paths outside of it that it imports from, as was allowed."""
        return tuple(json.loads(self.facts.get(OUTSIDE, "[]")))


@dataclasses.dataclass(frozen=True, slots=True)
class RankRecord:
    """Everything that one rank said about one test.

    Attributes:
        rank: Its rank in the gang.
        host: The host that it ran on.
        reports: Serialised pytest reports, in the order of arrival.
        done: The rank said that it finished the test, after all reports.
        exit: Exit code of the rank's process (negative: the signal that killed it); None while it runs.
        lost: Why the channel to the rank ended, or None.
        output: Tail of what the process wrote past pytest's capture.
    """

    rank: int
    host: str
    reports: tuple[Mapping[str, object], ...] = ()
    done: bool = False
    exit: int | None = None
    lost: str | None = None
    output: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """How a command on one host ended.  `error` says why it did not run at all; it is None when it ran."""

    host: str
    code: int | None
    stdout: str
    stderr: str
    error: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ReadFile:
    """A file whose content was read once: while inode, size and time are these, its digest is that one.

    Attributes:
        inode: Its number (stat(2), `st_ino`).
        size: In bytes.
        mtime_ns: Time of its last change, in nanoseconds.
        digest: Digest of its content, as the manifest writes it.
    """

    inode: int
    size: int
    mtime_ns: int
    digest: str
