"""The program that describes a host, run as a host runs it; and the checks on what several such runs say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_multihost_env.check.fixtures import DriftCheck, SmokeCheck
from pytest_multihost_env.check.snapshot import origin
from pytest_multihost_env.check.values import Snapshot, Unanswered, command, request, understood
from pytest_multihost_env.model import Completed


class Host:
    """A host whose environment differs from the others' by what `PYTHONPATH` puts before it."""

    def __init__(self, name: str, *first: Path, **variables: str) -> None:
        self.name = name
        self.env = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(map(str, first))}

    def answer(self, wanted: Mapping[str, Any]) -> Completed:
        ask = command(Path(sys.executable), wanted)
        done = subprocess.run(ask.argv, input=ask.stdin, capture_output=True, text=True, env=self.env, timeout=60)
        return Completed(self.name, done.returncode, done.stdout, done.stderr)

    def snapshot(self, wanted: Mapping[str, Any]) -> Snapshot:
        answer = understood(self.answer(wanted))
        assert isinstance(answer, Snapshot), answer
        return answer


def run_on(*hosts: Host, dead: str = "") -> Any:
    """Return what asks these hosts, and one that cannot be reached."""

    def run(wanted: Mapping[str, Any]) -> dict[str, Completed]:
        answers = {host.name: host.answer(wanted) for host in hosts}
        if dead:
            answers[dead] = Completed(dead, None, "", "", error="ssh: connect to host: No route to host")
        return answers

    return run


