"""A build that failed is not repeated by the rest of the job when it would fail again, and is when it may not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_multihost_env import provision
from pytest_multihost_env.errors import NotReady, Passing, UsageProblem
from pytest_multihost_env.provision import failures
from tests.integration.test_provision_races import HOSTS, ROOT, several_hosts
from tests.integration.tiny import TinyBuilder, finish, make_source


@pytest.fixture
def source(special: Path) -> Path:
    return make_source(special / "source")


def ensure(source: Path, builder: TinyBuilder, *, force: bool = False) -> None:
    request = provision.ProvisionRequest(source, source.parent / "shared" / "python_env", force=force)
    provision.ensure(request, notify=print, recipe=provision.Recipe(builder, finish))


def begins(log: Path) -> int:
    return log.read_text().count("begin")


def records(source: Path) -> list[Path]:
    return sorted(source.parent.glob("shared/.python_env.d/v1/*/FAIL-*"))


class Raising(TinyBuilder):
    """Fails with the error that it is given."""

    error: Exception

    def build(self, source: Path, destination: Path, work: object) -> None:
        self._note("begin")
        raise self.error


def raising(log: Path, error: Exception) -> Raising:
    builder = Raising(log)
    builder.error = error
    return builder


def test_what_would_fail_again_is_told_and_not_tried(source: Path, special: Path) -> None:
    log = special / "log"
    bad = raising(
        log, NotReady("no solution", where="r.txt", expected="one", hint="relax it", details={"uv said": "a"})
    )
    with pytest.raises(NotReady, match=r"^no solution"):
        ensure(source, bad)
    with pytest.raises(NotReady) as caught:
        ensure(source, bad)
    assert begins(log) == 1
    text = str(caught.value)
    assert re.search(
        rf"^the build on host \S+, pid {os.getpid()}, since .* failed at \d\d:\d\d:\d\d .*: no solution", text
    )
    assert caught.value.where == "r.txt"
    assert caught.value.expected == "one"
    assert caught.value.details == {"uv said": "a"}
    assert re.search(
        r"relax it; it is tried again in [1-6]?\d s, or at once with `multihost-env provision --force`", text
    )


def test_force_tries_at_once_and_a_success_clears_the_records(source: Path, special: Path) -> None:
    with pytest.raises(NotReady):
        ensure(source, TinyBuilder(fail="no wheel"))
    ensure(source, TinyBuilder(), force=True)
    assert records(source) == []
    ensure(source, TinyBuilder(fail="never asked"))


def test_after_the_cool_down_it_is_tried_again(source: Path, special: Path) -> None:
    with pytest.raises(NotReady):
        ensure(source, TinyBuilder(fail="no wheel"))
    (record,) = records(source)
    past = time.time() - failures.COOL_DOWN - 1
    os.utime(record, (past, past))
    ensure(source, TinyBuilder())
    assert records(source) == []


def test_a_record_from_the_future_keeps_nobody(source: Path) -> None:
    """A host that sets times itself, by a clock that is an hour fast."""
    with pytest.raises(NotReady):
        ensure(source, TinyBuilder(fail="no wheel"))
    (record,) = records(source)
    os.utime(record, (time.time() + 3600,) * 2)
    ensure(source, TinyBuilder())


PASSING = {
    "said so": Passing("the index cannot be reached", hint="see to it"),
    "no space": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"),
    "a program's own fault": ZeroDivisionError("division by zero"),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_may_go_better_is_tried_at_once(case: str, source: Path, special: Path) -> None:
    log = special / "log"
    for _ in range(2):
        with pytest.raises(NotReady):
            ensure(source, raising(log, PASSING[case]))
    assert begins(log) == 2
    ensure(source, TinyBuilder(log))


def test_an_error_of_the_system_in_other_words_is_one_still() -> None:
    def named() -> None:
        try:
            raise OSError(errno.EIO, "broken")
        except OSError as error:
            raise NotReady("copying failed") from error

    def hidden() -> None:
        try:
            raise OSError(errno.EIO, "broken")
        except OSError:
            raise NotReady("it cannot be read") from None

    for call in (named, hidden):
        with pytest.raises(NotReady) as caught:
            call()
        assert not failures.repeats(caught.value)
    own_cause = NotReady("no")
    own_cause.__cause__ = own_cause
    assert failures.repeats(own_cause)
    assert failures.repeats(NotReady("no"))
    assert failures.repeats(UsageProblem("no"))
    assert not failures.repeats(KeyboardInterrupt())


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"builder": 3}', b"\xff"])
def test_a_record_that_nobody_can_read_keeps_nobody(content: bytes, source: Path) -> None:
    with pytest.raises(NotReady):
        ensure(source, TinyBuilder(fail="no wheel"))
    records(source)[0].write_bytes(content)
    ensure(source, TinyBuilder())


def test_a_record_names_the_builder_and_holds_no_more_than_was_said(source: Path) -> None:
    with pytest.raises(NotReady):
        ensure(source, TinyBuilder(fail="no wheel"))
    content = json.loads(records(source)[0].read_text())
    assert content["repeats"] is True
    assert content["builder"]["pid"] == os.getpid()
    assert content["error"]["what"] == "no wheel"
    assert not list(records(source)[0].parent.glob(".*"))


@several_hosts
def test_eight_processes_on_four_hosts_try_once_and_all_are_told_why(source: Path, special: Path) -> None:
    log = special / "log"
    program = [sys.executable, "-m", "tests.integration.tiny", source, special / "shared" / "python_env"]
    options = ["--log", log, "--pause", "0.03", "--fail", "numpy 9 has no wheel for this Python"]
    started = []
    with contextlib.ExitStack() as stack:
        for number in range(8):
            host = HOSTS[number % len(HOSTS)]
            shell = ["unshare", "--uts", "sh", "-c", 'hostname "$1"; shift; exec "$@"', "sh", host]
            started.append(
                stack.enter_context(
                    subprocess.Popen([*shell, *program, *options], stderr=subprocess.PIPE, text=True, cwd=ROOT)
                )
            )
            time.sleep(0.6)
        said = [process.communicate(timeout=60)[1] for process in started]
    assert begins(log) == 1
    assert [process.returncode for process in started] == [3] * 8
    assert all("numpy 9 has no wheel for this Python" in text for text in said)
    (host,) = {line.split()[1] for line in log.read_text().splitlines()}
    others = [text for text in said if "the build on" in text]
    assert len(others) == 7
    assert all(f"the build on host {host}" in text for text in others)
