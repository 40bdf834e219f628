"""Provision, then become pytest inside the environment: the same process, terminal and exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_multihost_env.errors import MultihostError
from pytest_multihost_env.plugin.session import PINS, MultihostSession, usage


def change_over(config: pytest.Config) -> None:
    """Make the environment ready and replace this process by pytest inside it, unless that has been done.

    Raises:
        UsageError: It could not be made ready; pytest shows the reason and exits with 4.
    """
    namespace = config.known_args_namespace
    if "PYTEST_XDIST_WORKER" in os.environ or getattr(namespace, "help", False) or getattr(namespace, "version", False):
        return
    # Not the session's own state: its options are not all known yet.
    session = MultihostSession(config)
    try:
        settings = session.settings
        if settings.venv is None or settings.dry_run:
            return
        from pytest_multihost_env import plan, probe
        from pytest_multihost_env.provision import ProvisionRequest, actor, ensure
        from pytest_multihost_env.report import progress

        if (inside := _inside(settings.venv)) is not None:
            _stay(config, inside)
            return
        made = plan.make(settings)
        _ = made.rules  # refused now, or after everything is made
        request = ProvisionRequest.from_settings(settings)
        builders = made.registry.builders.values()
        with progress.shown(f"making {settings.target} from {settings.venv}", _say) as meter:
            generation = ensure(request, notify=_say, builders=builders, progress=meter, user=actor.myself())
        marks = probe.announce(generation, settings.venv)
        if settings.no_reexec:
            _stay(config, generation.path)
    except MultihostError as error:
        raise usage(error) from None
    os.environ.update(marks)
    if settings.no_reexec:
        return
    if left := _left_behind(generation.path):
        _say(f"pytest now runs in the environment, which lacks these plugins of this one: {', '.join(left)}")
        _say("install them into SOURCE to use them")
    _become(generation.path, list(config.invocation_params.args))


def _stay(config: pytest.Config, environment: Path) -> None:
    """Keep the environment from being taken away while this process runs; its ranks end when it does."""
    from pytest_multihost_env.provision import stay

    config.stash[PINS] = pins = stay(environment, _say)
    pid = os.getpid()

    def release() -> None:
        for pin in pins if os.getpid() == pid else ():  # a child that a test has forked is not the job
            pin.release()

    config.add_cleanup(release)


def _say(text: str) -> None:
    print(f"multihost-env: {text}", file=sys.stderr, flush=True)


def _left_behind(prefix: Path) -> list[str]:
    """Return the installed pytest plugins that `prefix` lacks: their options are unknown there."""
    from importlib.metadata import entry_points

    names = {point.dist.name for point in entry_points(group="pytest11") if point.dist is not None}
    there = [path.name.lower() for path in prefix.glob("lib/python3*/site-packages/*.dist-info")]
    return sorted(
        name for name in names if not any(info.startswith(f"{name.lower().replace('-', '_')}-") for info in there)
    )


def _inside(source: Path) -> Path | None:
    """Return the environment made from `source` that this process runs in, or None."""
    from pytest_multihost_env import plan, probe

    made_from, generation = probe.active(os.environ)
    if generation is None or Path(made_from) != source or not plan.runs_inside(generation):
        return None
    return generation.path


def _become(prefix: Path, args: list[str]) -> NoReturn:
    """Become pytest; `-P` unless the user's way of starting pytest put the working directory on sys.path."""
    from pytest_multihost_env import plan

    safe = [] if Path(sys.argv[0]).name == "__main__.py" else ["-P"]
    plan.become(prefix, [*safe, "-m", "pytest", *args])
