"""Whether every host imports every module."""

from __future__ import annotations

import pytest

from pytest_multihost_env.check.fixtures import SmokeCheck
from pytest_multihost_env.check.smoke import smoke
from pytest_multihost_env.check.values import Imported, Snapshot, Unanswered
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.table import render


def host(**modules: str | None) -> Snapshot:
    """A host on which these modules end with an error, or None: well."""
    return Snapshot(modules={name: Imported(error=error, output="loud\n") for name, error in modules.items()})


def test_every_host_and_every_module() -> None:
    assert smoke({"n1": host(torch=None, numpy=None), "n2": host(torch=None, numpy=None)}, ["torch", "numpy"]).passed


def test_a_failure_is_named_with_its_reason_and_what_was_printed() -> None:
    findings = smoke(
        {"n1": host(torch=None), "n2": host(torch="ImportError: x"), "n3": host(torch="ImportError: x")}, ["torch"]
    )

    assert findings.sentences == ("torch: n[2-3] cannot import it: ImportError: x",)
    assert findings.notes[0] == "n2: while importing torch: loud"
    assert "!= ImportError: x" in render(findings.table)


def test_a_module_that_a_host_does_not_mention_was_not_tried() -> None:
    findings = smoke({"n1": host(torch=None), "n2": host()}, ["torch"])

    assert [(d.kind, d.hosts) for d in findings.differences] == [("not-run", ("n2",))]
    assert not findings.passed


def test_a_host_without_an_answer_fails() -> None:
    for answer, kind in ((Unanswered("gone"), "unreachable"), (Unanswered("code 1", reached=True), "not-run")):
        findings = smoke({"n1": host(torch=None), "n2": answer}, ["torch"])
        assert [(d.kind, d.hosts) for d in findings.differences] == [(kind, ("n2",))]
        assert not findings.passed
        assert not smoke({"n2": answer}, ["torch"]).passed


def test_nothing_to_try_is_an_error() -> None:
    for answers, modules in (({}, ["torch"]), ({"n1": host()}, [])):
        with pytest.raises(UsageProblem):
            smoke(answers, modules)


@pytest.mark.parametrize("modules", [(), ("torch>=2",), ("",), ("a..b",), ("my-module",)])
def test_what_is_no_module_is_refused_before_any_host_is_asked(modules: tuple[str, ...]) -> None:
    with pytest.raises(UsageProblem):
        SmokeCheck(lambda _: pytest.fail("a host was asked")).assert_imports(*modules)
