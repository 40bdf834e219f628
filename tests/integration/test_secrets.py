"""Secrets in real runs: they arrive, they are nobody's business, and what is wrong with them is said before the launch."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests import suites
from tests.environments import ROOT, make
from tests.testbed.bed import Testbed
from tests.values import awkward

PYTHON = Path(sys.executable)
COMMAND = [sys.executable, "-m", "pytest_multihost_env.cli"]
CANARY = "hf_Zq7Wm2xKv9Tb4LcR8yNdE"
ARRIVES = """
    import hashlib, os
    import pytest

    @pytest.mark.multihost(ranks=2)
    def test_arrives(multihost):
        digests = {name: hashlib.sha256(os.environ[name].encode()).hexdigest() for name in ("HF_TOKEN", "OF_SHELL")}
        for name, digest in digests.items():
            print(f"{name} of rank {multihost.rank} {digest}")
        assert "OTHER_PASSWORD" not in os.environ
        assert os.environ["PLAIN"] == "a # b"

    def test_ordinary():
        assert "HF_TOKEN" not in os.environ
"""
SETTINGS = 'dotenv = ".env"\nsecrets = ["HF_TOKEN", "OF_SHELL"]\nhosts = "localhost:2"\n'


def prepare(directory: Path, dotenv: str, text: str = ARRIVES) -> None:
    suites.write(directory, text)
    (directory / "multihost-env.toml").write_text(SETTINGS)
    (directory / ".env").write_text(dotenv, encoding="utf-8")
    (directory / ".env").chmod(0o600)


@pytest.mark.mpi_programs
@pytest.mark.parametrize("launcher", ["auto", "local"])
def test_secrets_of_file_and_shell_arrive_and_nothing_else_does(special: Path, launcher: str) -> None:
    prepare(special, f"HF_TOKEN={CANARY}\nOTHER_PASSWORD=0123456789\nPLAIN='a # b'\n")
    env = {"OF_SHELL": "secret of the shell"}
    outcome = suites.run(PYTHON, special, "-rP", f"--multihost-launcher={launcher}", env=env)
    assert outcome.code == 0, outcome
    assert outcome.tests == {"test_arrives": "passed", "test_ordinary": "passed"}, outcome
    assert "OTHER_PASSWORD" in outcome.text, "the header says what was held back"
    assert "0123456789" not in outcome.text


@pytest.mark.parametrize(
    ("dotenv", "said"),
    [
        ("PLAIN=x", ["the secret HF_TOKEN has no value", "multihost-env.toml"]),
        ("HF_TOKEN=short", ["HF_TOKEN has fewer than 8 characters", ".env:1"]),
        (f'A=1\nHF_TOKEN="{CANARY}', ["the line is not NAME=VALUE", ".env:2"]),
    ],
    ids=["missing", "short", "bad line"],
)
def test_what_is_wrong_with_a_secret_is_said_before_any_module_is_imported(
    special: Path, dotenv: str, said: list[str]
) -> None:
    prepare(special, dotenv, "import pathlib\npathlib.Path('imported').touch()\ndef test_x(): pass")
    outcome = suites.run(PYTHON, special, env={"OF_SHELL": "secret of the shell"})
    assert outcome.code == 4, outcome
    for words in said:
        assert words in outcome.text, outcome
    assert CANARY not in outcome.text
    assert not (special / "imported").exists()


def test_a_secret_with_a_word_of_the_checks_in_it_neither_breaks_nor_blinds_them(special: Path) -> None:
    prepare(
        special,
        "HF_TOKEN='postgresql://ci:pw@db/multihost_snapshot'\n",
        """
            def test_same(drift_check): drift_check.assert_same("pytest")
            def test_wrong(drift_check): drift_check.assert_satisfies("pytest<1")
        """,
    )
    outcome = suites.run(PYTHON, special, env={"OF_SHELL": "declared-imported-distributions"})
    assert outcome.tests == {"test_same": "passed", "test_wrong": "failure"}, outcome
    assert "pytest<1" in outcome.text
    done = subprocess.run(
        [*COMMAND, "check", "--json", "--packages", "pytest"],
        cwd=special,
        env=suites.clean_environ({"OF_SHELL": "declared-imported-distributions"}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True


def test_a_file_that_git_tracks_is_remarked_upon(special: Path) -> None:
    prepare(special, f"HF_TOKEN={CANARY}\n")
    command = [*COMMAND, "env", "--explain", "--json"]
    env = suites.clean_environ({"OF_SHELL": "secret of the shell"})
    for tracked in (False, True):
        if tracked:
            subprocess.run(["git", "init", "-q", "."], cwd=special, check=True, env=env)
            subprocess.run(["git", "add", ".env"], cwd=special, check=True, env=env)
        done = subprocess.run(command, cwd=special, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert ("tracked by git" in done.stderr) is tracked
        assert CANARY not in done.stdout + done.stderr
        rows = {row["name"]: row for row in json.loads(done.stdout)["variables"]}
        assert (rows["HF_TOKEN"]["value"], rows["HF_TOKEN"]["origin"]) == ("***", ".env:1")
        assert (rows["OF_SHELL"]["value"], rows["OF_SHELL"]["rule"]) == ("***", "secret")


def long(seed: str) -> str:
    digits = (hashlib.sha256(f"{seed}{at}".encode()).hexdigest()[:9] for at in range(42))
    return "".join(f"{nine}%'\"&\n<ü>" for nine in digits)


LONG = long("")
# Of this process alone: whoever looks at every command line also sees those of tests that run beside it.
OWN_CANARY = "hf_" + base64.b32encode(os.urandom(14)).decode()[:21]
OWN_LONG = long(OWN_CANARY)
FORMS = {
    "plain": lambda text: text,
    "repr": lambda text: repr(text)[1:-1],
    "json": lambda text: json.dumps(text)[1:-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "url": lambda text: urllib.parse.quote(text, safe=""),
    "hex": lambda text: text.encode().hex(),
}
LEAKS = """
    import base64, html, json, logging, os, subprocess, sys, urllib.parse, warnings
    import pytest

    TOKEN = os.environ.get("HF_TOKEN") or open("token").read()
    RANKS = pytest.mark.multihost(ranks=2)
    # Without capture nobody stands between a test of this process and its file descriptors; ranks are relayed.
    RAW = not {"-s", "--capture=tee-sys"} & set(sys.argv) or "MULTIHOST_RANK" in os.environ

    def both(function):
        def test_on_ranks(multihost): function()
        test_on_ranks = RANKS(test_on_ranks)
        globals()[f"test_{function.__name__}_on_ranks"] = test_on_ranks
        globals()[f"test_{function.__name__}"] = lambda: function()

    @both
    def local_and_assert():
        token = TOKEN
        assert token == "something else"

    @both
    def raised():
        raise ValueError(f"bad token {TOKEN}", {"token": TOKEN})

    @both
    def printed():
        print("token", TOKEN, repr(TOKEN), file=sys.stderr)
        print(json.dumps({"token": TOKEN}), base64.b64encode(b"x" + TOKEN.encode()).decode())
        if RAW:
            os.write(1, TOKEN.encode())
            subprocess.run(["echo", TOKEN])
        assert 0

    @both
    def encoded():
        print(urllib.parse.quote(TOKEN), html.escape(TOKEN), TOKEN.encode().hex(), TOKEN.encode())
        assert 0

    @both
    def logged():
        logging.getLogger().warning("token %s", TOKEN)
        assert 0

    @both
    def warned():
        warnings.warn(f"token {TOKEN}")

    @both
    def called():
        subprocess.run([sys.executable, "-c", "raise SystemExit(3)", TOKEN], check=True)

    @both
    def skipped():
        pytest.skip(f"no use for {TOKEN}")

    @both
    def expected():
        pytest.xfail(f"known for {TOKEN}")

    @both
    def chained():
        try:
            raise KeyError(TOKEN)
        except KeyError as error:
            raise ExceptionGroup(f"many {TOKEN}", [ValueError(TOKEN), OSError(TOKEN, TOKEN)]) from error

    @both
    def collections():
        assert {"a": [TOKEN], "b": 1} == {"a": [TOKEN[::-1]], "b": 1}

    @pytest.mark.parametrize("token", [TOKEN, TOKEN + "x"])
    def test_parametrized(token, tmp_path): assert 0

    @RANKS
    @pytest.mark.parametrize("token", [TOKEN, TOKEN + "x"])
    def test_parametrized_on_ranks(multihost, token, tmp_path, record_property):
        record_property("tmp", str(tmp_path))
        assert token == TOKEN

    @pytest.fixture(params=[TOKEN])
    def given(request): return request.param

    def test_crashes(given):
        print(TOKEN, file=sys.stderr)
        if "PYTEST_XDIST_WORKER" in os.environ:
            os.abort()

    @pytest.fixture
    def broken():
        token = TOKEN
        raise RuntimeError(token)

    def test_fixture(broken): pass

    @RANKS
    def test_fixture_on_ranks(broken): pass

    @RANKS
    def test_dies(multihost):
        print(TOKEN)
        sys.stdout.flush()
        os.write(2, TOKEN.encode())
        os._exit(3)

    def test_property(record_property, record_testsuite_property):
        record_property("token", TOKEN)
        record_testsuite_property("token", TOKEN)

    @pytest.mark.filterwarnings("ignore")
    def test_attribute(record_xml_attribute):
        record_xml_attribute("token", TOKEN)
