"""The settings as one frozen value that knows where each came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """One variable that the configuration file sets, or unsets when `value` is None."""

    name: str
    value: str | None = dataclasses.field(repr=False)
    origin: str


@dataclasses.dataclass(frozen=True, slots=True)
class EnvironmentTable:
    """`[environment]` of the configuration file, less `pass` and `block`, which are settings.

    Attributes:
        everywhere: `set` and `unset` for all ranks.
        hosts: The same for the ranks on one host, by the name in the file.
        ranks: The same for one rank.
    """

    everywhere: tuple[Assignment, ...] = ()
    hosts: Mapping[str, tuple[Assignment, ...]] = dataclasses.field(default_factory=dict)
    ranks: Mapping[int, tuple[Assignment, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One entry of a list whose layers add up, and the layer that it stands in."""

    value: str = dataclasses.field(repr=False)
    origin: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was asked for.  The attributes are described in `config.table`; paths are absolute.

    Attributes:
        rootdir: What relative paths of the file, ini and variables are relative to.
        environment: The file-only tables of variables.
        items: For the lists that add up (`env`, `pass`, `block`, `secrets`, `secret-files`, `test-secrets`, `rank-scoped`, `local-caches`): every entry with its origin, weakest first.
        origins: For each setting by name, the layer that won.
    """

    rootdir: Path
    venv: Path | None
    target: Path
    allow_outside: tuple[str, ...]
    python: str | None
    requirements: tuple[Path, ...]
    setup: tuple[tuple[str, ...], ...]
    verify: str
    group: str | None
    umask: str | None
    owners: tuple[str, ...]
    hosts: str | None
    hostfile: Path | None
    launcher: str
    launcher_args: tuple[str, ...]
    ranks: int | None
    timeout: float
    host_timeout: float
    rank_binding: tuple[Path, ...]
    dotenv: Path | None
    secrets: tuple[str, ...]
    secret_files: tuple[str, ...]
    test_secrets: tuple[str, ...]
    env: tuple[str, ...] = dataclasses.field(repr=False)
    pass_: tuple[str, ...]
    block: tuple[str, ...]
    rank_scoped: tuple[str, ...]
    local_caches: tuple[str, ...]
    lib_first: bool
    check: str | None
    strict: bool
    no_reexec: bool
    dry_run: bool
    profiles: tuple[str, ...]
    environment: EnvironmentTable
    items: Mapping[str, tuple[Item, ...]]
    origins: Mapping[str, str]

    @property
    def declared(self) -> tuple[str, ...]:
        """The names of all secrets that settings declare."""
        return (*self.secrets, *self.secret_files, *self.test_secrets)

    def origin(self, name: str) -> str:
        """Return the layer that gave setting `name` its value, as a person would write it.

        For example `option --multihost-venv`, `variable MULTIHOST_ENV_VENV`, `ini multihost_venv`, `pyproject.toml`
        or `default`; several, strongest first, for a list whose layers add up.

        Raises:
            KeyError: There is no such setting.
        """
        return self.origins[name]
