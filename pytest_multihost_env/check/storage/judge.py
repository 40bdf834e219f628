"""What the measurements mean.  Pure: what the hosts said in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_multihost_env import filesystem
from pytest_multihost_env.check.doctor.finding import ERROR, OK, WARNING, Finding, Report, finding
from pytest_multihost_env.check.doctor.hosts import reachable
from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.storage import figures, together
from pytest_multihost_env.check.storage.rounds import Answer, Measured
from pytest_multihost_env.check.storage.rules import ELSEWHERE, EXTRAS, PROBLEMS, RULES, Rule

_KINDS = {
    "link": (
        "a hard link refuses a taken name",
        "{hosts} cannot publish by a hard link; a symlink does it there, so nothing of ours is missing",
    ),
    "symlink": (
        "a symlink refuses a taken name",
        "a symlink does not refuse a taken name on {hosts}; a hard link does, so nothing of ours is missing",
    ),
}
"""Question, and what it means that only the other one works."""


def judge(measured: Measured) -> Report:
    """Return what a person should know about the directory."""
    findings = tuple(_findings(measured))
    return Report(measured.hosts, findings, _summary(measured, findings))


def _findings(measured: Measured) -> Iterator[Finding]:
    if measured.silent or len(measured.hosts) > 1:
        yield reachable(measured.silent, measured.hosts)
    if measured.alone:
        yield _usable(measured)
    if measured.met:
        yield together.same(measured)
    able = {host: answer for host, answer in measured.alone.items() if "problem" not in answer}
    yield from figures.mounts(measured.alone)
    if able:
        yield from figures.findings(able)
        yield from _trials(able)
    yield from together.findings(measured)
    if able:
        yield from (_trial(rule, able) for rule in EXTRAS)
    if measured.left:
        yield _left(measured)


def _usable(measured: Measured) -> Finding:
    answers: dict[str, tuple[str, str]] = {}
    said, remedies = [], []
    for host, answer in measured.alone.items():
        problem = answer.get("problem")
        answers[host] = (OK, "yes") if problem is None else (ERROR, f"no: {problem['errno']}")
        if problem is not None:
            said.append(f"{host}: {problem['says']}")
            remedies.append(f"on {host}: " + PROBLEMS.get(problem["errno"], "see to the file system"))
    sentence = f"{measured.directory} cannot be used: " + "; ".join(said)
    return finding("usable", "files can be made here", answers, sentence, "; ".join(remedies))


def _trials(able: Mapping[str, Answer]) -> Iterator[Finding]:
    yield from _publishing(able)
    yield from (_trial(rule, able) for rule in RULES)


def _trial(rule: Rule, able: Mapping[str, Answer]) -> Finding:
    answers = {host: rule.judged(answer["trials"]) for host, answer in able.items()}
    return finding(rule.trial, rule.question, answers, rule.sentence, rule.remedy)


def _publishing(able: Mapping[str, Answer]) -> Iterator[Finding]:
    """Judge link and symlink together: one of them has to refuse a taken name (`files.publish_once`)."""
    outcomes = {host: (answer["trials"]["link"], answer["trials"]["symlink"]) for host, answer in able.items()}
    whys = {host: filesystem.verdict(*pair) for host, pair in outcomes.items()}
    why = next((text for text in whys.values() if text), None)
    for index, (subject, (question, spare)) in enumerate(_KINDS.items()):
        answers = {
            host: (OK if pair[index] == filesystem.REFUSES else ERROR if whys[host] else WARNING, pair[index])
            for host, pair in outcomes.items()
        }
        sentence = f"nothing can be published once from {fold(h for h in whys if whys[h])}: {why}" if why else spare
        yield finding(subject, question, answers, sentence, ELSEWHERE if why else "expect other programs to fail on it")


def _left(measured: Measured) -> Finding:
    path = measured.directory / measured.name
    return finding(
        "left",
        "nothing is left behind",
        {host: (WARNING, "no") if host in measured.left else (OK, "yes") for host in measured.alone},
        f"{path} could not be taken away",
        f"remove it: rm -r {path}",
    )


def _summary(measured: Measured, findings: tuple[Finding, ...]) -> str:
    errors = sum(one.verdict == ERROR for one in findings)
    warnings = sum(one.verdict == WARNING for one in findings)
    where, hosts = measured.directory, fold(measured.hosts)
    if errors:
        return f"{where} is NOT good enough for an environment that {hosts} share: {figures.counted(errors, 'error')}"
    but = f", with {figures.counted(warnings, 'warning')}" if warnings else ""
    if len(measured.hosts) == 1:
        return (
            f"publish-once works at {where} on {hosts}{but}; between hosts nothing was measured: name the hosts of the "
            "job with --multihost-hosts"
        )
    return f"publish-once works at {where}{but}: {hosts} can share an environment there"
