"""Hosts that the user names: `node[01-04]:8,gpu1:4`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts.machine import is_local, local_slots
from pytest_multihost_env.hosts.merge import repeated
from pytest_multihost_env.hosts.nodeset import MOST_HOSTS, expand, split_items
from pytest_multihost_env.model import Allocation, Host


class OptionSource:
    """The setting `hosts`.  A host without slots has one; this machine alone has its own default.

    Args:
        text: The set of hosts.
        origin: Where the setting stands.
        suffixes: Endings that name an interface of a host, not a host (`names.plain_host`).
    """

    name = "hosts setting"

    def __init__(self, text: str, origin: str = "option --multihost-hosts", suffixes: Sequence[str] = ()) -> None:
        self._text = text
        self._origin = origin
        self._suffixes = suffixes

    def find(self, environ: Mapping[str, str]) -> Allocation:  # noqa: ARG002 - part of the protocol
        """Return the hosts that the text names.

        Raises:
            UsageProblem: An item is empty, no node set, has wrong slots, or names a machine again.
        """
        text = self._text.strip()
        if any(character.isspace() for character in text):
            raise self._wrong(f"{text[:80]!r} contains a blank")
        hosts: list[Host] = []
        for item in split_items(text, self._origin):
            hosts += self._hosts(item)
            if len(hosts) > MOST_HOSTS:
                raise self._wrong(f"there are more than {MOST_HOSTS} hosts")
        if twice := repeated(hosts, self._suffixes):
            raise self._wrong(f"{twice[1].name} names the same machine as {twice[0].name}")
        if len(hosts) == 1 and ":" not in text and is_local(hosts[0].name, self._suffixes):
            hosts = [Host(hosts[0].name, local_slots(), self._origin)]
        return Allocation(tuple(hosts), self._origin)

    def _hosts(self, item: str) -> list[Host]:
        names, colon, slots = item.partition(":")
        if ":" in slots:
            raise self._wrong(f"{item[:80]!r} is no host with slots", "an IPv6 host by its name")
        if colon and not (slots.isascii() and slots.isdigit() and int(slots[:10]) >= 1 and len(slots) < 7):
            raise self._wrong(f"the slots of {item[:80]!r} are not a positive number")
        return [Host(name, int(slots or 1), self._origin) for name in expand(names, self._origin)]

    def _wrong(self, what: str, also: str = "") -> UsageProblem:
        expected = "hosts and slots, as in node[01-04]:8,gpu1:4" + (f"; {also}" if also else "")
        return UsageProblem(what, where=self._origin, expected=expected, hint="correct the list of hosts")