def planted(directory: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (directory / f"{name}.py").write_text(source, encoding="utf-8")
    return directory


def forged(directory: Path, name: str, version: str) -> Path:
    """Copy the metadata of an installed distribution and have the copy claim another version."""
    (source,) = (found for place in site.getsitepackages() for found in Path(place).glob(f"{name}-*.dist-info"))
    copy = directory / f"{name}-{version}.dist-info"
    shutil.copytree(source, copy)
    text = (copy / "METADATA").read_text(encoding="utf-8").splitlines()
    lines = [f"Version: {version}" if line.startswith("Version: ") else line for line in text]
    (copy / "METADATA").write_text("\n".join(lines), encoding="utf-8")
    return directory


def test_a_host_declares_imports_and_loads() -> None:
    numpy = pytest.importorskip("numpy")
    snapshot = Host("n1").snapshot(request(["numpy"]))

    assert snapshot.declared["numpy"].version == numpy.__version__
    assert len(snapshot.declared["numpy"].files or "") == 64
    assert snapshot.modules["numpy"].version == numpy.__version__
    assert snapshot.modules["numpy"].file == numpy.__file__
    assert snapshot.modules["numpy"].origin == "environment"
    assert {library.family for library in snapshot.loaded} & {"openblas", "mkl", "blis"}
    assert snapshot.platform["python"] == ".".join(map(str, sys.version_info[:3]))
    assert snapshot.platform["prefix"] == sys.prefix


def test_what_is_not_asked_for_is_not_done() -> None:
    snapshot = Host("n1").snapshot(request(["pytest"], layers=["declared"]))

    assert list(snapshot.declared) == ["pytest"]
    assert snapshot.modules == {}
    assert snapshot.loaded == ()


def test_a_distribution_is_found_by_the_name_of_its_module_and_the_other_way_round() -> None:
    snapshot = Host("n1").snapshot(request(["_pytest", "Hypothesis", "pytest_timeout"]))

    assert snapshot.asked["_pytest"].distributions == ("pytest",)
    assert snapshot.asked["Hypothesis"].modules == ("hypothesis",)
    assert snapshot.asked["pytest_timeout"].distributions == ("pytest-timeout",)


def test_a_secret_is_compared_without_being_told() -> None:
    wanted = request(["pytest"], layers=["declared"], variables=["MULTI_TOKEN", "MULTI_PLAIN", "MULTI_NONE"])
    host = Host("n1", MULTI_TOKEN="s3cr3t-value", MULTI_PLAIN="visible")
    answer = host.answer(wanted)

    assert "s3cr3t-value" not in answer.stdout + answer.stderr
    variables = host.snapshot(wanted).variables
    assert variables["MULTI_PLAIN"] == "visible"
    assert variables["MULTI_NONE"] is None
    assert variables["MULTI_TOKEN"] == host.snapshot(wanted).variables["MULTI_TOKEN"]
    other = Host("n2", MULTI_TOKEN="another").snapshot(wanted)
    assert variables["MULTI_TOKEN"] != other.variables["MULTI_TOKEN"]


FALSE_WITNESSES = {
    "exits": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "leaves": ("import os; os._exit(0)", "ended the interpreter with exit code 0"),
    "forges": ('print(\'{"asked": {}, "ok": true}\'); import os; os._exit(0)', "exit code 0"),
    "fails": ("print('ok')\nraise ValueError('the first line\\nno libfoo.so')", "ValueError: no libfoo.so"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "closes": ("import os; os.closerange(0, 100); raise RuntimeError('closed')", "exit code 0"),
    "replaces": ("import os; os.execv('/bin/true', ['true'])", "exit code 0"),
    "broken": ("def (", "SyntaxError"),
}


def test_a_module_speaks_only_for_itself(special: Path) -> None:
    planted(special, **{name: source for name, (source, _) in FALSE_WITNESSES.items()})
    planted(special, fine="__version__ = '1.0'\nprint('chatter')")
    modules = Host("n1", special).snapshot(request(imports=["fine", *FALSE_WITNESSES, "json"])).modules

    for name, (_, expected) in FALSE_WITNESSES.items():
        assert expected in (modules[name].error or ""), name
    assert modules["fails"].output == "ok\n"
    assert modules["fine"].error is None
    assert modules["fine"].version == "1.0"
    assert modules["json"].origin == "stdlib"


def test_an_import_without_an_end_is_ended(special: Path) -> None:
    planted(special, endless="import threading; threading.Event().wait()", fine="")
    modules = Host("n1", special).snapshot({**request(imports=["endless", "fine"]), "timeout": 1}).modules

    assert modules["endless"].error == "no end of the import after 1 s"
    assert modules["fine"].error is None


def test_a_process_that_a_module_leaves_behind_is_ended(special: Path) -> None:
    """The guard of this suite fails the test when the process is still there, and so does the time limit."""
    source = "import os, signal\nif os.fork() == 0:\n    signal.pause()\nos._exit(3)"
    modules = Host("n1", planted(special, forks=source)).snapshot(request(imports=["forks"])).modules

    assert modules["forks"].error == "ended the interpreter with exit code 3 while it was imported"


def test_a_daemon_that_a_module_starts_does_not_hold_the_answer(special: Path) -> None:
    source = (
        "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    signal.alarm(60)\n"
        "    open(os.environ['PID_FILE'], 'w').write(str(os.getpid()))\n    signal.pause()\n"
        "while not os.path.exists(os.environ['PID_FILE']) or not open(os.environ['PID_FILE']).read(): pass"
    )
    pid_file = special / "pid"
    host = Host("n1", planted(special, daemon=source), PID_FILE=str(pid_file))
    try:
        assert host.snapshot(request(imports=["daemon"])).modules["daemon"].error is None
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="needs a virtual environment, to tell it from its base")
def test_what_the_base_interpreter_has_installed_is_outside_its_standard_library_is_not() -> None:
    stdlib = Path(sysconfig.get_path("stdlib"))

    assert origin(str(stdlib / "json" / "__init__.py"), []) == "stdlib"
    assert origin(str(stdlib / "site-packages" / "x.py"), []) == "outside"
    assert origin(str(Path(sys.prefix, "lib", "x.py")), []) == "environment"
    assert origin(None, []) == "builtin"


def test_what_is_printed_before_the_program_starts_is_not_the_answer(special: Path) -> None:
    planted(special, sitecustomize="import os\nos.write(1, b'{\"asked\": no answer')")

    assert Host("n1", special).snapshot(request(["pytest"], layers=["declared"])).declared


def test_stdout_is_one_answer_whatever_modules_print(special: Path) -> None:
    planted(special, loud="import os; print('loud'); os.write(1, b'raw'); os.system('echo child')")
    planted(special, sitecustomize="import atexit; atexit.register(print, 'good bye')")
    answer = Host("n1", special).answer(request(imports=["loud"]))

    assert json.loads(answer.stdout)["modules"]["loud"]["ok"] is True


def test_a_program_that_cannot_run_is_no_answer(special: Path) -> None:
    planted(special, json="raise RuntimeError('hidden standard library')")
    answer = understood(Host("n1", special).answer(request(["pytest"])))

    assert isinstance(answer, Unanswered)
    assert answer.reached
    assert "hidden standard library" in answer.reason


def test_a_module_on_pythonpath_is_a_shadow(special: Path) -> None:
    planted(special, iniconfig="__version__ = '0.0'")
    check = DriftCheck(run_on(Host("n1"), Host("n2"), Host("n3", special)))

    with pytest.raises(pytest.fail.Exception) as failure:
        check.assert_same("iniconfig")
    assert f"iniconfig: n3 imports {special / 'iniconfig.py'}, outside the environment" in str(failure.value)
    with pytest.raises(pytest.fail.Exception, match="outside the environment"):
        check.assert_satisfies("iniconfig>=1")


def test_metadata_of_another_version_names_the_host(special: Path) -> None:
    version = Host("n1").snapshot(request(["iniconfig"])).declared["iniconfig"].version
    forged(special, "iniconfig", "0.1")
    check = DriftCheck(run_on(Host("n1"), Host("n2"), Host("n3", special)))

    for packages in (("iniconfig",), ()):
        with pytest.raises(pytest.fail.Exception) as failure:
            check.assert_same(*packages)
        text = str(failure.value)
        assert f"iniconfig: n3 has 0.1, the other 2 hosts have {version}" in text
        assert "!= 0.1" in text
        assert "n[1-2]" in text
        assert f"iniconfig 0.1 in {special} hides {version} in " in text
        assert ("which is not where its distribution is installed" in text) is bool(packages)
    with pytest.raises(pytest.fail.Exception, match=r"iniconfig>=1 \(assert_satisfies\): n3 has 0.1"):
        check.assert_satisfies("iniconfig>=1")


def test_equal_hosts_pass() -> None:
    run = run_on(Host("n1"), Host("n2"))

    DriftCheck(run).assert_same()
    DriftCheck(run).assert_same("pytest", "iniconfig")
    DriftCheck(run).assert_satisfies("pytest>=8", "nosuch; sys_platform == 'darwin'")
    SmokeCheck(run).assert_imports("pytest", "json.decoder")


def test_a_host_without_an_answer_fails_every_check() -> None:
    run = run_on(Host("n1"), dead="n2")
    for check in (
        lambda: DriftCheck(run).assert_same(),
        lambda: DriftCheck(run).assert_same("iniconfig"),
        lambda: DriftCheck(run).assert_satisfies("iniconfig"),
        lambda: SmokeCheck(run).assert_imports("iniconfig"),
    ):
        with pytest.raises(pytest.fail.Exception, match="n2 gave no answer: ssh: connect to host: No route to host"):
            check()


def test_smoke_names_host_module_and_reason(special: Path) -> None:
    planted(special, iniconfig="print('ok')\nraise ImportError('libfoo.so.1: cannot open')")

    with pytest.raises(pytest.fail.Exception) as failure:
        SmokeCheck(run_on(Host("n1"), Host("n2", special))).assert_imports("json", "iniconfig")
    text = str(failure.value)
    assert "iniconfig: n2 cannot import it: ImportError: libfoo.so.1: cannot open" in text
    assert "note: n2: while importing iniconfig: ok" in text
    assert text.index("!= ImportError") < text.index("iniconfig: n2")


def test_an_environment_of_its_own_is_described_by_its_own_python(special: Path) -> None:
    environment = special / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60)
    ask = command(environment / "bin" / "python", request())
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(ask.argv, input=ask.stdin, capture_output=True, text=True, env=env, timeout=60)
    answer = understood(Completed("n1", done.returncode, done.stdout, done.stderr))

    assert isinstance(answer, Snapshot), answer
    assert answer.platform["prefix"] == str(environment)
    assert "pytest" not in answer.declared


def test_mpi4py_is_looked_at_without_starting_mpi() -> None:
    pytest.importorskip("mpi4py")
    snapshot = Host("n1").snapshot(request(imports=["mpi4py.MPI"]))
    if snapshot.modules["mpi4py.MPI"].error:
        pytest.skip(f"no MPI library: {snapshot.modules['mpi4py.MPI'].error}")

    assert "mpi" in {library.family for library in snapshot.loaded}
