"""Whether the ranks are where they were to be: an argument of the user's, or a launcher's own mind, may say otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_multihost_env.errors import Misplaced
from pytest_multihost_env.model import Placement
from pytest_multihost_env.names import is_address, short_host


def refuse(placement: Placement, found: Mapping[int, str]) -> None:
    """Refuse ranks that report another host than theirs, where that is certain.

    A machine may call itself otherwise than the job calls it, and several machines may call themselves alike.  What no
    naming explains: ranks of one host that are on two, and a rank on what is the name of another host of the job.  An
    address may be another host's too (which the doctor tells).

    Raises:
        Misplaced: Names rank, host and what was found.
    """
    names = {short_host(host): host for host in placement.hosts}
    first: dict[str, str] = {}
    for place in placement.places:
        here = found[place.rank]
        other = place.host if is_address(place.host) else names.get(short_host(here), place.host)
        if other == place.host and first.setdefault(place.host, here) == here:
            continue
        raise Misplaced(
            f"rank {place.rank} was to run on {place.host} and runs on {here}",
            where=f"rank {place.rank}@{place.host}",
            expected=", ".join(f"{count} on {host}" for host, count in placement.counts) + ", in this order",
            hint="take hosts, mappings and rank files out of --multihost-launcher-args: the tests say where ranks go",
        )
