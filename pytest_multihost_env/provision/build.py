"""Build one attempt and make it stand, unless another does by then."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

import pytest_multihost_env
from pytest_multihost_env import files
from pytest_multihost_env.errors import MultihostError, NotReady, Passing
from pytest_multihost_env.model import Generation
from pytest_multihost_env.protocols import Progress, Work
from pytest_multihost_env.provision import actor, failures, manifest, target
from pytest_multihost_env.provision.actor import Actor
from pytest_multihost_env.provision.adopt import adopt
from pytest_multihost_env.provision.job import Job, conditions, key_of
from pytest_multihost_env.provision.lease import Lease
from pytest_multihost_env.provision.publish import Doomed, Ready, Slot
from pytest_multihost_env.provision.reuse import fingerprints
from pytest_multihost_env.provision.scan import scan
from pytest_multihost_env.provision.target import Amount, Place
from pytest_multihost_env.provision.trust import trusted_path


def build(job: Job, lease: Lease) -> Generation:
    """Build, publish, and return what stands, which may be another's.

    Raises:
        NotReady: It could not be built; the others are told why, and nothing half-made is left.
        Damaged: What stands, and is another's, is no good.
        Doomed: A gc took this builder for dead, or what it had just published for old.
    """
    # Again: the wait for this turn may have been long, and others write to that file system too.
    amount = target.require_space(job.place, job.amount)
    me = actor.myself()
    job = dataclasses.replace(job, progress=_Told(job.progress, lease))
    attempt = job.slot.begin(me, lease.number)
    try:
        with job.request.sharing.in_force():
            digest, header = _make(job, attempt, me, amount)
        ready = _publish(job, attempt, digest, me)
    except BaseException as error:
        if not _may_stand(job.slot, attempt):
            job.slot.discard(attempt)
        if not isinstance(error, Exception):
            raise
        _refuse_doomed(job.slot)
        done = job.adopted()  # a winner may have swept an attempt whose lease was lost
        if done is not None:
            return done
        problem = _explained(error, job.place)
        failures.record(job.slot.path, attempt, problem, me, repeats=failures.repeats(error))
        raise problem from error
    if ready.attempt != attempt.name:
        job.slot.discard(attempt)
        return adopt(job.slot, ready, job.key, job.request.trust)
    with contextlib.suppress(OSError):
        job.slot.sweep(ready, lease.look())
    return Generation(
        path=attempt,
        key=job.key,
        digest=digest,
        reused=False,
        built_by=f"{me.host}:{me.pid}",
        added=header.added,
        seconds=time.monotonic() - job.began,
        facts=header.facts,
    )


class _Told:
    """Progress that those who wait for the lease hear of too."""

    def __init__(self, shown: Progress, lease: Lease) -> None:
        self._shown, self._lease = shown, lease

    def begin(self, stage: str, files: int | None = None, size: int | None = None) -> None:
        self._lease.doing = stage
        self._shown.begin(stage, files, size)

    def advance(self, files: int, size: int) -> None:
        self._shown.advance(files, size)

    def end(self) -> None:
        self._lease.doing = ""
        self._shown.end()


def _publish(job: Job, attempt: Path, digest: str, me: Actor) -> Ready:
    job.progress.begin("writing to disk")
    try:
        return job.slot.publish(attempt, digest, me)
    finally:
        job.progress.end()


def _make(job: Job, attempt: Path, me: Actor, amount: Amount) -> tuple[str, manifest.Header]:
    """Build at `attempt` and return the manifest's digest and header."""
    work = Work(job.notify, job.progress, files=amount.files, size=amount.size)
    origin = fingerprints(job.recipe.builder, job.place.source)
    job.recipe.builder.build(job.place.source, attempt, work)
    origin |= fingerprints(job.recipe.builder, job.place.source, read=dict(work.read))
    added = job.recipe.finish(attempt, job.place.source, work)
    if key_of(job.place, job.recipe) != job.key:
        raise Passing(
            f"{job.place.source} was changed while it was copied",
            hint="let what writes to it finish, and provision again",
        )
    job.request.sharing.seal(attempt)
    header = manifest.Header(
        key=job.key,
        path=str(attempt),
        source=str(job.place.source),
        python=_python_version(attempt),
        tool=pytest_multihost_env.__version__,
        builder=dataclasses.asdict(me),
        added=added,
        facts=work.facts,
        notes=tuple(work.notes),
        origin=origin,
        conditions=conditions(job.recipe),
    )
    data = manifest.render(header, scan(attempt, work.read))
    files.write_new(attempt / manifest.NAME, data, 0o444)
    trusted_path(attempt / "bin" / "python", job.request.trust)
    return manifest.digest(data), header


def _python_version(attempt: Path) -> str:
    with contextlib.suppress(OSError):
        for line in (attempt / "pyvenv.cfg").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition("=")
            if name.strip() in {"version", "version_info"}:
                return value.strip()
    return ""


def _explained(error: Exception, place: Place) -> MultihostError:
    if isinstance(error, MultihostError):
        return error
    return NotReady(
        f"the environment could not be built: {error or type(error).__name__}",
        where=str(getattr(error, "filename", None) or place.source),
        hint="mend the cause and provision again; nothing half-made was left",
    )


def _refuse_doomed(slot: Slot) -> None:
    with contextlib.suppress(OSError):
        if slot.is_doomed():
            raise Doomed(slot.path)


def _may_stand(slot: Slot, attempt: Path) -> bool:
    """Return whether `attempt` was published, or it cannot be told: then it must stay."""
    try:
        ready = slot.ready()
    except (OSError, NotReady):
        return True
    return ready is not None and ready.attempt == attempt.name
