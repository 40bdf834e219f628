"""`provision`, `activate`, `verify`: make an environment, use it in a shell, look whether it is unchanged."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_multihost_env.cli import output
from pytest_multihost_env.cli.state import PATH, as_json, common, load, settings_options
from pytest_multihost_env.errors import UsageProblem

if TYPE_CHECKING:
    from pytest_multihost_env.config import Settings
    from pytest_multihost_env.model import Generation
    from pytest_multihost_env.provision import Verified
    from pytest_multihost_env.provision.actor import Actor
    from pytest_multihost_env.provision.compare import Differences

FALLBACK = Path("/opt/venv")
_FEW = 20


@click.command()
@click.argument("source", required=False, type=PATH)
@click.argument("target", required=False, type=PATH)
@click.option("--force", is_flag=True, help="Build anew, and put aside an environment at TARGET that is not ours.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and write nothing.")
@settings_options("verify", "python", "requirements", "allow-outside", "group", "umask", "owners")
@as_json
@common
def provision(
    source: Path | None, target: Path | None, *, force: bool, dry_run: bool, as_json: bool, **given: Any
) -> int:
    """Make an environment from SOURCE ready at TARGET for every host: once, whoever else tries.

    SOURCE is a virtual environment, a packed one (a tar archive; .gz, .zst, .xz and .bz2 as well), a requirements file,
    a pylock.toml, a uv.lock or an environment.yml; what it is counts, not how it is called.

    SOURCE defaults to the setting `venv`, TARGET to the setting `target` (./python_env).  What stands already and is
    good is used again.  Progress goes to standard error.
    """
    settings = _settings(source, target, given)
    if dry_run:
        return _preview(settings, force=force, as_json=as_json)
    made = ensured(settings, force=force)
    if as_json:
        output.json(made)
    else:
        from pytest_multihost_env.report import text

        output.result(text.generation(made, output.look()))
    return 0


@click.command()
@click.argument("source", required=False, type=PATH)
@click.argument("target", required=False, type=PATH)
@click.option(
    "--shell", default="sh", metavar="NAME", help="sh, bash, dash, ksh, zsh, csh, tcsh, fish or nu; default sh."
)
@settings_options("verify", "python", "requirements", "allow-outside", "group", "umask", "owners")
@common
def activate(source: Path | None, target: Path | None, *, shell: str, **given: Any) -> int:
    """Print shell code that activates the environment, which is made first when it does not stand yet.

    \b
        eval "$(multihost-env activate /opt/venv ./python_env)"
        load-env (multihost-env activate --shell nu /opt/venv ./python_env | from json)

    Standard output is only code.  When something fails, that code makes the `eval` fail, so that a script under
    `set -e` stops instead of going on with another Python.  SOURCE defaults to the setting `venv`, else to /opt/venv
    where that exists; TARGET to the setting `target` (./python_env).
    """  # noqa: D301 - click's own mark for a line that is not wrapped
    from pytest_multihost_env.provision import activate as shells
    from pytest_multihost_env.provision import callers

    with output.kept_clean():
        shells.failure_script(shell, "")  # an unknown shell is refused before anything is made
        made = ensured(_settings(source, target, given, fallback=FALLBACK), user=callers.shell())
        text = shells.script(made, shell, path=os.environ.get("PATH", ""))
    output.put(text)
    return 0


def failing_code(words: Sequence[str]) -> str:
    """Return code that makes the `eval` of a shell fail, for the shell that the command line `words` names."""
    from pytest_multihost_env.provision import activate as shells

    named = [word.partition("=")[2] for word in words if word.startswith("--shell=")]
    named += [after for word, after in itertools.pairwise(words) if word == "--shell"]
    message = "multihost-env: no environment was activated"
    try:
        return shells.failure_script(named[-1] if named else "sh", message)
    except UsageProblem:
        return shells.failure_script("sh", message)


@click.command()
@click.argument("target", required=False, type=PATH)
@click.option(
    "--against",
    type=PATH,
    metavar="OTHER",
    help="Instead, tell which files OTHER does not have in common with TARGET, by their manifests: an environment, or "
    "the file .multihost-manifest of one on another host.",
)
@settings_options("group", "owners")
@as_json
@common
def verify(target: Path | None, *, against: Path | None, as_json: bool, **given: Any) -> int:
    """Compare the environment at TARGET with its manifest, byte by byte, and prove that it stands on its own.

    TARGET defaults to the setting `target` (./python_env).  Each file that is not as it was published is named, with
    what differs: content, size, mode, time, type, or a symlink's target.  The exit code is 1 when anything changed, came
    or went, when the environment was moved, or when it uses something outside of itself.
    """
    from pytest_multihost_env.provision import trust_of
    from pytest_multihost_env.provision import verify as look_at

    settings = load(given)
    if against is not None:
        return _compare(target or settings.target, against, as_json=as_json)
    found = look_at(target or settings.target, trust=trust_of(settings))
    if as_json:
        output.json({**dataclasses.asdict(found), "digest_ok": found.digest_ok, "good": bool(found)})
    else:
        output.result("\n".join(_told(found)))
    return 0 if found else 1


def _compare(target: Path, other: Path, *, as_json: bool) -> int:
    from pytest_multihost_env.provision.against import against

    found = against(target, other)
    if as_json:
        output.json({**dataclasses.asdict(found), "equal": not found})
    else:
        lines = [f"{target} and {other}", *_listed(found, missing="only in the first", extra="only in the second")]
        output.result("\n".join([*lines, "NOT equal" if found else "equal"]))
    return 1 if found else 0


def _listed(found: Verified | Differences, missing: str = "missing", extra: str = "extra") -> Iterator[str]:
    """Yield a line for each of the first files that differ, by what is the matter with them."""
    from pytest_multihost_env.provision.walk import escaped

    changed = tuple(map(str, found.differing))
    gone, came = tuple(map(escaped, found.missing)), tuple(map(escaped, found.extra))
    for label, paths in (("changed", changed), (missing, gone), (extra, came)):
        yield from (f"  {label}: {path}" for path in paths[:_FEW])
        if len(paths) > _FEW:
            yield f"  {label}: {len(paths) - _FEW} more"


def _settings(
    source: Path | None, target: Path | None, given: Mapping[str, object], fallback: Path | None = None
) -> Settings:
    """Return the settings with `source` and `target` in place.

    Raises:
        UsageProblem: Nobody names a source.
    """
    settings = load(dict(given))
    wanted = source or settings.venv or (fallback if fallback is not None and fallback.exists() else None)
    if wanted is None:
        raise UsageProblem(
            "there is no SOURCE",
            expected="a virtual environment, a packed one, or a file that says what to install"
            + (f"; or one of them at {fallback}" if fallback is not None else ""),
            hint="name one, or set `venv` in multihost-env.toml",
        )
    here = Path.cwd()
    return dataclasses.replace(settings, venv=here / wanted, target=here / target if target else settings.target)


def ensured(settings: Settings, *, force: bool = False, user: Actor | None = None) -> Generation:
    """Return the environment made from `settings.venv`; who waits is told what for.

    `user` is the process that uses it from now on, if there is one: gc leaves it alone while that process lives.
    """
    from pytest_multihost_env import registry
    from pytest_multihost_env.provision import ProvisionRequest, ensure
    from pytest_multihost_env.report import progress

    assert settings.venv is not None  # noqa: S101 - `_settings` saw to it
    request = ProvisionRequest.from_settings(settings, force=force)
    builders = registry.Builders()
    with progress.shown(f"making {settings.target} from {settings.venv}", output.notice) as meter:
        return ensure(request, notify=output.notice, builders=builders, progress=meter, user=user)


def _preview(settings: Settings, *, force: bool, as_json: bool) -> int:
    from pytest_multihost_env import registry
    from pytest_multihost_env.provision import ProvisionRequest, preview

    assert settings.venv is not None  # noqa: S101 - `_settings` saw to it
    request = ProvisionRequest.from_settings(settings, force=force)
    found = preview(request, builders=registry.Builders())
    stands = None if isinstance(found, Path) else found.path
    if as_json:
        where = found if isinstance(found, Path) else found.path.parent
        output.json({"source": settings.venv, "target": settings.target, "stands": stands, "builds_in": where})
    elif stands is not None:
        output.result(f"would use {stands}\n  it stands and is good; {settings.target} would lead to it")
    else:
        output.result(f"would make one from {settings.venv} in {found}\n  {settings.target} would lead there")
    return 0


def _told(found: Verified) -> list[str]:
    lines = [f"environment {found.path}", f"  made from {found.header.source}, Python {found.header.python}"]
    match found:
        case _ if found.digest_ok:
            lines.append(f"  manifest {found.digest[:12]}: the one that was published")
        case _ if found.published:
            lines.append(f"  manifest {found.digest[:12]}: published was {found.published[:12]}")
        case _:
            lines.append(f"  manifest {found.digest[:12]}: no record of its publication stands beside it")
    if found.relocated:
        lines.append(f"  relocated: it was made for {found.relocated} and cannot be used here; provision again")
    lines += _listed(found)
    lines += [f"  note: {note}" for note in found.header.notes]
    lines.append(f"  proof: {found.proof}" if found.proof else "  proof: " + found.problem.replace("\n", "\n    "))
    lines.append("good" if found else "NOT as it was published: make a new one with `multihost-env provision --force`")
    return lines
