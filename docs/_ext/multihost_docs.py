"""Directives that print the package's own tables, so that the reference cannot drift from the code."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pytest_multihost_env.config.table import SETTINGS, Setting
from pytest_multihost_env.environ.profiles import PROFILES, Profile


def _code(text: object) -> str:
    return f"`{text}`" if text not in ("", None) else ""


def _default(setting: Setting) -> str:
    value = setting.default
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return "off" if value is False else _code(f"{value:g}" if isinstance(value, float) else value)


def _definition(setting: Setting) -> list[str]:
    option = setting.option + (f"={setting.metavar}" if setting.metavar else "")
    facts = [f"file: `{setting.file_key or setting.name}`"]
    if not setting.only_file:
        facts.append(f"ini: `{setting.ini}`")
    if setting.everywhere:
        facts.append(f"variable: `{setting.variable}`")
    if setting.choices:
        facts.append("one of " + ", ".join(f"`{choice}`" for choice in setting.choices))
    if _default(setting):
        facts.append(f"default: {_default(setting)}")
    if setting.adds:
        facts.append("the layers add up")
    term = f"`{option}`" if setting.everywhere else f"`{setting.name}` (not an option)"
    sentence = setting.help[:1].upper() + setting.help[1:].rstrip(".") + "."
    return [term, f": {sentence}", "", "  " + "; ".join(facts) + ".", ""]


class SettingsDirective(SphinxDirective):
    """Print every setting with its option, file key, ini twin, variable and default."""

    def run(self) -> list[nodes.Node]:
        """Return the table as a definition list."""
        lines = [line for setting in SETTINGS for line in _definition(setting)]
        return self.parse_text_to_nodes("\n".join(lines))


def _profile(profile: Profile) -> list[str]:
    lines = [f"`{profile.name}`"]
    for label, names in (("passes", profile.passes), ("blocks", profile.blocks)):
        if names:
            lines += [f": {label} " + ", ".join(f"`{name}`" for name in names), ""]
    if profile.defaults:
        pairs = ", ".join(f"`{name}={value}`" for name, value in profile.defaults)
        lines += [f": with a rank binding, sets by default {pairs}", ""]
    return [*lines, ""]


class ProfilesDirective(SphinxDirective):
    """Print what each profile passes and blocks."""

    def run(self) -> list[nodes.Node]:
        """Return a definition list with an entry for each profile."""
        return self.parse_text_to_nodes("\n".join(line for one in PROFILES.values() for line in _profile(one)))


def command_group() -> str | None:
    """Return the command as sphinx-click finds it, `module:name`; None when this version has none."""
    name = "pytest_multihost_env.cli"
    if importlib.util.find_spec(name) is None:
        return None
    found = vars(importlib.import_module(name))
    return next(f"{name}:{key}" for key, value in found.items() if isinstance(value, click.Group))


class CommandDirective(SphinxDirective):
    """Print every subcommand with its options, from the real parser."""

    def run(self) -> list[nodes.Node]:
        """Return sphinx-click's sections."""
        group = command_group()
        if group is None:
            return self.parse_text_to_nodes("This version does not have it yet.")
        lines = ["```{eval-rst}", f".. click:: {group}", "   :prog: multihost-env", "   :nested: full", "```"]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def literal_stars(_app: Sphinx, _context: click.Context, lines: list[str]) -> None:
    """Keep a `*` in a help text from being taken for emphasis."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("multihost-settings", SettingsDirective)
    app.add_directive("multihost-profiles", ProfilesDirective)
    app.add_directive("multihost-command", CommandDirective)
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", literal_stars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
