"""The rules that decide which variables a rank receives, gathered from profiles and settings."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Collection, Mapping

from pytest_multihost_env.config import Assignment, Item, Settings
from pytest_multihost_env.config.binding import Binding
from pytest_multihost_env.config.dotenv import Dotenv
from pytest_multihost_env.environ.profiles import BASE, PROFILES, Profile
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.names import valid_variable

EVERYTHING = "all:"
_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATTERN = re.compile(r"[A-Za-z0-9_*?\[\]!-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the automatic layer: a beginning of names to pass, or a pattern of names to block.

    Attributes:
        text: The beginning (`TT_`; empty for all) or the pattern (`TT_DEBUG_*`).
        origin: Where it stands.
        yours: It was asked for, and is not a profile's.
    """

    text: str
    origin: str
    yours: bool

    @property
    def literal(self) -> int:
        """How many letters it fixes: the more, the more exact it is."""
        return len(re.split(r"[*?\[]", self.text, maxsplit=1)[0])


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One variable that was asked for by name: with a value, or (`value` None) as it is in the launch shell."""

    name: str
    value: str | None = dataclasses.field(repr=False)
    origin: str


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """Everything that decides about variables, but for the launch shell and the marker.

    Attributes:
        passes: Beginnings that are passed automatically, profiles first.
        blocks: Patterns that are not.
        configured: Changes for all ranks by the file, weakest of the configured ones.
        wanted: Variables of the setting `env`, weakest first.
        hosts: Changes for one host.
        ranks: Changes for one rank.
        binding: What the rank-binding files say.
        defaults: Name, template and profile of the variables that profiles set with a rank binding.
        scoped: Variables whose paths are made each rank's own.
        caches: Variables whose directories are made on each host's own storage.
        dotenv: What the `.env` file says.
        secrets: Names of secrets, and who declared each.
        given: Names of those that the ranks receive.
        in_files: Names of those that they receive as files.
        lib_first: The environment's `lib` stands first in LD_LIBRARY_PATH.
        host_suffixes: Endings that name an interface of a host, not a host (`names.plain_host`).
    """

    passes: tuple[Rule, ...]
    blocks: tuple[Rule, ...]
    configured: tuple[Assignment, ...] = ()
    wanted: tuple[Wanted, ...] = ()
    hosts: Mapping[str, tuple[Assignment, ...]] = dataclasses.field(default_factory=dict)
    ranks: Mapping[int, tuple[Assignment, ...]] = dataclasses.field(default_factory=dict)
    binding: Binding = dataclasses.field(default_factory=Binding)
    defaults: tuple[tuple[str, str, str], ...] = ()
    scoped: tuple[Item, ...] = ()
    lib_first: bool = False
    caches: tuple[Item, ...] = ()
    dotenv: Dotenv = dataclasses.field(default_factory=Dotenv)
    secrets: tuple[Item, ...] = ()
    host_suffixes: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()
    in_files: frozenset[str] = frozenset()

    @classmethod
    def from_settings(cls, settings: Settings, binding: Binding | None = None, dotenv: Dotenv | None = None) -> Rules:
        """Return the rules that `settings`, its profiles, its rank bindings and its `.env` file make.

        Raises:
            UsageProblem: A prefix, a pattern, a profile or the name of a variable is none.
        """
        profiles = (BASE, *(_profile(name, settings) for name in settings.profiles))
        origins = {profile.name: f"profile {profile.name}" for profile in profiles} | {BASE.name: BASE.name}
        listed = [item for key in ("secrets", "secret-files", "test-secrets") for item in settings.items[key]]
        secrets = (*map(_named, listed), *(dotenv.secrets if dotenv else ()))
        return cls(
            passes=(
                *(Rule(text, origins[one.name], yours=False) for one in profiles for text in one.passes),
                *(Rule(_prefix(item.value, item.origin), item.origin, yours=True) for item in settings.items["pass"]),
            ),
            blocks=(
                *(Rule(text, origins[one.name], yours=False) for one in profiles for text in one.blocks),
                *(Rule(_pattern(item.value, item.origin), item.origin, yours=True) for item in settings.items["block"]),
            ),
            configured=settings.environment.everywhere,
            wanted=tuple(_wanted(item.value, item.origin) for item in settings.items["env"]),
            hosts=settings.environment.hosts,
            ranks=settings.environment.ranks,
            binding=binding or Binding(),
            defaults=tuple((*default, origins[one.name]) for one in profiles for default in one.defaults)
            if binding and binding.size
            else (),
            scoped=tuple(_named(item) for item in settings.items["rank-scoped"]),
            lib_first=settings.lib_first,
            caches=tuple(_cache(item, settings) for item in settings.items["local-caches"]),
            dotenv=dotenv or Dotenv(),
            secrets=secrets,
            given=frozenset(item.value for item in secrets) - set(settings.test_secrets),
            in_files=frozenset(settings.secret_files),
        )

    def giving(self, names: Collection[str]) -> Rules:
        """Return the same rules for ranks that receive exactly these secrets."""
        return dataclasses.replace(self, given=frozenset(names))

    def passing(self, name: str) -> Rule | None:
        """Return the rule that would pass `name`: yours before a profile's, then the more exact one."""
        return max(
            (rule for rule in self.passes if name.startswith(rule.text)),
            key=lambda rule: (rule.yours, rule.literal),
            default=None,
        )

    def blocking(self, name: str, passing: Rule | None) -> Rule | None:
        """Return the rule that blocks `name` although `passing` matches; None when it may pass.

        A block of yours always holds.  A profile's gives way to a prefix of yours that is as exact as itself.
        """
        for rule in reversed(self.blocks):
            if _compiled(rule.text).match(name) and not (
                passing and passing.yours and not rule.yours and passing.literal >= rule.literal
            ):
                return rule
        return None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def _profile(name: str, settings: Settings) -> Profile:
    if name not in PROFILES:
        raise UsageProblem(
            f"there is no profile {name!r}",
            where=settings.origin("profiles"),
            expected=" or ".join(PROFILES),
            hint="write one of these",
        )
    return PROFILES[name]