"""


SKIPPED = """
    import pytest
    pytest.skip(open("token").read(), allow_module_level=True)
"""


def test_a_secret_on_the_command_line_is_remarked_upon_and_not_shown(special: Path) -> None:
    words = ["env", "--secrets", "HF_TOKEN", "--env", f"HF_TOKEN={CANARY}", "--env", "PLAIN=x"]
    done = subprocess.run(
        [*COMMAND, *words], cwd=special, env=suites.clean_environ(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stands on the command line") == 1
    assert "the secret HF_TOKEN" in done.stderr
    assert CANARY not in done.stdout + done.stderr


def pieces(text: str, length: int) -> set[str]:
    return {text[at : at + length] for at in range(len(text) - length + 1)}


def found(text: str, secret: str) -> dict[str, list[str]]:
    """Return, for each form, pieces of eight characters of `secret` that stand in `text`.

    The end of a line is not counted: seven characters that pytest cut off just there are followed by one as well.
    """
    there = pieces(text, 8)
    return {
        name: sorted(here)[:5]
        for name, form in FORMS.items()
        if (here := {one for one in pieces(form(secret), 8) & there if one == one.strip("\n")})
    }


@pytest.mark.mpi_programs
@pytest.mark.parametrize(
    ("secret", "options"),
    [
        (CANARY, []),
        (LONG, []),
        (LONG, ["-vv", "--showlocals", "--html=report.html", "--json-report"]),
        (CANARY, ["-vv", "--showlocals", "--tb=short", "-olog_cli=true", "-ojunit_logging=all", "--color=yes"]),
        (CANARY, ["--tb=line", "--debug", "--setup-show", "--durations=0"]),
        (LONG, ["-s"]),
        (CANARY, ["--capture=tee-sys"]),
        (LONG, ["-n2", "-rA"]),
    ],
    ids=lambda value: " ".join(value) or "plain" if isinstance(value, list) else f"{len(value)} characters",
)
def test_nothing_that_a_session_shows_or_writes_holds_a_piece_of_a_secret(
    special: Path, secret: str, options: list[str]
) -> None:
    """Reliability test S2: failing tests of many kinds, on ranks and in the controller, in every look of pytest."""
    suites.write(special, LEAKS)
    suites.write(special, SKIPPED, "test_module.py")
    (special / "token").write_text(secret, encoding="utf-8")
    (special / "multihost-env.toml").write_text('secrets = ["HF_TOKEN"]\nhosts = "localhost:2"\nlauncher = "local"\n')
    report = special / "junit.xml"
    arguments = ["--log-file=log.txt", "--log-file-level=DEBUG", f"--basetemp={special / 'base'}", *options]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments],
        cwd=special,
        env=suites.clean_environ({"HF_TOKEN": secret}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
    )
    outcome = suites.Outcome(done.returncode, done.stdout.decode(errors="replace"), *suites.read(report))
    assert outcome.code == 1, outcome
    assert "INTERNALERROR" not in outcome.text, outcome
    for name in ("local_and_assert", "raised", "printed", "encoded", "logged", "called", "collections", "chained"):
        assert [outcome.tests[f"test_{name}{where}"] for where in ("", "_on_ranks")] == ["failure", "failure"], outcome
    assert "exited with code 3" in outcome.messages["test_dies"]
    assert "***" in outcome.text
    assert not found(outcome.text, secret), outcome
    for path in special.rglob("*"):
        if (
            path.is_file()
            and path.name not in ("token", "test_suite.py", "test_module.py")
            and "__pycache__" not in path.parts
        ):
            text = path.read_text(errors="replace")
            # What JSON escapes later: three harmless letters are eight there.
            text = json.dumps(json.loads(text), ensure_ascii=False) if path.name == ".report.json" else text
            assert not found(text, secret), path
        assert not found(str(path), secret), path


FAILING = """
    import os, pytest, warnings
    token, where = os.environ["HF_TOKEN"], os.environ["WHERE"]
    if where == "import": raise RuntimeError(token)
    if where == "print": print(token)
    def pytest_configure():
        if where == "configure": raise RuntimeError(token)
        if where == "usage": raise pytest.UsageError(token)
    def pytest_runtest_makereport():
        if where == "makereport": raise RuntimeError(token)
    def pytest_sessionfinish():
        if where == "exit": pytest.exit(token)
        if where == "finish": raise RuntimeError(token)
    def pytest_unconfigure():
        if where == "unconfigure": raise RuntimeError(token)
