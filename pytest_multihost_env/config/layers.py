"""Option, variable, ini and file become one `Settings`; the strongest layer that says something wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_multihost_env.config import file
from pytest_multihost_env.config.convert import Source, convert
from pytest_multihost_env.config.settings import Item, Settings
from pytest_multihost_env.config.table import BY_NAME, SETTINGS, Setting


@dataclasses.dataclass(frozen=True, slots=True)
class _Layers:
    """Everything that can give a setting a value, and what relative paths are relative to."""

    options: Mapping[str, object]
    environ: Mapping[str, str]
    ini: Mapping[str, object]
    file: file.FileLayer
    rootdir: Path
    cwd: Path

    def candidates(self, setting: Setting) -> Iterator[tuple[object, Source]]:
        """Yield what each layer says about `setting`, strongest first, and where it says so."""
        home = self.environ.get("HOME") or None
        name = setting.name
        if setting.everywhere:
            base = self.rootdir if name == "target" else self.cwd
            yield self.options.get(name), Source(f"option {setting.option}", name, base, home)
            text = self.environ.get(setting.variable) or None
            yield text, Source(f"variable {setting.variable}", name, self.rootdir, home)
        if not setting.only_file:
            yield self.ini.get(name), Source(f"ini {setting.ini}", name, self.rootdir, home)
        if name in self.file.values:
            value = self.file.values[name]
            yield value.raw, Source(value.origin, setting.file_key or name, self.rootdir, home, typed=True)


def load(
    options: Mapping[str, object],
    environ: Mapping[str, str],
    ini: Mapping[str, object],
    rootdir: Path,
    config_file: Path | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Return the settings: option > variable > ini > file > default.

    Args:
        options: Values of command-line options by setting name (`launcher-args`); None: not given.
        environ: The environment of this process; an empty `MULTIHOST_ENV_...` counts as not set.
        ini: Values of the pytest ini twins by setting name; None: not given.
        rootdir: Absolute; where the files are found and what relative paths are relative to.
        config_file: Read only this file; relative to `cwd`.
        cwd: Relative paths of options are relative to it (but for `target`); default `rootdir`.

    Raises:
        UsageProblem: A value, or the file, cannot be acted on; it names the layer and the key.
        KeyError: `options` or `ini` has a name that is no setting.
    """
    for name in (*options, *ini):
        if name not in BY_NAME:
            raise KeyError(name)
    here = cwd or rootdir
    layer = file.read(rootdir, here / config_file if config_file is not None else None)
    layers = _Layers(options, environ, ini, layer, rootdir, here)
    values: dict[str, Any] = {}
    items: dict[str, tuple[Item, ...]] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        given = [
            (convert(setting, raw, source), source.origin)
            for raw, source in layers.candidates(setting)
            if raw is not None
        ]
        if setting.adds:
            items[setting.name] = _all_items(given)
            values[setting.attribute] = tuple(item.value for item in items[setting.name])
            origins[setting.name] = ", ".join(origin for _, origin in given) or "default"
        else:
            values[setting.attribute], origins[setting.name] = given[0] if given else _default(setting, rootdir)
    return Settings(rootdir=rootdir, environment=layer.environment, items=items, origins=origins, **values)


def _all_items(given: list[tuple[Any, str]]) -> tuple[Item, ...]:
    return tuple(Item(value, origin) for values, origin in reversed(given) for value in values)


def _default(setting: Setting, rootdir: Path) -> tuple[object, str]:
    default = setting.default
    return (rootdir / default if setting.kind == "path" and isinstance(default, str) else default), "default"
