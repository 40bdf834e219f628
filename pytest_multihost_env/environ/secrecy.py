"""Secrets: declared by name, wanted before anything starts, hidden wherever they are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from pytest_multihost_env.config import Item
from pytest_multihost_env.environ.rules import Rules
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Secret, Variable
from pytest_multihost_env.redact import LONGEST, PIECE


def hidden(item: Item, found: Variable | None) -> Variable:
    """Return the decision about a declared secret with its value wrapped.

    Raises:
        UsageProblem: It has no value, or one that is too short to be hidden.
    """
    absent = found is not None and found.status == "UNSET" and found.rule.startswith(("unset", "env of the test"))
    if found is not None and absent:
        return found
    if found is None or not found.value:
        raise UsageProblem(
            f"the secret {item.value} has no value",
            where=item.origin,
            expected=f"{item.value} in the .env file or in the shell",
            hint=f"set it, or take {item.value} out of secrets",
        )
    if not PIECE <= len(found.value) <= LONGEST:
        many = f"fewer than {PIECE}" if len(found.value) < PIECE else f"more than {LONGEST}"
        raise UsageProblem(
            f"the secret {item.value} has {many} characters, and so cannot be kept out of what is shown",
            where=found.origin,
            expected=f"{PIECE} to {LONGEST} characters",
            hint=f"use another one, or take {item.value} out of secrets",
        )
    return dataclasses.replace(found, value=Secret(found.value))


def withheld(item: Item) -> Variable:
    """Return the decision about a secret that these ranks do not receive, whoever else has set it there."""
    return Variable(item.value, None, "UNSET", "a secret that is not for these ranks", item.origin)


def in_file(value: Secret) -> Secret:
    """Return what stands in the file of a secret: it, and for a key its last line's end, which OpenSSH insists on."""
    cut_off = value.startswith("-----BEGIN ") and not value.endswith("\n")
    return Secret(value[:] + "\n") if cut_off else value


def values(rules: Rules, launch: Mapping[str, str]) -> Iterator[Secret]:
    """Yield every value that a declared secret has anywhere: in the shell, in a file, for one rank only."""
    names = {item.value for item in rules.secrets}
    binding = rules.binding
    groups = (rules.dotenv.entries, rules.configured, binding.everywhere, *rules.hosts.values())
    for group in (*groups, *rules.ranks.values(), *binding.ranks.values()):
        yield from (Secret(one.value) for one in group if one.name in names and one.value)
    yield from (Secret(one.value) for one in rules.wanted if one.name in names and one.value)
    yield from (Secret(launch[name]) for name in names if launch.get(name))
    # What is held back may still be printed by something that reads the file itself.
    yield from (Secret(one.value) for one in rules.dotenv.kept if one.value and len(one.value) <= LONGEST)