"""


@pytest.mark.parametrize(
    "where", ["import", "print", "configure", "usage", "makereport", "exit", "finish", "unconfigure"]
)
def test_a_conftest_that_fails_with_a_secret_before_during_or_after_the_session_shows_none(
    special: Path, where: str
) -> None:
    suites.write(special, FAILING, "conftest.py")
    suites.write(special, "def test_good(): pass")
    (special / "multihost-env.toml").write_text('secrets = ["HF_TOKEN"]\n')
    env = {"HF_TOKEN": CANARY, "WHERE": where}
    outcome = suites.run(PYTHON, special, "-s", "--json-report", "--json-report-file=report.json", env=env)
    assert (outcome.code == 0) is (where in ("print", "exit")), outcome
    assert "***" in outcome.text, outcome
    assert not found(outcome.text, CANARY), outcome
    for path in special.glob("*.json"):
        assert not found(path.read_text(), CANARY), path


class Sampler:
    """Reads every command line, and the environment of every launcher, of this machine and its hosts while it runs."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self.launchers: dict[bytes, bytes] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for directory in Path("/proc").glob("[0-9]*"):
                try:
                    line = (directory / "cmdline").read_bytes()
                    self.lines.add(line)
                    if Path(line.partition(b"\0")[0].decode()).name in ("mpirun", "prterun", "prted", "ssh", "sshd"):
                        self.launchers[line] = (directory / "environ").read_bytes()
                except (OSError, UnicodeDecodeError):
                    continue