def _prefix(text: str, origin: str) -> str:
    if text == EVERYTHING:
        return ""
    prefix = text.removesuffix("*")
    if not prefix:
        raise UsageProblem(
            f"the prefix {text!r} would pass every variable",
            where=origin,
            expected="the beginning of names, as in TT_",
            hint=f"write {EVERYTHING} if every variable is to be passed",
        )
    if not _PREFIX.fullmatch(prefix):
        raise UsageProblem(
            f"{text!r} is not the beginning of a variable name",
            where=origin,
            expected="letters, digits and _, with * only at the end",
            hint="correct the prefix",
        )
    return prefix


def _pattern(text: str, origin: str) -> str:
    if not _PATTERN.fullmatch(text):
        raise UsageProblem(
            f"{text!r} is not a name or pattern of variables" if text else "the name of a blocked variable is empty",
            where=origin,
            expected="a name, or a pattern as in TT_DEBUG_*",
            hint="correct it",
        )
    return text


def _named(item: Item) -> Item:
    if not valid_variable(item.value):
        raise UsageProblem(
            f"{item.value!r} is not a variable name",
            where=item.origin,
            expected="letters, digits and _, not beginning with a digit",
            hint="correct the name",
        )
    return item


def _cache(item: Item, settings: Settings) -> Item:
    for name, names in (("rank-scoped", settings.rank_scoped), ("secrets", settings.declared)):
        if item.value in names:
            raise UsageProblem(
                f"{item.value} stands in local-caches and in {name}",
                where=f"{item.origin} and {settings.origin(name)}",
                expected="one of the two: a directory on the host for all of its ranks, or what the other says",
                hint=f"take {item.value} out of one of them",
            )
    return _named(item)


def _wanted(text: str, origin: str) -> Wanted:
    name, equals, value = text.partition("=")
    if not valid_variable(name):
        # Only the name is shown: what follows may be a secret.
        raise UsageProblem(
            f"{name!r} is not a variable name",
            where=origin,
            expected="NAME or NAME=VALUE; a name has letters, digits and _, and does not begin with a digit",
            hint="correct the name",
        )
    return Wanted(name, value if equals else None, origin)
