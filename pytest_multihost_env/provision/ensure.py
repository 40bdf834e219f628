"""Make the environment ready, once, whatever races or dies.

The way: look at source and target; use what stands; else contend, wait for the one who builds, or build.  The order of
a build is: tree, finishing steps, permissions, manifest, disk, and last the one record that makes it stand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from pytest_multihost_env.errors import NotReady
from pytest_multihost_env.model import Generation
from pytest_multihost_env.protocols import Builder, Progress, Silent
from pytest_multihost_env.provision import actor, failures, pins, publish, target
from pytest_multihost_env.provision import recipe as recipes
from pytest_multihost_env.provision.actor import Actor
from pytest_multihost_env.provision.adopt import Damaged
from pytest_multihost_env.provision.build import build
from pytest_multihost_env.provision.election import Chair
from pytest_multihost_env.provision.job import Job, Notify, ProvisionRequest
from pytest_multihost_env.provision.lease import Lease
from pytest_multihost_env.provision.publish import Doomed
from pytest_multihost_env.provision.recipe import Recipe
from pytest_multihost_env.provision.reuse import Reuse
from pytest_multihost_env.provision.trust import trusted_path
from pytest_multihost_env.provision.waiting import Waiting

_DOUBT = 5.0
"""Seconds for which the lease's directory may refuse before one builds without a lease."""


def ensure(
    request: ProvisionRequest,
    *,
    notify: Notify,
    recipe: Recipe | None = None,
    builders: Iterable[Builder] | None = None,
    progress: Progress | None = None,
    user: Actor | None = None,
) -> Generation:
    """Return the environment for `request`, made now or by whoever was first.

    Args:
        request: What is wanted.
        notify: Told, in a sentence, whom this call waits for and what it found damaged.
        recipe: How to build; None: by what the source is.
        builders: Who may build, in the order in which they are asked; None: those of this package.
        progress: Shows how far a build of this call has come.
        user: Whoever uses the environment from now on: it stays pinned for that process.  None: nobody does yet.

    Raises:
        UsageProblem: Source or target cannot be; nothing was created.
        NotReady: It could not be built, or its builder did not finish in time.
    """
    try:
        while True:
            job, stands = _look(request, notify, recipe or builders, progress or Silent())
            with contextlib.suppress(Doomed):  # a gc came first: start over, in another slot
                if stands is None:
                    stands = _made(job)
                holder = user or actor.myself()
                pin = pins.hold(job.slot, holder, notify, beats=holder.pid == os.getpid())
                break
    except OSError as error:
        raise _refused(error, request.target) from error
    with contextlib.ExitStack() as release:
        if pin is not None:
            release.callback(pin.release)
        publish.point(job.place, stands.path)
        if user is not None:
            release.pop_all()
    return stands


def _refused(error: OSError, where: Path) -> NotReady:
    """Return what to say of a call that the file system refused."""
    gone = error.errno in {errno.ENOENT, errno.ESTALE}
    see = "somebody took it away meanwhile, or moved it" if gone else "see to the file system or the permissions there"
    return NotReady(
        f"the environment cannot be made ready: {error.strerror or error}",
        where=str(error.filename or where),
        hint=f"{see}{':' if gone else ', and'} provision again",
    )


def preview(
    request: ProvisionRequest, *, recipe: Recipe | None = None, builders: Iterable[Builder] | None = None
) -> Generation | Path:
    """Return what `ensure` would use, or else the directory in which it would build; nothing is created.

    Raises:
        UsageProblem: Source or target cannot be.
        NotReady: Somebody else could change what would be made.
    """
    job, stands = _look(request, lambda _: None, recipe or builders, Silent())
    if stands is None:
        trusted_path(target.nearest(job.place.target.parent), request.trust)
    return stands if stands is not None else job.slot.attempts