TWO_RANKS = """
    import os, time
    import pytest

    @pytest.mark.multihost(ranks=2, per_host=PER_HOST)
    def test_has_it(multihost):
        time.sleep(0.5)
        assert len(os.environ["HF_TOKEN"]) == LENGTH
        print(os.environ["HF_TOKEN"])
        assert not os.environ["HF_TOKEN"]
"""


def judge(sampler: Sampler, directory: Path, output: str, secret: str) -> None:
    """No command line, launcher, output or file holds a piece of the secret."""
    assert sampler.launchers
    assert any(b"bootstrap.py" in line for line in sampler.lines)
    for line in sampler.lines:
        assert not found(line.decode(errors="replace"), secret)
    for environment in sampler.launchers.values():
        assert not found(environment.decode(errors="replace"), secret)
    assert not found(output, secret), output
    for path in directory.rglob("*"):
        # By chance, digits of the long one stand in some manifest.
        if (
            path.is_file()
            and ".env" not in path.name
            and ".python_env.d" not in path.parts
            and path.stat().st_size < 1 << 20
        ):
            assert not found(path.read_text(errors="replace"), secret), path


def dotenv(secret: str) -> str:
    return 'HF_TOKEN="' + secret.replace("\\", "\\\\").replace('"', '\\"') + '"\n'


