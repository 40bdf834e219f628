"""What will be done, as one value: settings, facts and registry in, a plan or a refusal out; and starting its ranks."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pytest_multihost_env import environ, hosts, probe, process, registry
from pytest_multihost_env.config import Settings, binding, dotenv
from pytest_multihost_env.errors import LaunchFailed, UsageProblem
from pytest_multihost_env.launch.job import Job, Program
from pytest_multihost_env.launch.select import VERSION_LIMIT, Search, choose
from pytest_multihost_env.model import Allocation, Generation, Place, Placement, RankEnv, Shape
from pytest_multihost_env.placement import place
from pytest_multihost_env.probe import Facts
from pytest_multihost_env.provision import abi
from pytest_multihost_env.registry import Registry

HOST_LIMIT = 120.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that the stages act on; the faces print it and start ranks from it."""

    settings: Settings
    facts: Facts
    registry: Registry
    programs: Path | None = None
    """Where the launchers of an environment are looked up that is still to be made: in its source."""

    @functools.cached_property
    def allocation(self) -> Allocation:
        """The hosts of the job."""
        known = self.registry
        return hosts.find(self.settings, self.facts.environ, known.host_sources.values(), known.host_suffixes)

    @property
    def has_other_hosts(self) -> bool:
        """Whether the job has more hosts than this machine, or another one."""
        return len(self.allocation.hosts) > 1 or not self._is_local(self.allocation.names[0])

    def _is_local(self, name: str) -> bool:
        return hosts.is_local(name, self.registry.host_suffixes)

    @functools.cached_property
    def program(self) -> Program:
        """The launcher that was chosen."""
        remote = any(not self._is_local(name) for name in self.allocation.names)
        search = Search(
            prefix=self.programs or self.facts.prefix,
            path=self.facts.environ.get("PATH", ""),
            remote=remote,
            mpi4py=self.facts.mpi4py,
            extra_args=self.settings.launcher_args,
            environ=self.facts.environ,
            hosts=self.allocation.names,
            python=str(self.facts.python if self.programs is None else self.programs / "bin" / "python"),
            ask=self._ask,
        )
        chosen = choose(self.settings.launcher, self.registry.launchers, search)
        return dataclasses.replace(chosen, silence=max(4, round(self.settings.host_timeout)))

    def _ask(self, argv: Sequence[str]) -> str:
        """Return what a command prints that runs here with the variables of the first rank; "" where it cannot be run."""
        mine = self.rank_env(self._everyone[0], len(self._everyone)).values
        try:
            finished = process.run(argv, env={**self.facts.environ, **mine}, timeout=VERSION_LIMIT)
        except OSError:
            return ""
        return finished.stdout + finished.stderr

    @functools.cached_property
    def rules(self) -> environ.Rules:
        """Which variables the ranks receive."""
        found = binding.read(self.settings.rank_binding, self.facts.environ, self.facts.cwd)
        secrets = dotenv.read(self.settings.dotenv, self.settings.declared, self.facts.cwd)
        rules = environ.Rules.from_settings(self.settings, found, secrets)
        return dataclasses.replace(rules, host_suffixes=tuple(self.registry.host_suffixes))

    @functools.cached_property
    def redact(self) -> environ.Redactor:
        """Takes the secrets of this job out of a text."""
        return environ.Redactor(environ.secret_values(self.rules, self.facts.environ))

    def learn(self, shape: Shape) -> None:
        """Have `redact` hide also what the marker of a test gives to a secret."""
        names = {item.value for item in self.rules.secrets}
        self.redact.learn(value for name, value in shape.env if value and name in names)

    @functools.cached_property
    def _everyone(self) -> tuple[Place, ...]:
        """The places of as many ranks as the job has slots."""
        return place(Shape(self.allocation.slots), self.allocation).places

    def rank_env(self, spot: Place, size: int, marker: Mapping[str, str | None] | None = None) -> RankEnv:
        """Return the environment of one rank with the reason for each variable."""
        return self._env(self.rules, spot, size, marker)

    def env_of(self, shape: Shape, spot: Place) -> RankEnv:
        """Return the environment of one rank of a test.

        Raises:
            UsageProblem: The test asks for a secret that nobody has declared.
        """
        rules = self.rules
        if shape.secrets is not None:
            known = {item.value for item in rules.secrets}
            if unknown := sorted(set(shape.secrets) - known):
                raise UsageProblem(
                    f"the test asks for the secret {unknown[0]}, which nobody has declared",
                    where="@pytest.mark.multihost(secrets=...)",
                    expected=", ".join(sorted(known)) or "a name that test-secrets or secrets names",
                    hint=f"add {unknown[0]} to test-secrets",
                )
            rules = rules.giving(shape.secrets)
        return self._env(rules, spot, shape.ranks, dict(shape.env))

    def _env(
        self, rules: environ.Rules, spot: Place, size: int, marker: Mapping[str, str | None] | None = None
    ) -> RankEnv:
        return environ.rank_env(
            rules, self.facts.environ, prefix=self.facts.prefix, spot=spot, size=size, marker=marker or {}
        )

    def settle(self) -> None:
        """Decide everything now.

        Raises:
            UsageProblem: Something that was asked for cannot be acted on.
        """
        _ = self.allocation, self.program, self.rules
        self.refuse_unbound(self.settings.ranks or 0)
        # What the first rank would be refused for, every rank would: a secret without a value, for one.
        everything = self.rules.giving({item.value for item in self.rules.secrets})
        self._env(everything, self._everyone[0], len(self._everyone))

    def refuse_unbound(self, size: int) -> None:
        """Refuse `size` ranks where rank bindings speak of fewer.

        Raises:
            UsageProblem: Some ranks have no entry.
        """
        bound = self.rules.binding.size
        if bound and size > bound:
            raise UsageProblem(
                f"rank {bound} has no entry in rank_bindings, and {size} ranks are asked for",
                where=", ".join(str(path) for path in self.settings.rank_binding),
                expected=f"an entry for each of the ranks 0 to {size - 1}",
                hint="add the missing ranks, or ask for fewer",
            )

    def start(self, placement: Placement, limit: float = 60.0) -> Job:
        """Start supervisors on `placement` and return the job.

        Raises:
            LaunchFailed: Not every rank started; a job of several hosts names those that cannot start any.
        """
        job = self._job(placement)
        try:
            job.start(limit)
        except LaunchFailed as error:
            raise error.reworded(self.redact) from None
        try:
            self._check_systems(job)
        except LaunchFailed:
            job.close()
            raise
        return job

    def _check_systems(self, job: Job) -> None:
        """Refuse hosts that are too old for the environment; nothing but the supervisor has run there."""
        needed = self.facts.generation.facts if self.facts.generation is not None else {}
        reasons: dict[str, str] = {}
        for rank, member in sorted(job.members.items()):
            library, machine = (*member.system, "", "")[:2]
            if why := abi.lacking(needed, library, machine):
                reasons.setdefault(job.placement.places[rank].host, why)
        if reasons:
            raise LaunchFailed(
                f"{', '.join(reasons)} cannot run the environment\n"
                + "\n".join(f"  {host}: {why}" for host, why in reasons.items()),
                where=str(self.facts.prefix),
                hint="make SOURCE on the oldest of the hosts, or leave those out with --multihost-hosts",
            )

    def _job(self, placement: Placement) -> Job:
        # A launcher may pass on what it has, in ways of its own; secrets come through the channel.
        held_back = environ.OF_ONE_RANK | {item.value for item in self.rules.secrets}
        return Job(
            self.program,
            placement,
            python=self.facts.python,
            environ={name: value for name, value in self.facts.environ.items() if name not in held_back},
            local_only=all(self._is_local(name) for name in placement.hosts),
            as_root=self.facts.as_root,
        )

    def describe(self, shape: Shape) -> tuple[str, ...]:
        """Return the command lines that would start the ranks of `shape`."""
        job = self._job(place(shape, self.allocation))
        try:
            return job.command_lines
        finally:
            job.close()

    def mpi_library(self) -> str:
        """Return name and version of the MPI library that the environment's mpi4py loads on this host."""
        code = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
        done = process.run([str(self.facts.python), "-c", code], timeout=10)
        return done.stdout.partition("\n")[0].strip() or "not known"

    def order_of_check(self, argv: tuple[str, ...], spot: Place) -> dict[str, object]:
        """Return what the supervisor of a place is told to run, in the environment of its host's first rank."""
        first = next((one for one in self._everyone if one.host == spot.host), spot)
        return {
            "t": "start",
            "argv": list(argv),
            # A check imports what there is, and needs no secret for it.
            **self._env(self.rules.giving(()), first, len(self._everyone)).order,
            "keep": list(environ.LAUNCHER_OWNED),
            "cwd": "/",
            "stream": True,
            "split": True,
        }