def _look(
    request: ProvisionRequest, notify: Notify, how: Recipe | Iterable[Builder] | None, progress: Progress
) -> tuple[Job, Generation | None]:
    """Return the job, and what stands already and is good."""
    began = time.monotonic()
    place = target.examine(request.source, request.target, force=request.force)
    with Reuse(place, request) as reuse:
        if isinstance(how, Recipe):
            recipe = how
            recipes.choose(place.source, [recipe.builder])
        else:
            recipe = recipes.standard(place.source, request, how)
        key = reuse.key(recipe)
        number, following = publish.newest(place, key)
        job = Job(request, recipe, place, key, publish.slot(place, key, following), notify, progress, began)
        if number is not None and not request.force:
            standing = dataclasses.replace(job, slot=publish.slot(place, key, number))
            try:
                if (generation := standing.adopted(reuse.looking(recipe.builder))) is not None:
                    return standing, generation
            except Damaged as damage:
                if not standing.slot.is_doomed():  # else it is a gc that takes it away
                    notify(f"{damage}; another is made")
    return job, None


def _made(job: Job) -> Generation:
    """Build, or wait for the one who does, where both are allowed."""
    trusted_path(target.nearest(job.place.target.parent), job.request.trust)
    if not job.slot.names():
        job = dataclasses.replace(job, amount=target.require_space(job.place))
        target.require_publishing(job.place)
    return _contend(job)


def _contend(job: Job) -> Generation:
    """Build, or wait for the one who does, until something stands."""
    job.slot.make(job.request.sharing)
    trusted_path(job.slot.lease, job.request.trust)
    job = dataclasses.replace(job, slot=dataclasses.replace(job.slot, made=True))
    chair = Chair(job.slot.path, job.notify)
    lease = Lease(job.slot.lease, ttl=job.request.ttl, beat=job.request.beat)
    with _terminable():
        try:
            return _until_done(job, chair, lease)
        except Damaged as damage:
            if job.slot.is_doomed():
                raise Doomed(job.slot.path) from None
            raise NotReady(f"what was just published is damaged: {damage}", hint="provision again") from None
        finally:
            lease.release()
            chair.leave()


def _until_done(job: Job, chair: Chair, lease: Lease) -> Generation:
    listing = job.slot.names()
    told = None if job.request.force else failures.recent(job.slot.path, listing)
    if told is not None and job.adopted() is None:
        raise told
    old_failures = failures.names(listing)  # of earlier runs: they do not keep this one from trying
    waiting = Waiting(job.place.target, lease, job.request.timeout, job.notify)
    doubt = _Doubt(job.notify)
    while True:
        done = _outcome(job, old_failures)
        # Who has this host's seat may have been stopped (a job that is suspended): then not even that host waits for it.
        if done is None and (chair.take() or lease.is_silent) and doubt.claims(lease):
            # Somebody may have finished between the look and the claim.
            done = _outcome(job, old_failures) or build(job, lease)
        if done is not None:
            return done
        waiting.pause()


def _outcome(job: Job, old_failures: frozenset[str]) -> Generation | None:
    """Return what stands, or None while the build goes on.

    Raises:
        NotReady: The build that this call waited for failed.
        Doomed: What is built in this slot would not be used.
    """
    listing = job.slot.names()  # once: thousands may wait, and each look is a call to the file server
    if job.slot.is_doomed(listing):
        raise Doomed(job.slot.path)
    done = job.adopted(listing=listing)
    if done is None:
        for name in sorted(failures.names(listing) - old_failures):
            raise failures.read(job.slot.path, name).error
    return done


class _Doubt:
    """Claims the lease; claims it in spite of a directory that keeps refusing, since publishing decides anyway."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._since: float | None = None

    def claims(self, lease: Lease) -> bool:
        try:
            claimed = lease.try_claim()
            if claimed and lease.taken_from:
                self._notify(f"taking the build over from {lease.taken_from}")
        except OSError as error:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if now - self._since < _DOUBT:
                return False
            self._notify(f"no lease can be had ({error}); several hosts may build, one will win")
            return True
        self._since = None
        return claimed


class _Terminated(BaseException):
    """SIGTERM came: unwind, then end as the signal would have."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Unwind on SIGTERM, so that an interrupted build takes its tree away, and then end by it."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def unwind(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clearing up
        raise _Terminated

    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