@pytest.mark.mpi_programs
@pytest.mark.parametrize("secret", [OWN_CANARY, OWN_LONG], ids=["24 characters", "many"])
def test_no_command_line_and_no_launcher_has_a_secret(special: Path, secret: str) -> None:
    """Reliability test S1 with Open MPI on this machine."""
    text = TWO_RANKS.replace("PER_HOST", "2").replace("LENGTH", str(len(secret)))
    prepare(special, dotenv(secret), text)
    (special / "multihost-env.toml").write_text('dotenv = ".env"\nsecrets = ["HF_TOKEN"]\nhosts = "localhost:2"\n')
    with Sampler() as sampler:
        outcome = suites.run(PYTHON, special, "-rA", "--showlocals", "--multihost-launcher=openmpi")
    assert outcome.tests == {"test_has_it": "failure"}, outcome
    assert "assert not" in outcome.messages["test_has_it"], outcome
    judge(sampler, special, outcome.text, secret)


SPY = """
import json, os, sys, tempfile
with tempfile.NamedTemporaryFile("w", dir={spied!r}, suffix=".json", delete=False) as file:
    json.dump([sys.orig_argv, dict(os.environ)], file)
"""
ON_BOTH = TWO_RANKS.replace("PER_HOST", "1").replace(
    "print(os", 'assert open(os.environ["KEY_FILE"]).read() == os.environ["HF_TOKEN"]; print(os'
)


@pytest.fixture(scope="module")
def project(testbed: Testbed) -> Iterator[Path]:
    """A directory on shared storage with an environment whose every Python writes down what it was started with."""
    directory = testbed.shared / "secrets: it's #1 ü".replace(":", "")
    directory.mkdir()
    (directory / "spied").mkdir()
    tool = make(directory / "tool", str(ROOT), "openmpi", "mpi4py", python="/usr/bin/python3")
    (site,) = tool.glob("lib/python3*/site-packages")
    (site / "spy.py").write_text(SPY.format(spied=str(directory / "spied")))
    (site / "spy.pth").write_text("import spy\n")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def spied(project: Path) -> list[tuple[str, str]]:
    """Return command line and environment of each Python that was started in the environment, and forget them."""
    found = []
    for path in (project / "spied").iterdir():
        argv, environ = json.loads(path.read_text())
        found.append((" ".join(argv), repr(environ)))
        path.unlink()
    return found


def left_on(testbed: Testbed, host: str, secret: str, *places: Path | str) -> str:
    """Return the files on a host that hold a piece of the secret in any form, but for this checkout's own."""
    patterns = {one for form in FORMS.values() for one in pieces(form(secret), 8) if "\n" not in one}
    command = [
        "grep",
        "-rlaF",
        "-D",
        "skip",
        "--exclude=.env",
        "--exclude-dir=spied",
        "--exclude=.multihost-manifest",
        "-f",
        "-",
        *places,
    ]
    done = testbed.run(host, command, input="\n".join(sorted(patterns)) + "\n", timeout=60)
    own = (f"{ROOT}/", f"{sys.prefix}/")  # they have pieces of the long one's pattern, and may lie in /tmp
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith(own))


