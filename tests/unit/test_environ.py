"""The environment of a rank: what passes, what is blocked, and why."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_multihost_env import config, environ
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.launch import localcaches
from pytest_multihost_env.model import Place, RankEnv, Variable

IDENTITY = ("MULTIHOST_HOST", "MULTIHOST_LOCAL_RANK", "MULTIHOST_RANK", "MULTIHOST_WORLD_SIZE")

FILE = """
[environment]
unset = ["TT_GONE"]
pass = ["LOGURU_*"]
block = ["TT_DEBUG_*"]
set = { FROM_FILE = "file" }
[environment.hosts.n3]
set = { FROM_FILE = "host", UCX_NET_DEVICES = "mlx5_1:1" }
[environment.ranks.1]
set = { FROM_FILE = "rank" }
unset = ["LANG"]
"""


def env_of(
    launch: Mapping[str, str],
    *,
    rootdir: Path = Path("/nowhere"),
    prefix: Path | None = None,
    host: str = "n1",
    rank: int = 0,
    marker: Mapping[str, str | None] | None = None,
    size: int = 4,
    **options: object,
) -> RankEnv:
    ini = {"profiles": options.pop("profiles")} if "profiles" in options else {}
    rules = environ.Rules.from_settings(config.load(options, {}, ini, rootdir))
    env = environ.rank_env(rules, launch, prefix=prefix, spot=Place(rank, host, 0), size=size, marker=marker or {})
    assert env.values.keys() >= set(IDENTITY)
    others = tuple(one for one in env.variables if one.name not in IDENTITY or one.rule != "identity of the rank")
    return dataclasses.replace(env, variables=others)


def decision(env: RankEnv, name: str) -> Variable | None:
    return next((one for one in env.variables if one.name == name), None)


def test_variables_pass_by_prefix_and_near_misses_do_not() -> None:
    launch = {"TT_METAL_HOME": "/a b", "TTX": "1", "TTNN_CONFIG_OVERRIDES": "{}", "tt_lower": "1", "MY_TT_": "1"}
    assert env_of(launch).values.keys() & launch.keys() == {"TT_METAL_HOME", "TTNN_CONFIG_OVERRIDES"}
    passed = decision(env_of(launch), "TT_METAL_HOME")
    assert passed == Variable("TT_METAL_HOME", "/a b", "PASSED", "prefix TT_", "profile tenstorrent")


@pytest.mark.parametrize(
    "name",
    [
        "TT_MESH_ID",
        "TT_MESH_HOST_RANK",
        "TT_MESH_GRAPH_DESC_PATH",
        "TT_RUN_ORIGINAL_CWD",
        "TT_METAL_MOCK_CLUSTER_DESC_PATH",
        "TT_VISIBLE_DEVICES",
    ],
)
def test_what_belongs_to_one_rank_is_blocked_but_can_be_set(name: str) -> None:
    blocked = decision(env_of({name: "3"}), name)
    assert blocked == Variable(name, None, "BLOCKED", f"block {name}", "profile tenstorrent")
    assert env_of({name: "3"}, env=[f"{name}=4"]).values[name] == "4"
    assert env_of({name: "3"}, env=[name]).values[name] == "3"
    assert name not in env_of({name: "3"}, **{"pass": ["TT_"]}).values, "a wider prefix does not open it"


def test_the_prefixes_of_tenstorrent() -> None:
    assert environ.PROFILES["tenstorrent"].passes == ("TT_", "ARCH_", "WH_", "TTNN_", "DEEPSEEK_", "MESH_")


def test_without_profiles_nothing_of_theirs_passes() -> None:
    assert decision(env_of({"TT_A": "1", "NCCL_DEBUG": "INFO"}, profiles=["mpi"]), "TT_A") is None


@pytest.mark.parametrize("name", ["CI", "GITHUB_TOKEN", "RUNNER_OS", "ACTIONS_CACHE_URL", "HOSTNAME", "GITLAB_CI"])
def test_ci_variables_are_blocked_and_can_be_allowed(name: str) -> None:
    blocked = decision(env_of({name: "1"}), name)
    assert blocked is not None
    assert (blocked.value, blocked.status, blocked.origin) == (None, "BLOCKED", "profile ci")
    assert name not in env_of({name: "1"}, **{"pass": ["all:"]}).values
    assert env_of({name: "1"}, env=[name]).values[name] == "1"


def test_a_prefix_of_yours_opens_what_a_profile_blocks_as_exactly() -> None:
    launch = {"GITHUB_SHA": "1", "GITHUB_TOKEN": "2"}
    assert env_of(launch, **{"pass": ["GITHUB_"]}).values.keys() & launch.keys() == set(launch)
    some = env_of(launch, **{"pass": ["GITHUB_"], "block": ["GITHUB_*N"]})
    assert some.values.keys() & launch.keys() == {"GITHUB_SHA"}, "a block of yours always holds"


@pytest.mark.parametrize(
    "name",
    [
        "OMPI_COMM_WORLD_RANK",
        "PMI_RANK",
        "PMIX_RANK",
        "SLURM_PROCID",
        "PBS_JOBID",
        "MPI_LOCALRANKID",
        "HYDRA_IFACE",
        "TMPDIR",
        "CUDA_VISIBLE_DEVICES",
        "XDG_RUNTIME_DIR",
        "PRTE_MCA_x",
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RUN_ID",
    ],
)
def test_what_the_launcher_or_the_host_owns_is_never_forced(name: str) -> None:
    assert environ.launcher_owned(name)
    assert name not in env_of({name: "7"}).values
    assert name not in env_of({name: "7"}, **{"pass": ["all:", name[:3]]}).values
    assert env_of({name: "7"}, env=[name]).values[name] == "7"


@pytest.mark.parametrize("name", ["MPI4PY_RC_THREADS", "OMP_NUM_THREADS", "TMPDIRS", "UCX_TLS", "RANKS", "MASTER"])
def test_what_only_looks_owned_is_not(name: str) -> None:
    assert not environ.launcher_owned(name)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_AUDIT",
        "LD_BIND_NOT",
        "DYLD_INSERT_LIBRARIES",
        "GCONV_PATH",
        "GIT_SSH_COMMAND",
        "GIT_DIR",
        "NODE_OPTIONS",
        "PERL5LIB",
        "PERL5OPT",
        "PYTHONWARNINGS",
        "RUBYOPT",
        "BASH_ENV",
        "ENV",
        "PROMPT_COMMAND",
        "PYTHONSTARTUP",
        "PYTHONINSPECT",
        "PYTHONHOME",
        "BASH_FUNC_ls",
    ],
)
def test_what_can_run_code_passes_only_when_named_exactly(name: str) -> None:
    assert decision(env_of({name: "/x"}), name).status == "BLOCKED"
    for prefix in ("all:", name[:-1]):
        assert name not in env_of({name: "/x"}, **{"pass": [prefix]}).values
    assert env_of({name: "/x"}, **{"pass": [name]}).values[name] == "/x"
    assert env_of({name: "/x"}, env=[name]).values[name] == "/x"


def test_a_name_that_no_shell_takes_is_blocked() -> None:
    env = env_of({"BASH_FUNC_x%%": "() { :; }", "A.B": "1"}, **{"pass": ["all:"]})
    assert {one.name for one in env.variables if one.status == "BLOCKED"} >= {"BASH_FUNC_x%%", "A.B"}


def test_everything_passes_when_asked_in_words() -> None:
    env = env_of({"ANY": "1", "PWD": "/x", "_": "/y", "PYTEST_CURRENT_TEST": "t"}, **{"pass": ["all:"]})
    assert decision(env, "ANY") == Variable("ANY", "1", "PASSED", "all:", "option --multihost-pass")
    assert not env.values.keys() & {"PWD", "_", "PYTEST_CURRENT_TEST"}


@pytest.mark.parametrize("prefix", ["", "*", " "])
def test_a_prefix_that_would_pass_everything_is_refused(prefix: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        env_of({}, **{"pass": [prefix]})
    assert "all:" in (caught.value.hint or "")
    assert caught.value.where == "option --multihost-pass"


@pytest.mark.parametrize(
    "options",
    [
        {"pass": ["A*B"]},
        {"pass": ["1A"]},
        {"block": [""]},
        {"block": ["A=B"]},
        {"env": ["=x"]},
        {"env": ["A B=x"]},
        {"env": [""]},
    ],
)
def test_a_rule_that_is_none_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageProblem):
        env_of({}, **options)


def test_a_refused_assignment_does_not_show_its_value() -> None:
    with pytest.raises(UsageProblem) as caught:
        env_of({}, env=["HF-TOKEN=hunter2"])
    assert "HF-TOKEN" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_layers_of_the_file(special: Path) -> None:
    (special / "multihost-env.toml").write_text(FILE)
    launch = {"TT_GONE": "1", "TT_DEBUG_X": "1", "LOGURU_LEVEL": "INFO", "LANG": "C", "FROM_FILE": "shell"}
    first = env_of(launch, rootdir=special)
    assert decision(first, "TT_GONE") == Variable("TT_GONE", None, "UNSET", "unset for all ranks", "multihost-env.toml")
    assert decision(first, "TT_DEBUG_X").rule == "block TT_DEBUG_*"
    assert first.values["LOGURU_LEVEL"] == "INFO"
    assert (first.values["FROM_FILE"], first.values["LANG"]) == ("file", "C")
    assert env_of(launch, rootdir=special, env=["FROM_FILE=option"]).values["FROM_FILE"] == "option"
    third = env_of(launch, rootdir=special, host="n3.example.org", env=["FROM_FILE=option"])
    assert (third.values["FROM_FILE"], third.values["UCX_NET_DEVICES"]) == ("host", "mlx5_1:1")
    one = env_of(launch, rootdir=special, host="n3", rank=1)
    assert one.values["FROM_FILE"] == "rank"
    assert "LANG" not in one.values
    marked = env_of(launch, rootdir=special, host="n3", rank=1, marker={"FROM_FILE": "test"})
    assert decision(marked, "FROM_FILE") == Variable("FROM_FILE", "test", "SET", "env of the test", "marker")


def test_a_named_variable_that_the_shell_lacks_changes_nothing(special: Path) -> None:
    (special / "multihost-env.toml").write_text(FILE)
    env = env_of({}, rootdir=special, env=["FROM_FILE", "ABSENT"])
    assert env.values["FROM_FILE"] == "file"
    assert decision(env, "ABSENT").status == "UNSET"


def test_the_environment_comes_first_and_the_shells_own_is_gone() -> None:
    prefix = Path("/s/we ird'#ü/env")
    launch = {"PATH": "/old/bin:/usr/bin::/bin", "VIRTUAL_ENV": "/old", "HOME": "/h", "USER": "u"}
    values = env_of(launch, prefix=prefix).values
    assert values["PATH"] == f"{prefix}/bin:/usr/bin:/bin"
    assert values["VIRTUAL_ENV"] == str(prefix)
    assert values["PYTHONNOUSERSITE"] == "1"
    assert (values["HOME"], values["USER"]) == ("/h", "u")
    again = env_of({"PATH": values["PATH"], "VIRTUAL_ENV": str(prefix)}, prefix=prefix).values
    assert again["PATH"] == values["PATH"]


def test_without_an_environment_the_shell_decides() -> None:
    launch = {"PATH": "/old/bin:/bin", "VIRTUAL_ENV": "/old"}
    values = env_of(launch).values
    assert values == launch, "user site-packages may hold pytest itself"


def test_an_environment_that_path_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageProblem, match="colon"):
        env_of({}, prefix=Path("/a:b"))


def test_python_variables() -> None:
    values = env_of({"PATH": "/bin"}, prefix=Path("/e")).values
    assert not values.keys() & {"PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "HOME"}
    launch = {"PYTHONPATH": ":src", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONHOME": "/x"}
    assert {name: env_of(launch).values.get(name) for name in launch} == {**launch, "PYTHONHOME": None}
    assert env_of(launch, env=["PYTHONHOME"]).values["PYTHONHOME"] == "/x", "row 56: only when it was asked for"


@pytest.mark.parametrize(("old", "new"), [("/a:/b", "/a:/b"), (":/a::/b:", "/a:/b"), ("", None), (":", None)])
def test_library_path_keeps_its_order_without_empty_elements(old: str, new: str | None) -> None:
    assert env_of({"LD_LIBRARY_PATH": old}).values.get("LD_LIBRARY_PATH") == new


def test_empty_is_not_unset() -> None:
    values = env_of({"TT_EMPTY": "", "HOME": "", "LC_ALL": ""}, env=["SET_EMPTY="]).values
    assert (values["TT_EMPTY"], values["SET_EMPTY"], values["LC_ALL"]) == ("", "", "")
    assert "HOME" not in values


@pytest.mark.parametrize("value", ["a b", "a,b", "a=b", "'\"", "$HOME", "$(x)", ";", "a\nb", "ü€", "\udcff", "\\"])
def test_values_are_literal(value: str) -> None:
    assert env_of({"TT_V": value}, env=[f"W={value}"], marker={"M": value}).values.items() >= {
        ("TT_V", value),
        ("W", value),
        ("M", value),
    }


def test_one_value_that_is_too_large_is_named() -> None:
    fits = "x" * (128 * 1024 - len("BIG=") - 1)
    assert env_of({}, env=[f"BIG={fits}"]).values["BIG"] == fits
    with pytest.raises(UsageProblem) as caught:
        env_of({}, env=[f"BIG={fits}x"])
    assert caught.value.what.startswith("BIG has 131073 bytes")
    assert "xxx" not in str(caught.value)


def test_too_many_values_name_the_largest() -> None:
    launch = {f"TT_{number}": "ü" * 50_000 for number in range(16)} | {"TT_MOST": "ü" * 60_000}
    with pytest.raises(UsageProblem, match="the largest is TT_MOST with 120009"):
        env_of(launch)


def test_explain_shows_the_rule_and_hides_secrets() -> None:
    launch = {
        "HF_TOKEN": "hunter2",
        "TT_URL": "https://me:hunter2@h/x",
        "TT_TEXT": "ü\t\n",
        "GITHUB_SHA": "1",
        "PATH": "/bin",
    }
    rows = environ.explain(env_of(launch, profiles=["tenstorrent", "torch", "ci"]))
    assert rows == [
        ("GITHUB_SHA", "BLOCKED", "", "block GITHUB_*", "profile ci"),
        ("HF_TOKEN", "PASSED", "***", "prefix HF_", "profile torch"),
        ("PATH", "PASSED", "/bin", "managed: as in the launch shell", "built-in"),
        ("TT_TEXT", "PASSED", "ü\\t\\n", "prefix TT_", "profile tenstorrent"),
        ("TT_URL", "PASSED", "https://***@h/x", "prefix TT_", "profile tenstorrent"),
    ]


@pytest.mark.parametrize("name", ["A_TOKEN", "Secret", "DB_PASSWORD", "PASSWD", "AWS_ACCESS_KEY_ID", "CREDENTIALS"])
def test_names_of_secrets(name: str) -> None:
    assert environ.redact_names({name: "hunter2", "PLAIN": "x"}) == {name: "***", "PLAIN": "x"}


def test_no_profile_passes_what_is_never_automatic() -> None:
    for profile in environ.PROFILES.values():
        for prefix in profile.passes:
            assert not environ.launcher_owned(prefix + "X"), prefix
        for pattern in profile.blocks:
            assert fnmatch.fnmatchcase(pattern.replace("*", "X"), pattern)


def test_row_77_a_rank_knows_who_it_is_and_the_settings_may_say_otherwise() -> None:
    rules = environ.Rules.from_settings(config.load({}, {}, {}, Path("/nowhere")))

    def found(launch: Mapping[str, str], marker: Mapping[str, str]) -> dict[str, str]:
        env = environ.rank_env(rules, launch, prefix=None, spot=Place(5, "n2", 1), size=8, marker=marker)
        assert len({one.name for one in env.variables}) == len(env.variables)
        return {name: env.values[name] for name in IDENTITY}

    expected = dict(zip(IDENTITY, ("n2", "1", "5", "8"), strict=True))
    assert found({"MULTIHOST_RANK": "77"}, {}) == expected
    assert found({}, {"MULTIHOST_HOST": "mine"}) == {**expected, "MULTIHOST_HOST": "mine"}


def test_row_57_the_environments_libraries_stand_first_when_asked_for() -> None:
    def path(old: str | None, lib_first: bool = True) -> str | None:
        launch = {} if old is None else {"LD_LIBRARY_PATH": old}
        return env_of(launch, prefix=Path("/e"), **{"lib-first": lib_first}).values.get("LD_LIBRARY_PATH")

    assert path(None) == path("") == path(":") == "/e/lib"
    assert path("/a:/b") == path(":/a::/b:") == path("/e/lib:/a:/b") == "/e/lib:/a:/b"
    assert path("/a", lib_first=False) == "/a"
    assert path(None, lib_first=False) is None


def test_row_59_what_is_unset_is_said_to_the_rank_and_what_is_blocked_is_not() -> None:
    env = env_of({"GITHUB_SHA": "1", "TT_A": "1"}, marker={"TT_A": None, "TMPDIR": None})
    assert {name: env.changes.get(name, "not said") for name in ("TT_A", "TMPDIR", "GITHUB_SHA")} == {
        "TT_A": None,
        "TMPDIR": None,
        "GITHUB_SHA": "not said",
    }
    assert not env.values.keys() & {"TT_A", "TMPDIR", "GITHUB_SHA"}


def test_an_ini_list_with_an_empty_line_passes_nothing_more_row_52(special: Path) -> None:
    settings = config.load({}, {}, {"pass": "\nMINE_\n\n"}, special)
    assert settings.pass_ == ("MINE_",)
    assert environ.Rules.from_settings(settings).passing("OTHER") is None


@pytest.mark.parametrize(
    ("value", "own"),
    [
        ("/cache", "/cache/n2_rank_3"),
        ("/cache/", "/cache/n2_rank_3"),
        ("/it's #1 ü", "/it's #1 ü/n2_rank_3"),
        ("/cache/n2_rank_3", "/cache/n2_rank_3"),
        ("/cache/n1.example.org_rank_0", "/cache/n2_rank_3"),
        ("relative", "relative/n2_rank_3"),
        ("/dev/shm/x", "/dev/shm/x/n2_rank_3"),
        ("/home/etc", "/home/etc/n2_rank_3"),
        ("/my_rank_x", "/my_rank_x/n2_rank_3"),
    ],
)
def test_row_78_a_path_becomes_the_ranks_own_once(value: str, own: str) -> None:
    env = env_of({"TT_CACHE": value, "HF_HOME": "/shared"}, host="n2", rank=3, **{"rank-scoped": ["TT_CACHE", "UNSET"]})
    assert env.values["TT_CACHE"] == own
    assert env.values["HF_HOME"] == "/shared", "what was not named stays shared"
    assert "UNSET" not in env.values
    assert decision(env, "TT_CACHE") == Variable(
        "TT_CACHE", own, "SET", "rank-scoped; before: prefix TT_", "option --multihost-rank-scoped"
    )
    again = env_of(env.values, host="n2", rank=3, **{"rank-scoped": ["TT_CACHE"]})
    assert again.values["TT_CACHE"] == own, "not twice"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/", "root directory"),
        ("//", "root directory"),
        ("/n1_rank_0", "root directory"),
        ("/etc", "/etc belongs to the system"),
        ("/usr/lib/x", "/usr belongs to the system"),
        ("//proc/1", "/proc belongs to the system"),
        ("/dev", "/dev belongs to the system"),
        ("/cache/../etc", "contains .."),
        ("..", "contains .."),
    ],
)
def test_row_78_a_path_of_the_system_is_refused(value: str, words: str) -> None:
    with pytest.raises(UsageProblem, match=words) as caught:
        env_of({"TT_CACHE": value}, **{"rank-scoped": ["TT_CACHE"]})
    assert caught.value.where == "prefix TT_ (profile tenstorrent)"
    assert "option --multihost-rank-scoped" in (caught.value.hint or "")


def test_a_rank_scoped_name_that_is_none_is_refused() -> None:
    with pytest.raises(UsageProblem, match="'A=/x' is not a variable name"):
        env_of({}, **{"rank-scoped": ["A=/x"]})


def test_row_113_a_cache_of_the_host_hides_the_shells_and_gives_way_to_what_is_set_on_purpose() -> None:
    caches = {"local-caches": ["HF_HOME", "TORCH_HOME"]}
    env = env_of({"HF_HOME": "/shared", "TORCH_HOME": "/shared"}, **caches, env=["TORCH_HOME=/mine"])
    assert env.values["TORCH_HOME"] == "/mine"
    assert "HF_HOME" not in env.changes, "its value is known only on the host"
    assert env.order["caches"] == ["HF_HOME"]
    rows = {row[0]: row[1:] for row in environ.explain(env)}
    assert rows["HF_HOME"] == ("SET", environ.ON_HOST, "local-caches", "option --multihost-local-caches")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"local-caches": ["A-B"]}, "'A-B' is not a variable name"),
        ({"local-caches": ["A"], "rank-scoped": ["A"]}, "A stands in local-caches and in rank-scoped"),
        ({"local-caches": ["A"], "secrets": ["A"]}, "A stands in local-caches and in secrets"),
    ],
)
def test_row_113_a_name_that_cannot_be_a_cache_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        env_of({}, **options)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("nfs4", True),
        ("lustre", True),
        ("fuse.sshfs", True),
        ("ext4", False),
        ("tmpfs", False),
        ("fuse.fuse-overlayfs", False),
    ],
)
def test_row_113_which_storage_is_shared(kind: str, answer: bool) -> None:
    assert localcaches.shared(kind) is answer