def make(settings: Settings, plugins: Iterable[object] = ()) -> Plan:
    """Return the plan for this process as it is: in the environment that it was started in or re-executed into.

    Args:
        settings: What was asked for.
        plugins: Objects that may have parts to add, besides what is installed (`registry.load`).
    """
    return Plan(settings, probe.take(), registry.load(plugins))


def foreseen(settings: Settings, plugins: Iterable[object] = ()) -> Plan:
    """Return the plan as it will be once `settings.venv` is provisioned; nothing is provisioned.

    Args:
        settings: What was asked for.
        plugins: As for `make`.

    Raises:
        UsageProblem: The source or the target cannot be.
    """
    now = make(settings, plugins)
    if settings.venv is None or now.facts.generation is not None:
        return now
    from pytest_multihost_env.provision import ProvisionRequest, preview

    found = preview(ProvisionRequest.from_settings(settings), builders=now.registry.builders.values())
    if isinstance(found, Generation):
        return dataclasses.replace(now, facts=probe.take({**os.environ, **probe.announce(found, settings.venv)}))
    # Its name is made up by whoever builds it; until then the source shows which programs it will have.
    prefix = found / "..."
    facts = dataclasses.replace(
        now.facts,
        prefix=prefix,
        python=prefix / "bin" / "python",
        source=str(settings.venv),
        mpi4py=probe.has_mpi4py(settings.venv),
    )
    return dataclasses.replace(now, facts=facts, programs=settings.venv)


def runs_inside(generation: Generation) -> bool:
    """Return whether this process runs in `generation`."""
    return generation.path.exists() and generation.path.samefile(sys.prefix)


def become(prefix: Path, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the interpreter of the environment `prefix`, with these arguments."""
    python = str(prefix / "bin" / "python")
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTEST_VERSION"}}
    env["VIRTUAL_ENV"] = str(prefix)
    env["PATH"] = os.pathsep.join([str(prefix / "bin"), env.get("PATH", os.defpath)])
    env["PYTHONNOUSERSITE"] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(python, [python, *arguments], env)  # noqa: S606 - becoming another program is the purpose
