"""Hosts that the user names: `node[01-04]:8,gpu1:4`."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.machine import is_local, local_slots
from pytest_multihost_env.hosts.merge import Entry, merge, repeated
from pytest_multihost_env.hosts.nodeset import expand, split_items
from pytest_multihost_env.model import Allocation


class OptionSource:
    """The setting `hosts`.  A host without slots has one; this machine alone has its own default.

    Args:
        text: The set of hosts.
        origin: Where the setting stands.
    """

    name = "hosts setting"

    def __init__(self, text: str, origin: str = "option --multihost-hosts") -> None:
        self._text = text
        self._origin = origin

    def find(self, environ: Mapping[str, str]) -> Allocation:  # noqa: ARG002 - part of the protocol
        """Return the hosts that the text names.

        Raises:
            UsageProblem: An item is empty, no node set, has wrong slots, or names a machine again.
        """
        text = self._text.strip()
        if any(character.isspace() for character in text):
            raise _wrong(f"{text!r} contains a blank", self._origin)
        items = [_item(item, self._origin) for item in split_items(text, self._origin)]
        entries = [Entry(name, slots or 1, self._origin) for names, slots in items for name in names]
        if twice := repeated(entries):
            raise _wrong(f"{twice[1].name} names the same machine as {twice[0].name}", self._origin)
        if len(entries) == 1 and items[0][1] is None and is_local(entries[0].name):
            entries = [Entry(entries[0].name, local_slots(), self._origin)]
        return merge(entries, self._origin)


def _item(item: str, origin: str) -> tuple[list[str], int | None]:
    names, colon, slots = item.partition(":")
    if not colon:
        return expand(item, origin), None
    if not (slots.isascii() and slots.isdigit() and int(slots[:10]) >= 1 and len(slots) < 7):
        raise _wrong(f"the slots of {item!r} are not a positive number", origin)
    return expand(names, origin), int(slots)


def _wrong(what: str, origin: str) -> UsageProblem:
    return UsageProblem(
        what, where=origin, expected="hosts and slots, as in node[01-04]:8,gpu1:4", hint="correct the list of hosts"
    )
