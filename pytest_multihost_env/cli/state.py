"""What every subcommand shares: the global options, the settings, and options made from the table of settings."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pytest_multihost_env.config.table import BY_NAME, Setting

if TYPE_CHECKING:
    from pytest_multihost_env.config import Settings

F = TypeVar("F", bound=Callable[..., Any])

_FILES = ("multihost-env.toml", "pyproject.toml")


class Named(click.Path):
    """A path that has a name: "" comes of a shell's variable that is not set, and would mean the current directory."""

    name = "path"

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return `value` as a path."""
        if not os.fspath(value):
            self.fail("it is empty; is the variable set that it comes from?", param, ctx)
        return super().convert(value, param, ctx)


PATH = Named(path_type=Path)


@dataclasses.dataclass
class State:
    """The global options of one call, and all of its words as they were typed."""

    config: Path | None = None
    verbose: bool = False
    words: tuple[str, ...] = ()


def _remember_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(State).config = value


def _remember_verbose(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(State).verbose = True


def common(function: F) -> F:
    """Add `--config` and `-v`, which may stand before and after the subcommand's name."""
    verbose = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_remember_verbose,
        help="Say more, and show where an error came from.",
    )
    config = click.option(
        "--config",
        type=PATH,
        metavar="FILE",
        expose_value=False,
        callback=_remember_config,
        help="Read only this configuration file; relative paths in it are relative to it.",
    )
    return config(verbose(function))


as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of text.")


def settings_options(*names: str) -> Callable[[F], F]:
    """Add an option for each of these settings, without the prefix that it has in pytest."""

    def add(function: F) -> F:
        for name in reversed(names):
            function = _option(BY_NAME[name])(function)
        return function

    return add


def _option(setting: Setting) -> Callable[[F], F]:
    text = setting.help[:1].upper() + setting.help[1:] + "."
    declared = (f"--{setting.name}", setting.attribute)
    if setting.kind == "bool":
        return click.option(*declared, is_flag=True, default=None, help=text)
    return click.option(*declared, metavar=setting.metavar, multiple=setting.repeatable, help=text)


def load(given: dict[str, Any]) -> Settings:
    """Return the settings: option > variable > file > default.

    Args:
        given: Values of options by the names of their attributes (`launcher_args`); None and (): not given.

    Raises:
        UsageProblem: A value, or the file, cannot be acted on.
    """
    from pytest_multihost_env import config

    state = click.get_current_context().ensure_object(State)
    by_attribute = {setting.attribute: setting.name for setting in BY_NAME.values()}
    options: dict[str, object] = {}
    for attribute, value in given.items():
        if value not in (None, ()):
            options[by_attribute[attribute]] = list(value) if isinstance(value, tuple) else value
    here = Path.cwd()
    root = here if state.config is None else (here / state.config).absolute().parent
    if state.config is None:
        root = project_of(here)
    settings = config.load(options, os.environ, {}, root, config_file=state.config, cwd=here)
    if state.config is not None and settings.origin("target") == "default":
        # A file from elsewhere shall not decide where things are written without saying so.
        return dataclasses.replace(settings, target=here / settings.target.name)
    return settings


def project_of(directory: Path) -> Path:
    """Return `directory` or the nearest one above that has a configuration of ours; else `directory`."""
    for candidate in (directory, *directory.parents):
        for name in _FILES:
            try:
                text = (candidate / name).read_bytes()
            except OSError:
                continue
            if name == _FILES[0] or b"[tool.multihost-env" in text:
                return candidate
    return directory


def in_our_words(text: str, command: click.Command | None) -> str:
    """Return `text` with pytest's names of settings replaced by the names of this command's own options.

    The stages speak of `--multihost-hosts`; whoever typed `multihost-env hosts` knows it as `--hosts`.
    """
    known = {name for parameter in command.params for name in parameter.opts} if command is not None else set()

    def ours(match: re.Match[str]) -> str:
        name = f"--{match[1]}"
        return name if name in known else match[0]

    return re.sub(r"--multihost-([a-z]+(?:-[a-z]+)*)", ours, text)


def spoken(text: str) -> str:
    """Return `text` in the words of the command that runs."""
    return in_our_words(text, click.get_current_context().command)
