"""Reads an `environment.yml`: channels, conda packages, and the part for pip; each mistake is named with its line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_multihost_env.config.yamlfile import YamlFile
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.provision import requirements
from pytest_multihost_env.provision.requirements import Line, Listed

if TYPE_CHECKING:
    import yaml

KEYS = ("name", "channels", "dependencies", "prefix", "variables")

_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
_SPEC, _NAME = "a package and perhaps its version, in quotes", "a name or a URL"


@dataclasses.dataclass(frozen=True, slots=True)
class CondaEnvironment:
    """What the file asks for.

    Attributes:
        channels: Where packages come from, strongest first.
        packages: Match specifications, each with the file and line where it stands.
        pip: Lines of a requirements file.
        listed: What these lines say.
    """

    channels: tuple[str, ...]
    packages: tuple[tuple[str, str], ...]
    pip: tuple[str, ...]
    listed: Listed


def read(path: Path) -> CondaEnvironment:
    """Return what the file says.

    Raises:
        UsageProblem: It cannot be read, or cannot be used.
    """
    file = YamlFile(path.absolute(), Path("/nowhere"))
    top = file.mapping(file.root, "the file", KEYS)
    if "variables" in top:
        raise UsageProblem(
            "variables are set by activating with conda, which nobody does here",
            where=file.at(top["variables"]),
            hint="set them for the ranks instead: [tool.multihost-env.environment] set = { NAME = 'value' }",
        )
    channels = [
        channel
        for node in (file.sequence(top["channels"], "channels") if "channels" in top else ())
        for channel in _channel(_text(file, node, "channels", _NAME), file.at(node), path)
    ]
    if not channels:
        raise UsageProblem(
            "there are no channels", where=str(path), expected="channels: [conda-forge]", hint="name one"
        )
    packages, pip = _dependencies(file, file.sequence(top.get("dependencies"), "dependencies"), path)
    listed = requirements.check(pip)
    return CondaEnvironment(tuple(channels), tuple(packages), tuple(line.text for line in pip), listed)


def _dependencies(file: YamlFile, nodes: list[yaml.Node], path: Path) -> tuple[list[tuple[str, str]], list[Line]]:
    packages: list[tuple[str, str]] = []
    pip: list[Line] = []
    for node in nodes:
        if node.tag.endswith(":map"):
            part = file.mapping(node, "dependencies", ("pip",))
            for item in file.sequence(part.get("pip"), "dependencies.pip"):
                text = _text(file, item, "dependencies.pip", "a requirement, in quotes")
                pip.append(Line(path.absolute(), item.start_mark.line + 1, text.strip()))
        else:
            packages.append((_text(file, node, "dependencies", _SPEC), file.at(node)))
    return packages, pip


def _text(file: YamlFile, node: yaml.Node, key: str, expected: str) -> str:
    value = file.scalar(node, key, str, expected)
    if not isinstance(value, str) or not value.strip():
        raise file.wrong(node, key, expected)
    return value.strip()


def _channel(name: str, where: str, path: Path) -> tuple[str, ...]:
    """Return the URLs or names that rattler knows for a channel as conda knows it."""
    if re.search(r"\$\{?\w", name):
        raise UsageProblem(
            f"{name} stands for a variable, and a build is given none of yours", where=where, hint="write it out"
        )
    if name == "nodefaults":
        return ()
    if name == "defaults":
        return _DEFAULTS
    if name.startswith(("./", "../", "/")):
        return ((path.absolute().parent / name).resolve().as_uri(),)
    return (name,)
