"""The one table of settings: options, variables, ini twins, file keys, docs and checks are all made from it."""

from __future__ import annotations

import dataclasses
import keyword
from typing import Final, Literal

from pytest_multihost_env.model import STAT, TIERS

Kind = Literal["str", "path", "paths", "int", "seconds", "bool", "list", "args", "commands"]

ALL_PROFILES: Final = ("tenstorrent", "torch", "mpi", "ci")


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """Everything that is to be known about one setting.

    Attributes:
        name: Its name, as in the file and after `--multihost-`.
        kind: What its value is; `args` is a command line, split as a shell splits it; `paths` is one path or several;
            `commands` are lists of a program and its arguments.
        help: One sentence for `--help` and the docs.
        default: The value when no layer gives one.
        metavar: Placeholder in `--help`; None for a flag.
        choices: The only values that are accepted; () for any.
        everywhere: It is also an option and a variable, not only a file key and an ini twin.
        only_file: It is a file key and nothing else.
        adds: A list whose layers add up, weakest first, instead of the strongest replacing the others.
        lines: Text is one list item a line; otherwise commas and blanks divide too.
        file_key: Where it stands in the configuration file, when not under its own name.
    """

    name: str
    kind: Kind
    help: str
    default: object = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    everywhere: bool = True
    only_file: bool = False
    adds: bool = False
    lines: bool = False
    file_key: str = ""

    @property
    def attribute(self) -> str:
        """Name of the attribute of `Settings`."""
        plain = self.name.replace("-", "_")
        return f"{plain}_" if keyword.iskeyword(plain) else plain

    @property
    def repeatable(self) -> bool:
        """Whether the option may be given several times."""
        return self.adds or self.kind == "paths"

    @property
    def option(self) -> str:
        """The pytest option."""
        return f"--multihost-{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "MULTIHOST_ENV_" + self.name.replace("-", "_").upper()

    @property
    def ini(self) -> str:
        """The pytest ini twin, also the option's `dest`."""
        return "multihost_" + self.name.replace("-", "_")


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "venv",
        "path",
        "what every host shall run: a virtual environment or a packed one, requirements, a lock, an environment.yml",
        metavar="SOURCE",
    ),
    Setting(
        "target",
        "path",
        "where the environment is published, on storage that all hosts share; relative to rootdir",
        default="python_env",
        metavar="DIR",
    ),
    Setting(
        "python",
        "str",
        "the Python for an environment made from requirements or a lock: a path, a program or a version; default: "
        "the one that runs this",
        metavar="PYTHON",
    ),
    Setting(
        "requirements",
        "paths",
        "requirements files that are installed on top, exactly as they stand (--no-deps; repeatable)",
        default=(),
        metavar="FILE",
    ),
    Setting(
        "setup",
        "commands",
        "commands that are run in the new environment, in rootdir, before it is proven",
        default=(),
        everywhere=False,
        only_file=True,
    ),
    Setting(
        "verify",
        "str",
        "how closely source and environment are looked at before the environment is used again: metadata (package "
        "records), directories (their times), stat (size and time of every file), content (every byte)",
        default=STAT,
        metavar="TIER",
        choices=TIERS,
    ),
    Setting(
        "allow-outside",
        "list",
        "distributions that may be imported from outside of the environment that all hosts see, as an editable install (repeatable)",
        default=(),
        metavar="NAME",
        adds=True,
    ),
    Setting(
        "group",
        "str",
        "share what is made with this group, whose members are trusted: they may build, pin and clear up too",
        metavar="GROUP",
    ),
    Setting(
        "umask",
        "str",
        "what nobody may do with what is made, in octal; default: 022, or 002 with a group",
        metavar="MODE",
    ),
    Setting(
        "owners",
        "list",
        "also run environments that belong to these users, by name or number (repeatable)",
        default=(),
        metavar="USER",
        adds=True,
    ),
    Setting(
        "hosts",
        "str",
        "hosts and slots, as in node[01-04]:8,gpu1:4; default: the job's, else this machine",
        metavar="SET",
    ),
    Setting("hostfile", "path", "file of hosts in the grammar of Open MPI or MPICH, or plain", metavar="FILE"),
    Setting("launcher", "str", "what starts the ranks, or auto", default="auto", metavar="NAME"),
    Setting("launcher-args", "args", "appended to the launcher's command", default=(), metavar="STR"),
    Setting("ranks", "int", "also run every test that has no marker on N ranks", metavar="N"),
    Setting("timeout", "seconds", "limit for one test on its ranks, in seconds", default=300.0, metavar="S"),
    Setting(
        "host-timeout",
        "seconds",
        "a host of which nothing is heard for so long is lost, in seconds",
        default=20.0,
        metavar="S",
    ),
    Setting(
        "rank-binding",
        "paths",
        "variables for each rank: the YAML that tt-run reads; several files are merged (repeatable)",
        default=(),
        metavar="FILE",
    ),
    Setting("dotenv", "path", "file of variables and secrets, NAME=VALUE on each line", metavar="FILE"),
    Setting(
        "secrets",
        "list",
        "the value of this variable is a secret: ranks receive it and nobody sees it (repeatable)",
        default=(),
        metavar="NAME",
        adds=True,
    ),
    Setting(
        "secret-files",
        "list",
        "the same, but ranks receive the path of a file that holds it, in NAME_FILE (repeatable)",
        default=(),
        metavar="NAME",
        adds=True,
    ),
    Setting(
        "test-secrets",
        "list",
        "a secret that only tests receive whose marker names it in secrets=[...] (repeatable)",
        default=(),
        metavar="NAME",
        adds=True,
    ),
    Setting(
        "env",
        "list",
        "give the ranks one variable: NAME=VALUE, or NAME as it is in this shell (repeatable)",
        default=(),
        metavar="NAME[=VALUE]",
        adds=True,
        lines=True,
        file_key="environment.set",
    ),
    Setting(
        "pass",
        "list",
        "also pass the variables whose names begin so; all: passes every one (repeatable)",
        default=(),
        metavar="PREFIX_",
        adds=True,
        file_key="environment.pass",
    ),
    Setting(
        "block",
        "list",
        "do not pass this variable automatically; a name or a pattern with * (repeatable)",
        default=(),
        metavar="NAME",
        adds=True,
        file_key="environment.block",
    ),
    Setting(
        "rank-scoped",
        "list",
        "make the path in this variable each rank's own: PATH/<host>_rank_<N> (repeatable)",
        default=(),
        metavar="NAME",
        adds=True,
        file_key="environment.rank-scoped",
    ),
    Setting(
        "local-caches",
        "list",
        "put a directory on each host's own storage into this variable, as for HF_HOME (repeatable)",
        default=(),
        metavar="NAME",
        adds=True,
        file_key="environment.local-caches",
    ),
    Setting(
        "lib-first",
        "bool",
        "put the environment's lib directory first in the ranks' LD_LIBRARY_PATH",
        default=False,
        file_key="environment.lib-first",
    ),
    Setting(
        "check",
        "str",
        "what is checked on all hosts before the first test; default: smoke with more than one host",
        metavar="WHAT",
        choices=("off", "smoke", "drift", "strict"),
    ),
    Setting("strict", "bool", "too few hosts or slots for a test is a failure instead of a skip", default=False),
    Setting("no-reexec", "bool", "leave the controller in the Python that pytest was started with", default=False),
    Setting("dry-run", "bool", "print the plan and stop", default=False),
    Setting(
        "profiles",
        "list",
        "sets of environment rules to begin with",
        default=ALL_PROFILES,
        metavar="NAME",
        choices=ALL_PROFILES,
        everywhere=False,
    ),
)

BY_NAME: Final[dict[str, Setting]] = {setting.name: setting for setting in SETTINGS}
