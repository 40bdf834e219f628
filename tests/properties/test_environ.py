"""Laws of settings and environment: of any two layers the stronger wins, and blocking touches only the automatic one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env import config, environ
from pytest_multihost_env.model import Place, RankEnv

NOWHERE = Path("/nowhere")
SPOT = Place(0, "n1", 0)
LAYERS = ("shell", "file", "variable", "option", "host", "rank", "marker")
ORIGINS = {
    "file": "multihost-env.toml",
    "host": "multihost-env.toml",
    "rank": "multihost-env.toml",
    "variable": "variable MULTIHOST_ENV_ENV",
    "option": "option --multihost-env",
    "marker": "marker",
    "shell": "profile tenstorrent",
}
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,7}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def env_from(layers: set[str], name: str, block: str | None = None) -> RankEnv:
    """Return a rank's environment in which each of `layers` sets `name` to its own name."""
    tables = []
    if block:
        tables.append(f'[environment]\nblock = ["{block}"]')
    for layer, table in (("file", "environment"), ("host", "environment.hosts.n1"), ("rank", "environment.ranks.0")):
        if layer in layers:
            tables.append(f'[{table}.set]\n{name} = "{layer}"')
    with tempfile.TemporaryDirectory() as directory:
        rootdir = Path(directory)
        (rootdir / "multihost-env.toml").write_text("\n".join(tables))
        options = {"env": [f"{name}=option"]} if "option" in layers else {}
        variables = {"MULTIHOST_ENV_ENV": f"{name}=variable"} if "variable" in layers else {}
        settings = config.load(options, variables, {}, rootdir)
    return environ.rank_env(
        environ.Rules.from_settings(settings),
        {name: "shell"} if "shell" in layers else {},
        prefix=NOWHERE,
        spot=SPOT,
        size=1,
        marker={name: "marker"} if "marker" in layers else {},
    )


@given(st.sets(st.sampled_from(LAYERS), min_size=1))
def test_the_strongest_layer_wins(layers: set[str]) -> None:
    strongest = max(layers, key=LAYERS.index)
    env = env_from(layers, "TT_V")
    assert env.values["TT_V"] == strongest
    assert next(one.origin for one in env.variables if one.name == "TT_V") == ORIGINS[strongest]


@given(st.sets(st.sampled_from(LAYERS[1:]), min_size=1), st.sampled_from(["PATH", "VIRTUAL_ENV", "PYTHONNOUSERSITE"]))
def test_every_configured_layer_beats_the_managed_one(layers: set[str], name: str) -> None:
    assert env_from(layers, name).values[name] == max(layers, key=LAYERS.index)
    assert env_from({"shell"}, name).values[name] != "shell"


@given(st.sets(st.sampled_from(LAYERS), min_size=1), st.sampled_from(["TT_V", "TT_*", "T*", "*"]))
def test_blocking_limits_only_the_automatic_layer(layers: set[str], block: str) -> None:
    values = env_from(layers, "TT_V", block).values
    assert values.get("TT_V") == max(layers - {"shell"}, key=LAYERS.index, default=None)


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.dictionaries(NAMES, VALUES, max_size=6))
def test_every_variable_has_one_decision_and_values_are_never_changed(
    launch: dict[str, str], marker: dict[str, str]
) -> None:
    settings = config.load({"pass": ["all:"]}, {}, {}, NOWHERE)
    env = environ.rank_env(environ.Rules.from_settings(settings), launch, prefix=None, spot=SPOT, size=1, marker=marker)
    names = [one.name for one in env.variables]
    assert names == sorted(set(names))
    assert {name: env.values[name] for name in marker} == marker
    for one in env.variables:
        assert (one.value is None) == (one.status in ("BLOCKED", "UNSET"))
        if one.rule == "identity of the rank" or one.name in ("PATH", "LD_LIBRARY_PATH"):
            continue
        if one.name not in marker and one.value is not None:
            assert one.value == launch[one.name]
    assert set(launch) - {"_", "PWD"} <= {*names, "HOME", "USER"}


SETTING_LAYERS = ("default", "file", "ini", "variable", "option")


@given(st.sets(st.sampled_from(SETTING_LAYERS[1:])), st.sampled_from(["venv", "hosts", "launcher", "launcher-args"]))
def test_of_any_layers_that_give_a_setting_the_strongest_wins(layers: set[str], name: str) -> None:
    setting = config.BY_NAME[name]
    with tempfile.TemporaryDirectory() as directory:
        rootdir = Path(directory)
        if "file" in layers:
            (rootdir / "pyproject.toml").write_text(f'[tool.multihost-env]\n{name} = "/file"')
        settings = config.load(
            {name: "/option" if "option" in layers else None},
            {setting.variable: "/variable"} if "variable" in layers else {},
            {name: "/ini" if "ini" in layers else None},
            rootdir,
        )
    strongest = max(layers, key=SETTING_LAYERS.index, default="default")
    if strongest == "default":
        assert settings.origin(name) == "default"
        return
    value = getattr(settings, setting.attribute)
    assert (value[0] if isinstance(value, tuple) else str(value)) == f"/{strongest}"
    assert settings.origin(name).startswith("pyproject.toml" if strongest == "file" else strongest)


@given(NAMES, VALUES)
def test_a_value_named_on_the_command_line_arrives_literally(name: str, value: str) -> None:
    settings = config.load({"env": [f"{name}={value}"]}, {}, {}, NOWHERE)
    env = environ.rank_env(environ.Rules.from_settings(settings), {}, prefix=None, spot=SPOT, size=1, marker={})
    assert env.values[name] == value
