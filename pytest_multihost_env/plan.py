"""What will be done, as one value: settings, facts and registry in, a plan or a refusal out; and starting its ranks."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pytest_multihost_env import environ, hosts, probe, process, registry
from pytest_multihost_env.check.doctor.case import Case
from pytest_multihost_env.config import Settings, binding, dotenv
from pytest_multihost_env.errors import LaunchFailed, Misplaced, MultihostError, NotReady, UsageProblem
from pytest_multihost_env.launch.job import Job, Program
from pytest_multihost_env.launch.select import VERSION_LIMIT, Search, choose
from pytest_multihost_env.launch.talk import Talk
from pytest_multihost_env.model import Allocation, Completed, Generation, Place, Placement, RankEnv, Shape
from pytest_multihost_env.placement import place
from pytest_multihost_env.probe import Facts
from pytest_multihost_env.provision import abi, trust
from pytest_multihost_env.provision.job import trust_of
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

    def notices(self) -> list[str]:
        """Return what a person should know about secrets and the `.env` file, a line for each thing."""
        found = self.rules.dotenv
        names = {item.value for item in self.rules.secrets}
        typed = [one.name for one in self.rules.wanted if one.value and one.origin.startswith("option")]
        lines = [
            f"the secret {one} stands on the command line, which every user of this machine can read: put it into a .env file"
            for one in typed
            if one in names
        ]
        if found.path is None:
            return lines
        name = self._short(found.path)
        if found.kept:
            kept = _few([one.name for one in found.kept], 8)
            lines.append(f"{name}: not passed, since they look like secrets and `secrets` does not name them: {kept}")
        if (found.kept or self.rules.secrets) and _tracked(found.path):
            lines.append(f"{name} holds secrets and is tracked by git: git rm --cached {name}, and use new secrets")
        return lines

    def header(self) -> list[str]:
        """Return what a person wants to see before the first test, a line for each thing."""
        lines = []
        if generation := self.facts.generation:
            made = "reused" if generation.reused else f"built in {generation.seconds:.1f} s"
            if generation.checked is not None:
                made += f", checked by {generation.checked}"
            lines.append(f"environment {self._short(generation.path)} ({made}, from {self._short(self.facts.source)})")
            if generation.outside:
                lines.append(f"imported from outside of it, as allowed: {', '.join(generation.outside)}")
            if generation.added:
                lines.append(f"added to it: {_few(generation.added, 3)}")
        if self.settings.group or self.settings.owners:
            from pytest_multihost_env.provision import trust_of

            lines.append(f"trusted besides this user and root: {trust_of(self.settings)}")
        names = _few(hosts.fold(self.allocation.hosts), 16)
        lines.append(f"hosts {names} (from {self.allocation.source}), launcher {self._launcher_text()}")
        with contextlib.suppress(LaunchFailed):  # a host without an address is told when the hosts are checked
            lines += [f"command {self.redact(line)}" for line in self._describe(Shape(self.allocation.slots))[:4]]
        return lines + self.notices()

    def _short(self, path: str | Path) -> str:
        """Relative to the working directory where that is shorter to read."""
        path = Path(path)
        return str(path.relative_to(self.facts.cwd)) if path.is_relative_to(self.facts.cwd) else str(path)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return `(what, value, who decided)` for the plan as a table."""
        settings = self.settings
        rows = [
            ("source", str(settings.venv or "none: the ranks run this Python"), settings.origin("venv")),
            ("target", str(settings.target), settings.origin("target")),
            ("python", str(self.facts.python), self._whose_python()),
        ]
        rows += [(f"host {host.name}", f"{host.slots} slots", self.allocation.source) for host in self.allocation.hosts]
        unknown = self.programs is not None and not self.programs.is_dir() and settings.launcher == "auto"
        if unknown:  # a file that says what to install: whether an MPI is in it shows when it is made
            rows.append(("launcher", "chosen when the environment is made", settings.origin("launcher")))
        else:
            rows.append(("launcher", self._launcher_text(), settings.origin("launcher")))
        rows.append(("limit for a test", f"{settings.timeout:g} s", settings.origin("timeout")))
        if not unknown:
            rows += [("command", line, "the launcher") for line in self._describe(Shape(self.allocation.slots))]
        return [(what, self.redact(value), who) for what, value, who in rows]

    def _whose_python(self) -> str:
        if self.facts.generation:
            return "the generation"
        return "to be made by provisioning" if self.facts.source else "this process"

    def _launcher_text(self) -> str:
        version = ".".join(map(str, self.program.version))
        executable = self.program.executable
        own = (self.programs or self.facts.prefix) / "bin"
        where = f"bin/{Path(executable).name} of the environment" if Path(executable).parent == own else executable
        parts = (self.program.launcher.name, version, f"({where})" if executable else "")
        return " ".join(part for part in parts if part)

    def _describe(self, shape: Shape) -> tuple[str, ...]:
        job = self._job(place(shape, self.allocation))
        try:
            return job.command_lines
        finally:
            job.close()

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

    def mpi_library(self) -> str:
        """Return name and version of the MPI library that the environment's mpi4py loads on this host."""
        code = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
        done = process.run([str(self.facts.python), "-c", code], timeout=10)
        return done.stdout.partition("\n")[0].strip() or "not known"

    def on_every_host(self, argv: tuple[str, ...], stdin: str, timeout: float = HOST_LIMIT) -> dict[str, Completed]:
        """Run a command once on every host of the job, in the environment of its first rank.

        A host that cannot run it is in the answer with the reason, never left out.  No answer holds a secret.

        Raises:
            Misplaced: The launcher does not start ranks where they were to be.
        """
        return {host: self._shown(done) for host, done in self._on_hosts(argv, stdin, timeout).items()}

    def _on_hosts(self, argv: tuple[str, ...], stdin: str, timeout: float) -> dict[str, Completed]:
        names = self.allocation.names
        try:
            job = self.start(_one_each(names))
        except Misplaced:
            raise
        except LaunchFailed as error:
            if len(names) == 1:
                return {names[0]: Completed(names[0], None, "", "", error=str(error))}
            return {name: self._on_host(name, argv, stdin, timeout) for name in names}
        try:
            return self._gather(job, argv, stdin, timeout)
        finally:
            job.close()

    def _on_host(self, name: str, argv: tuple[str, ...], stdin: str, timeout: float) -> Completed:
        try:
            job = self.start(_one_each((name,)), limit=30.0)
        except MultihostError as error:
            return Completed(name, None, "", "", error=str(error))
        try:
            return self._gather(job, argv, stdin, timeout)[name]
        finally:
            job.close()

    def _gather(self, job: Job, argv: tuple[str, ...], stdin: str, timeout: float) -> dict[str, Completed]:
        places = {spot.rank: spot for spot in job.placement.places}
        output = dict.fromkeys(places, "")
        answers: dict[int, Completed] = {}
        for spot in places.values():
            job.send(spot.rank, {**self._order(argv, spot), "stdin": stdin})
        end = time.monotonic() + timeout
        while len(answers) < len(places) and time.monotonic() < end:
            for rank, message in job.poll(end - time.monotonic()):
                host = places[rank].host
                if message["t"] == "output":
                    output[rank] += str(message["data"])
                elif message["t"] == "exit":
                    answers[rank] = Completed(host, int(message["code"]), output[rank], str(message["output"]))
                elif message["t"] in {"failed", "lost"} and rank not in answers:
                    answers[rank] = Completed(host, None, output[rank], "", error=str(message["why"]))
        late = f"no answer within {timeout:g} s"
        for rank, spot in places.items():
            answers.setdefault(rank, Completed(spot.host, None, output[rank], "", error=late))
        return {places[rank].host: answers[rank] for rank in sorted(answers)}

    def _shown(self, done: Completed) -> Completed:
        error = done.error and self.redact(done.error)
        return Completed(done.host, done.code, self.redact(done.stdout), self.redact(done.stderr), error)

    def _order(self, argv: tuple[str, ...], spot: Place) -> dict[str, object]:
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

    def talk(self, argv: tuple[str, ...]) -> Talk:
        """Start a program on every host that can be reached, to be asked in turns; `{channel}` becomes its channel."""
        names, silent = self.allocation.names, {}
        try:
            job: Job | None = self.start(_one_each(names))
        except LaunchFailed as error:
            nothing = (str(self.facts.python), "-c", "pass")
            answers = {name: self._on_host(name, nothing, "", HOST_LIMIT) for name in names} if len(names) > 1 else {}
            silent = {name: done.error for name, done in answers.items() if done.error} or dict.fromkeys(
                names, str(error)
            )
            well = tuple(name for name in names if name not in silent)
            job = self.start(_one_each(well)) if well else None
        return Talk(job, lambda spot: self._order(argv, spot), silent)

    def ask(self, request: Mapping[str, object]) -> dict[str, Completed]:
        """Have every host of the job take the snapshot that `request` describes (`check.values.request`).

        The answers are as the hosts gave them, and whoever shows them redacts: two values that a secret hides would
        otherwise be equal, and a secret that has a word of the answers in it would make them unreadable.
        """
        from pytest_multihost_env.check.values import command

        asked = command(self.facts.python, request)
        return self._on_hosts(asked.argv, asked.stdin or "", HOST_LIMIT)

    def case(self) -> Case:
        """Return the job as the doctor sees it."""
        return Case(
            hosts=self.allocation.names,
            target=self.settings.target,
            python=self.facts.python,
            launcher=self._launcher_text,
            run=lambda argv: self.on_every_host(argv, "", timeout=30.0),
            distrusted=self.distrusted,
        )

    def distrusted(self, directory: Path) -> MultihostError | None:
        """Return why nothing below `directory` would be run, as seen from this machine; None when it would."""
        try:
            trust.trusted_path(directory, trust_of(self.settings))
        except NotReady as problem:
            return problem
        return None

    def unfit(self, names: Iterable[str] = ()) -> dict[str, str]:
        """Return why, for each of these hosts (none: all of the job) that cannot start even one rank."""
        nothing = (str(self.facts.python), "-c", "pass")
        answers = {name: self._on_host(name, nothing, "", 30.0) for name in names} or self.on_every_host(
            nothing, "", timeout=30
        )
        return {name: answer.error for name, answer in answers.items() if answer.error}

    def why_not(self, error: LaunchFailed) -> LaunchFailed:
        """Return `error` with the hosts that cannot start even one rank named first."""
        if len(self.allocation.hosts) == 1 or isinstance(error, Misplaced):
            return error
        bad = self.unfit()
        if not bad:
            return error
        lines = "\n".join(f"{name}: {why}" for name, why in bad.items())
        return LaunchFailed(
            f"{', '.join(bad)} cannot run {self.facts.python}\n{lines}",
            where=", ".join(bad),
            hint="make the host reachable without a password, or leave it out with --multihost-hosts",
        )


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


def _few(items: Sequence[str], most: int) -> str:
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")


def _tracked(path: Path) -> bool:
    """Whether git keeps this file's content; also where that cannot be found out, it does not."""
    try:
        asked = ["git", "-C", str(path.parent), "ls-files", "--error-unmatch", "--", path.name]
        return bool(process.run(asked, timeout=10))
    except OSError:
        return False


def _one_each(names: tuple[str, ...]) -> Placement:
    return Placement(tuple(Place(rank, name, 0) for rank, name in enumerate(names)))
