"""The hosts that a session can still use: one that is lost is left out of what comes after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from pytest_multihost_env.errors import LaunchFailed, PlacementImpossible
from pytest_multihost_env.gang.reconcile import ABANDONED
from pytest_multihost_env.model import Allocation, Placement, RankRecord, Shape
from pytest_multihost_env.placement import place


class Roster:
    """The hosts of the job, less those that were lost.

    Args:
        allocation: All of them.
        unfit: Asks hosts to start something; returns why, for those that cannot.

    Attributes:
        lost: Why a host is not used any more, by its name.
    """

    def __init__(self, allocation: Allocation, unfit: Callable[[Iterable[str]], Mapping[str, str]]) -> None:
        self.lost: dict[str, str] = {}
        self._all = allocation
        self._unfit = unfit
        self._served: set[str] = set()
        self._suspects: set[str] = set()

    def place(self, shape: Shape) -> Placement:
        """Place `shape` on the hosts that are left.

        Raises:
            PlacementImpossible: The job's hosts never could hold it.
            LaunchFailed: They could, but for the hosts that were lost: no reason to skip a test.
        """
        whole = place(shape, self._all)
        if not self.lost:
            return whole
        left = tuple(host for host in self._all.hosts if host.name not in self.lost)
        try:
            return place(shape, dataclasses.replace(self._all, hosts=left))
        except PlacementImpossible as error:
            raise LaunchFailed(
                f"{error.what}; lost during this session: {', '.join(self.lost)}",
                where=", ".join(self.lost),
                expected="hosts that hold the test, as there were when the session began",
                hint="bring the hosts back, or leave them out with --multihost-hosts",
                details=self.lost,
            ) from None

    def served(self, placement: Placement) -> None:
        """Note hosts on which ranks have started: if they cannot any more, they are lost."""
        self._served.update(placement.hosts)

    def heard(self, records: Iterable[RankRecord]) -> None:
        """Note hosts whose ranks vanished; where the launcher took all of them along, it may be any of them."""
        vanished = [record for record in records if record.lost]
        self._suspects |= {r.host for r in vanished if r.lost != ABANDONED} or {r.host for r in vanished}

    def settle(self) -> dict[str, str]:
        """Ask the hosts that are suspected, if any, and return those that are lost since."""
        suspects, self._suspects = self._suspects - set(self.lost), set()
        return self.take_out(self._unfit(suspects)) if suspects and len(self._all.hosts) > 1 else {}

    def take_out(self, unfit: Mapping[str, str]) -> dict[str, str]:
        """Take out hosts that were fit before and return them; a host that never was is an error of its own."""
        new = {host: why for host, why in unfit.items() if host in self._served and host not in self.lost}
        self.lost |= new
        return new
