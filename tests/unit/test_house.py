"""The rules that the whole tree keeps, and the proof that the suite's own guards bite."""

from __future__ import annotations

import ast
import json
import os
import shlex
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_multihost_env

PACKAGE = Path(pytest_multihost_env.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "cPickle", "dill", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "subprocess.getoutput"}
HEAVY = [
    "asyncio",
    "click",
    "ClusterShell",
    "dotenv",
    "filelock",
    "mpi4py",
    "multiprocessing",
    "numpy",
    "packaging.requirements",
    "psutil",
    "rich",
    "yaml",
]


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield `line: thing` for everything that could run code out of data, or a command line out of a string."""
    for node in ast.walk(tree):
        for name in imported(node):
            if name.split(".")[0] in FORBIDDEN_IMPORTS or name in FORBIDDEN_CALLS:
                yield f"{node.lineno}: import of {name}"
        if isinstance(node, ast.Call):
            if dotted(node.func) in FORBIDDEN_CALLS:
                yield f"{node.lineno}: {dotted(node.func)}()"
            for keyword in node.keywords:
                if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value):
                    yield f"{node.lineno}: shell="


def import_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is imported: not the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and dotted(child.test).endswith("TYPE_CHECKING"):
            continue
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from import_time(child)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


by_module = pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])


@by_module
def test_module_turns_no_data_into_code_and_no_string_into_a_command(path: Path) -> None:
    assert list(dangers(parsed(path))) == []


@by_module
def test_module_does_not_import_mpi_when_it_is_imported(path: Path) -> None:
    names = [name for node in import_time(parsed(path)) for name in imported(node)]
    assert [name for name in names if name.split(".")[0] == "mpi4py"] == []


@by_module
def test_module_says_what_it_is_for(path: Path) -> None:
    if not path.read_text(encoding="utf-8").strip():
        assert path.name == "__init__.py", "only a package marker may be empty"
        return
    assert ast.get_docstring(parsed(path)), f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", "1: import of pickle"),
        ("from marshal import loads", "1: import of marshal.loads"),
        ("from os import system", "1: import of os.system"),
        ("x = 1\neval('x')", "2: eval()"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "2: shell="),
        ("import subprocess\nsubprocess.run('ls', shell=flag)", "2: shell="),
        ("import os\nos.system('ls')", "2: os.system()"),
    ],
)
def test_the_search_for_dangers_finds_a_planted_one(source: str, found: str) -> None:
    assert list(dangers(ast.parse(source))) == [found]


@pytest.mark.parametrize("source", ["re.compile('x')", "run(argv, shell=False)", "evaluate()", "gang.exec()"])
def test_the_search_for_dangers_lets_the_harmless_pass(source: str) -> None:
    assert list(dangers(ast.parse(source))) == []


def test_import_time_skips_functions_and_type_checking() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n import mpi4py\ndef f():\n import mpi4py\ntry:\n import mpi4py\nfinally: pass")
    assert [node.lineno for node in import_time(tree) if imported(node)] == [6]


def modules_after(code: str, cwd: Path) -> set[str]:
    """Return the names in `sys.modules` after `code` ran in a fresh interpreter."""
    program = f"{code}\nimport json, sys\nopen('modules.json', 'w').write(json.dumps(sorted(sys.modules)))\n"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads((cwd / "modules.json").read_text()))


def test_importing_the_package_imports_nothing_heavy(special: Path) -> None:
    bare = modules_after("", special)
    names = modules_after("import pytest_multihost_env", special) - bare
    assert "pytest_multihost_env" in names
    assert [heavy for heavy in [*HEAVY, "pytest", "_pytest", "pluggy", "packaging"] if heavy in names] == []


def test_what_builders_need_is_loaded_by_the_one_that_builds(special: Path) -> None:
    code = "from pytest_multihost_env.provision.builders import built_in\nassert len(built_in()) >= 6"
    names = modules_after(code, special)
    needed = ["asyncio", "backports.zstd", "compression.zstd", "packaging", "rattler", "uv", "yaml"]
    assert [heavy for heavy in needed if heavy in names] == []


@pytest.mark.parametrize(
    ("arguments", "tests"),
    [(["--version", "--version"], ""), (["-q"], ""), (["-q"], "def test_plain(): pass")],
    ids=["version", "empty run", "unmarked test"],
)
def test_the_unused_plugin_imports_nothing_heavy(arguments: list[str], tests: str, special: Path) -> None:
    (special / "pytest.ini").write_text("[pytest]\n")
    (special / "test_plain.py").write_text(tests)

    def run(*more: str) -> set[str]:
        return modules_after(f"import pytest\npytest.main({[*arguments, '-p', 'no:cacheprovider', *more]!r})", special)

    without = run()
    names = run("-p", "pytest_multihost_env.plugin") - without
    assert "pytest_multihost_env.plugin" in names
    assert [heavy for heavy in HEAVY if heavy in names] == []


LEAKS = """
    import os, subprocess, sys
    from pathlib import Path

    def test_clean(tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PLANTED", "1")
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    def test_cwd(tmp_path):
        os.chdir(tmp_path)

    def test_variable():
        os.environ["PLANTED"] = "1"

    def test_lost_variable():
        del os.environ["HOME"]

    def test_child():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def test_orphan():
        code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
        subprocess.run([sys.executable, "-c", code], check=True, start_new_session=True)

    def test_file():
        (Path(__file__).parent / "python_env").mkdir()

    def test_shared_memory():
        Path("/dev/shm/multihost-planted-" + str(os.getppid())).touch()

    def test_clean_again():
        assert "PLANTED" not in os.environ and "HOME" in os.environ
        assert Path.cwd() == Path(__file__).parent
"""


def test_a_leaking_test_fails_with_a_sentence(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = Path(f"/dev/shm/multihost-planted-{os.getpid()}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(LEAKS)
    pytester.makeconftest("import tests.guards\ntests.guards.GRACE = 0.2\n")
    try:
        result = pytester.runpytest_subprocess("-p", "tests.guards", "-p", "no:multihost_env")
    finally:
        planted.unlink(missing_ok=True)
    result.assert_outcomes(passed=9, errors=7)
    expected = {
        "cwd": "changed the working directory to /*",
        "variable": "changed the environment: PLANTED was added",
        "lost_variable": "changed the environment: HOME was removed",
        "child": "left running: pid * (*time.sleep(60)?",
        "orphan": "left running: pid * (*time.sleep(60)?",
        "file": f"left {pytester.path}/python_env",
        "shared_memory": f"left {planted}",
    }
    for name, sentence in expected.items():
        lines = [f"*ERROR at teardown of test_{name} *", f"this test leaves something behind: it {sentence}"]
        result.stdout.fnmatch_lines(lines, consecutive=True)


SAMPLE = """# Title
<!-- command: demo -->
```console
one && two 'three'
```
text
<!-- command: test -->

```bash
four
```
"""


@pytest.mark.parametrize(("name", "command"), [("demo", "one && two 'three'\n"), ("test", "four\n")])
def test_ci_takes_a_command_from_the_readme_word_for_word(name: str, command: str, special: Path) -> None:
    readme = special / "README.md"
    readme.write_text(SAMPLE)
    done = subprocess.run([ROOT / ".ci/readme-command", name, readme], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, command)


@pytest.mark.parametrize(
    "text", ["", SAMPLE * 2, "<!-- command: test -->\n```\n```\n", "<!-- command: test -->\n```\nx\n"]
)
def test_ci_refuses_a_readme_without_exactly_one_such_command(text: str, special: Path) -> None:
    readme = special / "README.md"
    readme.write_text(text)
    done = subprocess.run([ROOT / ".ci/readme-command", "test", readme], capture_output=True, text=True)
    assert done.returncode != 0
    assert "command: test" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("body", "code", "closing"),
    [
        ("def test_x(): pass", 0, "1 passed in "),
        ("def test_x(): assert 0", 1, "1 failed in "),
        ("import pytest\ndef test_x(): pytest.skip('no')", 1, "1 skipped in "),
        ("", 5, "no tests ran in "),
        ("import os; os._exit(0)", 1, "pytest did not come to its closing line"),
    ],
    ids=["passed", "failed", "only skipped", "nothing", "died with 0"],
)
def test_ci_believes_only_a_run_in_which_a_test_passed(body: str, code: int, closing: str, special: Path) -> None:
    (special / "test_x.py").write_text(body)
    (special / "pytest.ini").write_text("[pytest]\n")
    command = f"{shlex.quote(sys.executable)} -m pytest -p no:multihost_env -p no:cacheprovider"
    (special / "README.md").write_text(f"<!-- command: test -->\n```\n{command}\n```\n")
    done = subprocess.run([ROOT / ".ci/tests", "closing", "README.md"], cwd=special, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert closing in (special / "closing").read_text()


def test_the_readme_gives_both_commands() -> None:
    for name in ("demo", "test"):
        done = subprocess.run([ROOT / ".ci/readme-command", name, ROOT / "README.md"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_ci_scripts_can_be_executed() -> None:
    for script in (ROOT / ".ci").iterdir():
        assert script.stat().st_mode & stat.S_IXUSR, f"{script.name} is not executable"


def test_every_declared_dependency_has_only_a_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    capped = [spec for group in groups for spec in group if any(mark in spec.partition(";")[0] for mark in "<!~")]
    assert capped == []
