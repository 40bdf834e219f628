"""What a person is told of a plan: the header of a run, the plan as a table, and what to know about secrets."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_multihost_env import hosts, process
from pytest_multihost_env.errors import LaunchFailed
from pytest_multihost_env.model import Shape

if TYPE_CHECKING:
    from pytest_multihost_env.plan import Plan


def notices(plan: Plan) -> list[str]:
    """Return what a person should know about secrets and the `.env` file, a line for each thing."""
    found = plan.rules.dotenv
    names = {item.value for item in plan.rules.secrets}
    typed = [one.name for one in plan.rules.wanted if one.value and one.origin.startswith("option")]
    lines = [
        f"the secret {one} stands on the command line, which every user of this machine can read: put it into a .env file"
        for one in typed
        if one in names
    ]
    if found.path is None:
        return lines
    name = _short(plan, found.path)
    if found.kept:
        kept = _few([one.name for one in found.kept], 8)
        lines.append(f"{name}: not passed, since they look like secrets and `secrets` does not name them: {kept}")
    if (found.kept or plan.rules.secrets) and _tracked(found.path):
        lines.append(f"{name} holds secrets and is tracked by git: git rm --cached {name}, and use new secrets")
    return lines


def header(plan: Plan) -> list[str]:
    """Return what a person wants to see before the first test, a line for each thing."""
    lines = []
    if generation := plan.facts.generation:
        made = "reused" if generation.reused else f"built in {generation.seconds:.1f} s"
        if generation.checked is not None:
            made += f", checked by {generation.checked}"
        lines.append(f"environment {_short(plan, generation.path)} ({made}, from {_short(plan, plan.facts.source)})")
        if generation.outside:
            lines.append(f"imported from outside of it, as allowed: {', '.join(generation.outside)}")
        if generation.added:
            lines.append(f"added to it: {_few(generation.added, 3)}")
    if plan.settings.group or plan.settings.owners:
        from pytest_multihost_env.provision import trust_of

        lines.append(f"trusted besides this user and root: {trust_of(plan.settings)}")
    names = _few(hosts.fold(plan.allocation.hosts), 16)
    lines.append(f"hosts {names} (from {plan.allocation.source}), launcher {launcher_text(plan)}")
    with contextlib.suppress(LaunchFailed):  # a host without an address is told when the hosts are checked
        lines += [f"command {plan.redact(line)}" for line in plan.describe(Shape(plan.allocation.slots))[:4]]
    return lines + notices(plan)


def _short(plan: Plan, path: str | Path) -> str:
    """Relative to the working directory where that is shorter to read."""
    path = Path(path)
    return str(path.relative_to(plan.facts.cwd)) if path.is_relative_to(plan.facts.cwd) else str(path)


def rows(plan: Plan) -> list[tuple[str, str, str]]:
    """Return `(what, value, who decided)` for the plan as a table."""
    settings = plan.settings
    rows = [
        ("source", str(settings.venv or "none: the ranks run this Python"), settings.origin("venv")),
        ("target", str(settings.target), settings.origin("target")),
        ("python", str(plan.facts.python), _whose_python(plan)),
    ]
    rows += [(f"host {host.name}", f"{host.slots} slots", plan.allocation.source) for host in plan.allocation.hosts]
    unknown = plan.programs is not None and not plan.programs.is_dir() and settings.launcher == "auto"
    # A file that says what to install: whether an MPI is in it shows when it is made.
    launcher = "chosen when the environment is made" if unknown else launcher_text(plan)
    commands = () if unknown else plan.describe(Shape(plan.allocation.slots))
    rows.append(("launcher", launcher, settings.origin("launcher")))
    rows.append(("limit for a test", f"{settings.timeout:g} s", settings.origin("timeout")))
    rows += [("command", line, "the launcher") for line in commands]
    return [(what, plan.redact(value), who) for what, value, who in rows]


def _whose_python(plan: Plan) -> str:
    if plan.facts.generation:
        return "the generation"
    return "to be made by provisioning" if plan.facts.source else "this process"


def launcher_text(plan: Plan) -> str:
    """Return the launcher with its version and where it was found."""
    version = ".".join(map(str, plan.program.version))
    executable = plan.program.executable
    own = (plan.programs or plan.facts.prefix) / "bin"
    where = f"bin/{Path(executable).name} of the environment" if Path(executable).parent == own else executable
    parts = (plan.program.launcher.name, version, f"({where})" if executable else "")
    return " ".join(part for part in parts if part)


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