@pytest.mark.mpi_programs
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes hosts, which takes root")
@pytest.mark.parametrize(
    ("secret", "launcher"), [(OWN_CANARY, "ssh"), (OWN_LONG, "openmpi")], ids=["24, ssh", "many, openmpi"]
)
def test_only_the_ranks_of_two_hosts_have_a_secret(testbed: Testbed, project: Path, secret: str, launcher: str) -> None:
    """Reliability tests S1 and S8 on two hosts, from the build of the environment to the report."""
    job = project / f"job {launcher}"
    job.mkdir()
    value = dotenv(secret)
    prepare(job, value + value.replace("HF_TOKEN", "KEY"), ON_BOTH.replace("LENGTH", str(len(secret))))
    built = not (project / "python_env").exists()
    (job / "multihost-env.toml").write_text(
        f'venv = "../tool"\ntarget = "../python_env"\nhosts = "n1:1,n2:1"\nlauncher = "{launcher}"\ncheck = "drift"\n'
        'dotenv = ".env"\nsecrets = ["HF_TOKEN"]\nsecret-files = ["KEY"]\nsetup = [["python", "-c", "import this"]]\n'
    )
    command = [project / "tool" / "bin" / "python", "-m", "pytest", "-rA", "--showlocals", "--junitxml=junit.xml"]
    with Sampler() as sampler:
        done = testbed.run("n1", [*command, "--log-file=log"], cwd=job, env={}, timeout=200)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "assert not" in done.stdout, done.stdout
    assert "***" in done.stdout
    judge(sampler, job, done.stdout + done.stderr, secret)
    seen = spied(project)
    have = {line for line, environ in seen if found(environ, secret)}
    assert have
    assert all("pytest_multihost_env.gang.rank" in line for line in have), have
    # The set-up command, the pytest before and in the environment, the far ends, the checks, the ranks.
    for words in ("import this" if built else "-m pytest", "-m pytest", "bootstrap.py", "snapshot", "gang.rank"):
        assert [line for line, _ in seen if words in line], (words, sorted({line for line, _ in seen}))
    for host in ("n1", "n2"):
        assert left_on(testbed, host, secret, "/tmp", "/run", "/dev/shm", testbed.local) == ""
        assert testbed.run(host, ["sh", "-c", "ls -d /dev/shm/multihost*"]).stdout == ""
    # By chance, digits of the long one may stand in some package.
    assert left_on(testbed, "n1", secret, testbed.shared if secret == OWN_CANARY else job) == ""


ON_TWO_HOSTS = {"ssh": (), "openmpi": (), "srun": ("salloc", "-Q", "-N2", "--ntasks-per-node=1")}
ALL_ARRIVE = """
    import hashlib, json, os
    import pytest

    @pytest.mark.multihost(ranks=2, per_host=1)
    def test_values(multihost):
        expected = json.load(open("digests.json"))
        found = {name: hashlib.sha256(os.environb.get(name.encode(), b"absent")).hexdigest() for name in expected}
        assert [name for name in expected if found[name] != expected[name]] == []
        assert len(expected) > 200
"""


@pytest.mark.mpi_programs
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes hosts, which takes root")
@pytest.mark.parametrize("launcher", ON_TWO_HOSTS)
def test_s3_every_value_arrives_on_another_host_byte_for_byte_as_a_variable_or_as_a_secret(
    testbed: Testbed, project: Path, launcher: str, request: pytest.FixtureRequest
) -> None:
    if launcher == "srun":
        request.getfixturevalue("slurm")
    job = project / f"values {launcher}"
    suites.write(job, ALL_ARRIVE)
    values = {f"VALUE_{at}": value for at, value in enumerate(awkward())}
    digests = {name: hashlib.sha256(os.fsencode(value)).hexdigest() for name, value in values.items()}
    (job / "digests.json").write_text(json.dumps(digests))
    secrets = [name for name, value in values.items() if 8 <= len(value) < 16_384]
    assert len(secrets) > 20
    (job / "multihost-env.toml").write_text(
        f'launcher = "{launcher}"\ncheck = "off"\nsecrets = {json.dumps(secrets)}\n[environment]\npass = ["VALUE_"]\n'
    )
    before = ON_TWO_HOSTS[launcher]
    words = [*before, project / "tool" / "bin" / "python", "-m", "pytest"]
    words += [] if before else ["--multihost-hosts=n1:1,n2:1"]
    done = testbed.run("n1", words, cwd=job, env=values, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
