"""Rank bindings: what tt-run's files give each rank, how several come together, and how each mistake is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_multihost_env import config, environ
from pytest_multihost_env.config.binding import Binding, read
from pytest_multihost_env.config.expand import expand
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.model import Place, RankEnv, Variable

TWO = """
rank_bindings:
  - rank: 0
    mesh_id: 0
    mesh_host_rank: 0
    env_overrides:
      TT_VISIBLE_DEVICES: "0,1"
  - {rank: 1, mesh_id: 3, env_overrides: {TT_VISIBLE_DEVICES: "2,3", ONLY_1: "${HOME}/x"}}
global_env:
  GLOBAL: "all"
  TT_VISIBLE_DEVICES: "none"
mesh_graph_desc_path: graph.textproto
"""


def write(directory: Path, text: str, name: str = "b.yaml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    (directory / "graph.textproto").touch()
    return path


def env_of(launch: Mapping[str, str], binding: Binding, rank: int, rootdir: Path = Path("/nowhere")) -> RankEnv:
    rules = environ.Rules.from_settings(config.load({}, {}, {}, rootdir), binding)
    return environ.rank_env(rules, launch, prefix=None, spot=Place(rank, "n1", 0), size=2, marker={})


def refusal(directory: Path, *texts: str, launch: Mapping[str, str] | None = None) -> UsageProblem:
    paths = [write(directory, text, f"{number}.yaml") for number, text in enumerate(texts)]
    with pytest.raises(UsageProblem) as caught:
        read(paths, launch or {}, directory)
    assert caught.value.hint, "every refusal says what to do"
    return caught.value


def test_each_rank_gets_its_own(special: Path) -> None:
    launch = {"HOME": "/h", "TT_MESH_ID": "9"}
    binding = read([write(special, TWO)], launch, special)
    first, second = env_of(launch, binding, 0), env_of(launch, binding, 1)
    graph = str(special / "graph.textproto")
    assert first.values.items() >= {
        ("TT_MESH_ID", "0"),
        ("TT_MESH_HOST_RANK", "0"),
        ("TT_VISIBLE_DEVICES", "0,1"),
        ("TT_MESH_GRAPH_DESC_PATH", graph),
        ("GLOBAL", "all"),
    }
    assert second.values.items() >= {("TT_MESH_ID", "3"), ("TT_VISIBLE_DEVICES", "2,3"), ("ONLY_1", "/h/x")}
    assert "TT_MESH_HOST_RANK" not in second.values
    assert "ONLY_1" not in first.values


def test_every_value_says_which_line_of_which_file_gave_it(special: Path) -> None:
    path = write(special, TWO)
    found = {one.name: one for one in env_of({}, read([path], {"HOME": "/h"}, special), 1).variables}
    assert found["TT_MESH_ID"] == Variable("TT_MESH_ID", "3", "SET", "rank binding", "b.yaml:8")
    assert found["GLOBAL"] == Variable("GLOBAL", "all", "SET", "global_env", "b.yaml:10")
    assert found["ONLY_1"] == Variable("ONLY_1", "/h/x", "SET", "env_overrides", "b.yaml:8")


def test_row_54_the_precedence_of_tt_run(special: Path) -> None:
    """Passed, managed, global_env, env_overrides: of any two the later one."""
    layers = ("passed", "managed", "global_env", "env_overrides")
    for weaker, stronger in ((w, s) for at, w in enumerate(layers) for s in layers[at + 1 :]):
        both = {weaker, stronger}
        graph = special / "managed"
        graph.touch()
        text = "rank_bindings: [{rank: 0"
        text += ", env_overrides: {TT_MESH_GRAPH_DESC_PATH: env_overrides}}]" if "env_overrides" in both else "}]"
        text += "\nglobal_env: {TT_MESH_GRAPH_DESC_PATH: global_env}" if "global_env" in both else ""
        text += f'\nmesh_graph_desc_path: "{graph}"' if "managed" in both else ""
        launch = {"TT_MESH_GRAPH_DESC_PATH": "passed"} if "passed" in both else {}
        value = env_of(launch, read([write(special, text)], launch, special), 0).values["TT_MESH_GRAPH_DESC_PATH"]
        assert value == (str(graph) if stronger == "managed" else stronger), both


def test_the_file_of_settings_stands_between_global_env_and_env_overrides(special: Path) -> None:
    (special / "multihost-env.toml").write_text(
        '[environment.set]\nGLOBAL = "set"\n[environment.hosts.n1.set]\nA = "host"\n'
        '[environment.ranks.0.set]\nA = "rank"\nB = "rank"\n'
    )
    text = "rank_bindings: [{rank: 0, env_overrides: {B: o}}]\nglobal_env: {GLOBAL: g, A: g}"
    values = env_of({}, read([write(special, text)], {}, special), 0, special).values
    assert (values["GLOBAL"], values["A"], values["B"]) == ("g", "rank", "o")


def test_what_tt_run_manages_has_its_defaults_and_gives_way_to_the_shell(special: Path) -> None:
    binding = read([write(special, "rank_bindings: [{rank: 0}]")], {}, special)
    values = env_of({}, binding, 0).values
    expected = {
        "TT_METAL_HOME": str(special),
        "TT_METAL_RUNTIME_ROOT": str(special),
        "PYTHONPATH": str(special),
        "LD_LIBRARY_PATH": f"{special}/build/lib",
        "TT_RUN_ORIGINAL_CWD": str(special),
    }
    assert {name: values.get(name) for name in expected} == expected
    shell = {"TT_METAL_HOME": "/m", "LD_LIBRARY_PATH": "/l", "PYTHONPATH": "/p", "TT_RUN_ORIGINAL_CWD": "/foreign"}
    values = env_of(shell, binding, 0).values
    assert {name: values[name] for name in expected} == {
        **shell,
        "TT_METAL_RUNTIME_ROOT": "/m",
        "TT_RUN_ORIGINAL_CWD": str(special),
    }
    assert not env_of({}, Binding(), 0).values.keys() & expected.keys(), "without a binding nobody asked for them"


def test_null_means_unset_row_73(special: Path) -> None:
    text = "rank_bindings: [{rank: 0, env_overrides: {TT_GONE: null, TT_GONE_TOO: }}]\nglobal_env:"
    env = env_of({"TT_GONE": "1", "TT_GONE_TOO": "1"}, read([write(special, text)], {}, special), 0)
    assert {one.name: one.status for one in env.variables}.items() >= {("TT_GONE", "UNSET"), ("TT_GONE_TOO", "UNSET")}
    assert not env.values.keys() & {"TT_GONE", "TT_GONE_TOO"}


def test_files_are_merged_by_key(special: Path) -> None:
    first = write(special, "rank_bindings: [{rank: 1, env_overrides: {A: '1', B: '2'}}]\nglobal_env: {G: g}", "1.yaml")
    second = write(special, "rank_bindings: [{rank: 0}, {rank: 1, env_overrides: {B: '2', C: '3'}}]", "2.yaml")
    third = write(special, "global_env: {G: g, H: h}", "3.yaml")
    values = env_of({}, read([first, second, third], {}, special), 1).values
    assert [values[name] for name in "ABCGH"] == ["1", "2", "3", "g", "h"]


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        ("global_env: {A: secret-one}", "global_env: {A: secret-two}", "global_env.A"),
        ("global_env: {A: secret-one}", "global_env: {A: null}", "global_env.A"),
        (
            "rank_bindings: [{rank: 0, env_overrides: {A: secret-one}}]",
            "rank_bindings: [{rank: 0, env_overrides: {A: secret-two}}]",
            "rank 0: env_overrides.A",
        ),
        ("rank_bindings: [{rank: 0, mesh_id: 0}]", "rank_bindings: [{rank: 0, mesh_id: 1}]", "rank 0: mesh_id"),
    ],
)
def test_two_files_that_disagree_are_refused_by_key(special: Path, one: str, other: str, key: str) -> None:
    problem = refusal(special, f"# a line\n{one}", other)
    assert problem.what == f"{key} has two values"
    assert problem.where == "0.yaml:2 and 1.yaml:1"
    assert "secret" not in str(problem)


@pytest.mark.parametrize(
    ("text", "what", "line"),
    [
        ("rank_bindings: []", "rank_bindings has no rank", None),
        ("global_env: {}", "rank_bindings has no rank", None),
        ("rank_bindings: [{rank: 1}]", "rank_bindings has rank 1 and no rank 0", None),
        ("rank_bindings: [{rank: 0}, {rank: 2}]", "rank_bindings has rank 2 and no rank 1", None),
        ("rank_bindings:\n- rank: 0\n- rank: 0", "rank_bindings[1]: rank 0 stands there twice", 3),
        ("rank_bindings:\n- mesh_id: 0", "rank_bindings[0] has no rank", 2),
        ("rank_bindings:\n- rank:", "rank_bindings[0] has no rank", 2),
        ("rank_bindings:\n- rank: -1", "rank_bindings[0].rank is -1", 2),
        ("rank_bindings:\n- rank: '0'", "rank_bindings[0].rank is of type string", 2),
        ("rank_bindings:\n- rank: true", "rank_bindings[0].rank is of type boolean", 2),
        ("rank_bindings:\n- 0", "rank_bindings[0] is of type integer", 2),
        ("rank_bindings:\n  0: {}", "rank_bindings is of type mapping", 2),
        ("rank_bindings:\n- rank: 0\n  mesh_id: 1.5", "rank_bindings[0].mesh_id is of type float", 3),
        ("rank_bindings:\n- rank: 0\n  mesh_ID: 1", "unknown key rank_bindings[0].mesh_ID", 3),
        ("global-env: {}", "unknown key global-env", 1),
        ("global_env: {A: 1}", "global_env.A is of type integer", 1),
        ("global_env:\n  A: yes", "global_env.A is of type boolean", 2),
        ("global_env:\n  A: 2026-01-01", "global_env.A is of type date", 2),
        ("global_env:\n  A: [x]", "global_env.A is of type sequence", 2),
        ("global_env:\n  A: {x: y}", "global_env.A is of type mapping", 2),
        ("global_env:\n  1: x", "a key of global_env is of type integer", 2),
        ("global_env:\n  A-B: x", "global_env has 'A-B', which is not a variable name", 2),
        ("global_env:\n  A: x\n  A: x", "global_env.A stands there twice", 3),
        ('global_env:\n  A: "\\0"', "global_env.A contains a NUL", 2),
        ("global_env: [A]", "global_env is of type sequence", 1),
        ("mesh_graph_desc_path: nowhere.textproto", "mesh_graph_desc_path names a file that does not exist", 1),
        ("mesh_graph_desc_path: 7", "mesh_graph_desc_path is of type integer", 1),
        ("", "the file is of type null", None),
        ("- a", "the file is of type sequence", 1),
        ("a: b\n c: [", "the file is not YAML: ", 2),
        ("a: 1\n---\nb: 2", "the file is not YAML: ", 2),
        ("global_env: !!python/object/apply:os.system [echo]", "global_env is of type ", 1),
        ("global_env: {A: !!python/name:os.system x}", "global_env.A is of type ", 1),
        ("a: &a [*a, *a]", "unknown key a", 1),
        ("global_env: {A: !!int x}", "global_env.A is of type integer", 1),
        ("global_env:\n  A: 2026-02-31", "global_env.A is of type date", 2),
        ("global_env: {<<: 5}", "global_env.<< is of type", 1),
        ("global_env: {<<: {[a]: b}}", "a key of global_env is of type sequence", 1),
        ("rank_bindings: [{<<: {rnak: 0}, rank: 0}]", "unknown key rank_bindings[0].rnak", 1),
        ("[" * 5000, "the file is nested too deeply", None),
    ],
)
def test_a_mistake_names_key_file_and_line(special: Path, text: str, what: str, line: int | None) -> None:
    problem = refusal(special, text)
    assert problem.what.startswith(what)
    assert problem.where in ([f"0.yaml:{line}"] if line else ["0.yaml", str(special / "0.yaml")])


def test_a_file_that_cannot_be_read_is_refused(special: Path) -> None:
    (special / "latin.yaml").write_bytes(b"global_env: {A: \xe4}")
    for name, words in (("gone.yaml", "No such file"), ("latin.yaml", "UTF-8"), (".", "Is a directory")):
        with pytest.raises(UsageProblem, match=words) as caught:
            read([special / name], {}, special)
        assert caught.value.where == name


def test_a_merge_key_of_yaml_is_understood(special: Path) -> None:
    text = (
        "rank_bindings:\n- {rank: 0, env_overrides: &base {A: a, B: b}}\n- {rank: 1, env_overrides: {<<: *base, B: c}}"
    )
    values = env_of({}, read([write(special, text)], {}, special), 1).values
    assert (values["A"], values["B"]) == ("a", "c")


def test_a_mapping_that_merges_may_be_used_twice(special: Path) -> None:
    text = (
        "rank_bindings:\n- {rank: 0, env_overrides: &all {<<: {A: a, B: b}, B: own}}\n- {rank: 1, env_overrides: *all}"
    )
    values = env_of({}, read([write(special, text)], {}, special), 1).values
    assert (values["A"], values["B"]) == ("a", "own")


def test_the_graph_is_looked_up_where_tt_run_does(special: Path) -> None:
    home, cwd = special / "metal", special / "cwd"
    for directory in (home, cwd):
        directory.mkdir()
        (directory / "g").touch()
    text = "rank_bindings: [{rank: 0}, {rank: 1, mesh_graph_desc_path: own}]\nmesh_graph_desc_path: g"
    (cwd / "own").touch()
    path = write(special, text)
    name = "TT_MESH_GRAPH_DESC_PATH"
    launch = {"TT_METAL_HOME": str(home)}
    assert env_of({}, read([path], {}, cwd), 0).values[name] == str(cwd / "g")
    binding = read([path], launch, cwd)
    assert [env_of({}, binding, rank).values[name] for rank in (0, 1)] == [str(home / "g"), str(cwd / "own")]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "a b"),
        ("${A}", "a b"),
        ("x${A}y$A", "x" + "a by" + "a b"),
        ("$$A", "$A"),
        ("$$$A", "$a b"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${NONE:-}", ""),
        ("${NONE:-/p/$x{y}", "/p/$x{y"),
        ("${A:-d}", "a b"),
        ("$D", "$A"),
        ("no dollar", "no dollar"),
    ],
)
def test_row_60_expansion(text: str, value: str) -> None:
    assert expand(text, {"A": "a b", "EMPTY": "", "D": "$A"}, key="k", where="w") == value


@pytest.mark.parametrize("text", ["$", "a$", "${", "${}", "${A", "${A-b}", "$(A)", "$1", "${A:+b}"])
def test_a_dollar_that_belongs_to_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="k has a \\$") as caught:
        expand(text, {"A": "a"}, key="k", where="w")
    assert "$$" in str(caught.value.hint)


def test_an_undefined_variable_names_itself_and_the_key(special: Path) -> None:
    problem = refusal(special, "rank_bindings:\n- rank: 0\n  env_overrides:\n    CACHE: ${SCRATCH}/x")
    assert problem.what == "rank_bindings[0].env_overrides.CACHE uses SCRATCH, which is not set"
    assert problem.where == "0.yaml:4"
