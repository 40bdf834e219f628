"""Settings: which layer wins, what each layer may say, and errors that name the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_multihost_env import config
from pytest_multihost_env.environ import PROFILES
from pytest_multihost_env.errors import UsageProblem


def write(rootdir: Path, text: str, name: str = "pyproject.toml") -> Path:
    path = rootdir / name
    path.write_text(("[tool.multihost-env]\n" if name == "pyproject.toml" else "") + text, encoding="utf-8")
    return path


def refusal(rootdir: Path, **given: object) -> UsageProblem:
    arguments = {"options": {}, "environ": {}, "ini": {}, "rootdir": rootdir, **given}
    with pytest.raises(UsageProblem) as caught:
        config.load(**arguments)
    assert caught.value.hint, "every refusal says what to do"
    return caught.value


def test_without_any_layer_the_defaults_hold(special: Path) -> None:
    settings = config.load({}, {}, {}, special)
    assert settings.target == special / "python_env"
    assert (settings.venv, settings.hosts, settings.launcher, settings.timeout) == (None, None, "auto", 300.0)
    assert settings.profiles == ("tenstorrent", "torch", "mpi", "ci")
    assert (settings.check, settings.strict, settings.ranks) == (None, False, None)
    assert {settings.origin(setting.name) for setting in config.SETTINGS} == {"default"}


def test_an_unknown_setting_has_no_origin(special: Path) -> None:
    with pytest.raises(KeyError):
        config.load({}, {}, {}, special).origin("vnev")


def test_the_profiles_of_the_table_are_the_profiles_there_are() -> None:
    assert set(config.ALL_PROFILES) == set(PROFILES)


def test_every_name_of_a_setting_is_its_own() -> None:
    for names in ("name", "attribute", "option", "variable", "ini"):
        assert len({getattr(setting, names) for setting in config.SETTINGS}) == len(config.SETTINGS)
    assert config.BY_NAME["no-reexec"].option == "--multihost-no-reexec"
    assert config.BY_NAME["no-reexec"].variable == "MULTIHOST_ENV_NO_REEXEC"
    assert config.BY_NAME["pass"].attribute == "pass_"


SAMPLES = {
    "venv": ("/opt/ä b", Path("/opt/ä b")),
    "target": ("/s#ü", Path("/s#ü")),
    "allow-outside": ("my-project, B", ("my-project", "B")),
    "verify": ("content", "content"),
    "group": ("gpu", "gpu"),
    "umask": ("007", "007"),
    "owners": ("ada, 1002", ("ada", "1002")),
    "hosts": ("n[1-2]:8", "n[1-2]:8"),
    "hostfile": ("/h 'x'", Path("/h 'x'")),
    "launcher": ("ssh", "ssh"),
    "python": ("3.12", "3.12"),
    "requirements": ("/a b.txt\n/c.txt", (Path("/a b.txt"), Path("/c.txt"))),
    "launcher-args": ("-x 'a b'", ("-x", "a b")),
    "ranks": ("3", 3),
    "host-timeout": ("30", 30.0),
    "timeout": ("2.5", 2.5),
    "rank-binding": ("/a b.yaml\n/c,d.yaml", (Path("/a b.yaml"), Path("/c,d.yaml"))),
    "dotenv": ("/a b/.env", Path("/a b/.env")),
    "secrets": ("HF_TOKEN, B", ("HF_TOKEN", "B")),
    "secret-files": ("KEY, B", ("KEY", "B")),
    "test-secrets": ("DB, B", ("DB", "B")),
    "env": ("A=b, c", ("A=b, c",)),
    "pass": ("A_,B_", ("A_", "B_")),
    "block": ("A_*", ("A_*",)),
    "rank-scoped": ("A,B", ("A", "B")),
    "local-caches": ("A,B", ("A", "B")),
    "lib-first": ("true", True),
    "check": ("drift", "drift"),
    "strict": ("yes", True),
    "no-reexec": ("1", True),
    "dry-run": ("on", True),
    "profiles": ("torch mpi", ("torch", "mpi")),
}


@pytest.mark.parametrize(
    "setting", [setting for setting in config.SETTINGS if not setting.only_file], ids=lambda setting: setting.name
)
def test_every_setting_is_read_from_a_variable_and_from_ini(setting: config.Setting, special: Path) -> None:
    text, value = SAMPLES[setting.name]
    from_ini = config.load({}, {}, {setting.name: text}, special)
    assert getattr(from_ini, setting.attribute) == value
    assert from_ini.origin(setting.name) == f"ini {setting.ini}"
    from_variable = config.load({}, {setting.variable: text}, {}, special)
    if setting.everywhere:
        assert getattr(from_variable, setting.attribute) == value
        assert from_variable.origin(setting.name) == f"variable {setting.variable}"
    else:
        assert from_variable.origin(setting.name) == "default"


def test_an_empty_variable_is_not_set(special: Path) -> None:
    assert config.load({}, {"MULTIHOST_ENV_VENV": ""}, {}, special).origin("venv") == "default"


def test_a_false_option_beats_a_true_file(special: Path) -> None:
    write(special, "strict = true")
    settings = config.load({"strict": False}, {}, {}, special)
    assert (settings.strict, settings.origin("strict")) == (False, "option --multihost-strict")


def test_lists_of_rules_add_up_and_profiles_do_not(special: Path) -> None:
    write(special, 'profiles = ["mpi", "ci"]\n[tool.multihost-env.environment]\npass = ["FILE_"]\n')
    settings = config.load({"pass": ["OPTION_"]}, {"MULTIHOST_ENV_PASS": "VARIABLE_"}, {"profiles": ["torch"]}, special)
    assert settings.pass_ == ("FILE_", "VARIABLE_", "OPTION_")
    assert [item.origin for item in settings.items["pass"]] == [
        "pyproject.toml",
        "variable MULTIHOST_ENV_PASS",
        "option --multihost-pass",
    ]
    assert settings.origin("pass") == "option --multihost-pass, variable MULTIHOST_ENV_PASS, pyproject.toml"
    assert settings.profiles == ("torch",)


def test_an_empty_list_in_the_file_means_none(special: Path) -> None:
    write(special, "profiles = []")
    assert config.load({}, {}, {}, special).profiles == ()


def test_relative_paths_have_one_base_for_each_layer(special: Path) -> None:
    root, cwd = special / "root", special / "elsewhere"
    root.mkdir()
    write(root, 'hostfile = "hosts"')
    given = {"venv": "v", "target": "t"}
    settings = config.load(given, {"HOME": "/h"}, {}, root, cwd=cwd)
    assert settings.venv == cwd / "v", "an option is typed where the user stands"
    assert settings.target == root / "t", "the target is one directory, whatever the working directory"
    assert settings.hostfile == root / "hosts"
    assert config.load({"venv": "~/v"}, {"HOME": "/h"}, {}, root).venv == Path("/h/v")


def test_several_paths_are_relative_like_one(special: Path) -> None:
    root, cwd = special / "root", special / "elsewhere"
    root.mkdir()
    write(root, 'rank-binding = ["a.yaml", "~/b.yaml"]')
    assert config.load({}, {"HOME": "/h"}, {}, root).rank_binding == (root / "a.yaml", Path("/h/b.yaml"))
    given = {"rank-binding": ["c.yaml", "/d.yaml"]}
    assert config.load(given, {}, {}, root, cwd=cwd).rank_binding == (cwd / "c.yaml", Path("/d.yaml"))
    write(root, 'rank-binding = "a b.yaml"')
    assert config.load({}, {}, {}, root).rank_binding == (root / "a b.yaml",)


def test_the_files_of_rootdir_are_read_together(special: Path) -> None:
    write(special, 'venv = "/a"\n[tool.multihost-env.environment.set]\nA = "1"\n')
    write(special, "ranks = 2\n[environment.set]\nB = '2'\n", "multihost-env.toml")
    settings = config.load({}, {}, {}, special)
    assert (settings.venv, settings.ranks) == (Path("/a"), 2)
    assert settings.origin("ranks") == "multihost-env.toml"
    changes = [(one.name, one.value, one.origin) for one in settings.environment.everywhere]
    assert changes == [("A", "1", "pyproject.toml"), ("B", "2", "multihost-env.toml")]


@pytest.mark.parametrize("key", ["ranks = 2", '[{}environment.set]\nA = "1"'])
def test_the_same_key_in_both_files_is_refused(special: Path, key: str) -> None:
    write(special, key.format("tool.multihost-env."))
    write(special, key.format(""), "multihost-env.toml")
    problem = refusal(special)
    assert "pyproject.toml" in problem.what
    assert "multihost-env.toml" in problem.what


def test_a_named_file_is_the_only_one(special: Path) -> None:
    write(special, "ranks = 2")
    named = write(special, "timeout = 5", "other.toml")
    settings = config.load({}, {}, {}, special, config_file=named)
    assert (settings.ranks, settings.timeout, settings.origin("timeout")) == (None, 5.0, "other.toml")
    assert str(special / "gone.toml") in str(refusal(special, config_file=special / "gone.toml"))


def test_tables_of_hosts_and_ranks(special: Path) -> None:
    write(
        special,
        '[environment]\nunset = ["PYTHONSTARTUP"]\n'
        '[environment.hosts."n3.example.org"]\nset = { A = "" }\n[environment.ranks.0]\nunset = ["B"]\n',
        "multihost-env.toml",
    )
    table = config.load({}, {}, {}, special).environment
    assert [(one.name, one.value) for one in table.everywhere] == [("PYTHONSTARTUP", None)]
    assert [(one.name, one.value) for one in table.hosts["n3.example.org"]] == [("A", "")]
    assert [(one.name, one.value) for one in table.ranks[0]] == [("B", None)]


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ('lancher = "ssh"', "lancher", "launcher"),
        ("no_reexec = true", "no_reexec", "no-reexec"),
        ('pass = ["A_"]', "pass", "environment.pass"),
        ('env = ["A=1"]', "env", "environment.set"),
        ('[environment]\nblok = ["A"]', "environment.blok", "environment.block"),
        ("[environment.hosts.n1]\nsett = {}", "environment.hosts.n1.sett", "environment.hosts.n1.set"),
        ("[tool.multihost-env]\nranks = 1", "tool", None),
    ],
)
def test_an_unknown_key_is_named_with_its_nearest(special: Path, text: str, key: str, nearest: str | None) -> None:
    write(special, text, "multihost-env.toml")
    problem = refusal(special)
    assert problem.what == f"unknown key {key}"
    assert problem.where == "multihost-env.toml"
    if nearest:
        assert problem.hint == f"the nearest known key is {nearest}"


@pytest.mark.parametrize(
    ("text", "what", "expected"),
    [
        ('timeout = "300"', "timeout is of type string", "seconds"),
        ("timeout = true", "timeout is of type boolean", "seconds"),
        ("timeout = -1", "timeout is of type integer -1", "positive"),
        ("timeout = nan", "timeout is of type float nan", "positive"),
        ("ranks = 1.5", "ranks is of type float 1.5", "whole number"),
        ("ranks = true", "ranks is of type boolean", "whole number"),
        ("ranks = 0", "ranks is of type integer 0", "at least 1"),
        ('strict = "yes"', "strict is of type string", "true or false"),
        ("venv = 3", "venv is of type integer 3", "path"),
        ('venv = ""', "venv is empty", "path"),
        ("rank-binding = 3", "rank-binding is of type integer", "path"),
        ("rank-binding = [3]", "rank-binding is of type integer", "path"),
        ('rank-binding = ""', "rank-binding is empty", "path"),
        ('profiles = "torch"', "profiles is of type string", "list"),
        ('profiles = ["tortch"]', "profiles cannot be 'tortch'", "torch"),
        ("environment = 1", "environment is of type integer", "table"),
        ('[environment]\npass = "A_"', "environment.pass is of type string", "list"),
        ("[environment]\npass = [1]", "environment.pass[0] is of type integer", "string"),
        ("[environment.set]\nOMP_NUM_THREADS = 1", "environment.set.OMP_NUM_THREADS is of type integer", "string"),
        ("[environment.ranks.0.set]\nA = [1]", "environment.ranks.0.set.A is of type array", "string"),
        ("[environment]\nunset = [7]", "environment.unset[0] is of type integer", "variable name"),
        ('launcher-args = "-x \'a"', "launcher-args cannot be split", "closed quotes"),
        ('check = "smok"', "check cannot be 'smok'", "smoke"),
    ],
)
def test_a_wrong_type_names_file_key_found_and_expected(special: Path, text: str, what: str, expected: str) -> None:
    write(special, text, "multihost-env.toml")
    problem = refusal(special)
    assert problem.what.startswith(what)
    assert problem.where == "multihost-env.toml"
    assert expected in (problem.expected or "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[environment.set]\n"a b" = ""', "'a b' is not a variable name"),
        ('[environment]\nunset = ["1A"]', "'1A' is not a variable name"),
        ('[environment.set]\nA = "\\u0000"', "contains a NUL"),
        ('[environment]\nunset = ["A"]\nset = { A = "" }', "A is both set and unset"),
        ('[environment.ranks.01]\nset = { A = "" }', "'01' is not a rank"),
        ('[environment.hosts."-n"]\nset = { A = "" }', "'-n' is not a host name"),
        ("venv = ", "cannot be read"),
    ],
)
def test_a_wrong_table_of_variables_is_refused(special: Path, text: str, words: str) -> None:
    write(special, text, "multihost-env.toml")
    problem = refusal(special)
    assert words in problem.what
    assert "multihost-env.toml" in (problem.where or "")


def test_a_wrong_variable_names_itself(special: Path) -> None:
    problem = refusal(special, environ={"MULTIHOST_ENV_RANKS": "four"})
    assert problem.what == "ranks cannot be text 'four'"
    assert problem.where == "variable MULTIHOST_ENV_RANKS"


def test_bytes_that_are_no_text_are_refused(special: Path) -> None:
    (special / "multihost-env.toml").write_bytes(b'venv = "\xff"')
    assert "UTF-8" in (refusal(special).expected or "")


def test_a_misspelt_setting_of_a_caller_is_not_ignored(special: Path) -> None:
    with pytest.raises(KeyError):
        config.load({"vnev": "/x"}, {}, {}, special)
    with pytest.raises(KeyError):
        config.load({}, {}, {"multihost_venv": "/x"}, special)


def test_the_value_of_a_variable_is_not_in_the_representation(special: Path) -> None:
    write(special, '[environment.set]\nA = "hidden-one"', "multihost-env.toml")
    assert "hidden" not in repr(config.load({"env": ["B=hidden-two"]}, {}, {}, special))
