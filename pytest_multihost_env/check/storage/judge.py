"""What the measurements mean.  Pure: what the hosts said in, findings out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pytest_multihost_env import filesystem
from pytest_multihost_env.check.doctor.finding import ERROR, OK, WARNING, Finding, Report, finding
from pytest_multihost_env.check.doctor.hosts import reachable
from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.storage import figures, together
from pytest_multihost_env.check.storage.rounds import NO_ANSWER, Answer, Measured
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


def judge(measured: Measured, also: Iterable[Finding] = ()) -> Report:
    """Return what a person should know about the directory; `also` is what was found in another way."""
    findings = (*_findings(measured), *also)
    return Report(measured.hosts, findings, _summary(measured, findings))


def _findings(measured: Measured) -> Iterator[Finding]:
    if measured.silent or len(measured.hosts) > 1:
        yield _answering(measured)
    if len(measured.alone) > 1:
        yield together.machines(measured)
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


def _answering(measured: Measured) -> Finding:
    """Say who answers; a host that was reached and then fell silent has storage that hangs, and is not gone."""
    hangs = {host: why for host, why in measured.silent.items() if why.startswith(NO_ANSWER)}
    found = reachable(
        {
            host: f"{why}: the file system may hang there" if host in hangs else why
            for host, why in measured.silent.items()
        },
        measured.hosts,
    )
    if not hangs:
        return found
    looking = f"see whether `ls {measured.directory}` hangs on {fold(hangs)}, and mount it again there"
    return dataclasses.replace(
        found, remedy=looking if len(hangs) == len(measured.silent) else f"{looking}; {found.remedy}"
    )


def _usable(measured: Measured) -> Finding:
    answers: dict[str, tuple[str, str]] = {}
    said: dict[str, list[str]] = {}
    remedies: dict[str, list[str]] = {}
    for host, answer in measured.alone.items():
        problem = answer.get("problem")
        answers[host] = (OK, "yes") if problem is None else (ERROR, f"no: {problem['errno']}")
        if problem is not None:
            said.setdefault(problem["says"], []).append(host)
            remedies.setdefault(_remedy(problem, measured.directory), []).append(host)
    sentence = f"{measured.directory} cannot be used: " + "; ".join(
        f"{text} on {fold(at)}" for text, at in said.items()
    )
    remedy = "; ".join(f"on {fold(at)}, {text}" for text, at in remedies.items())
    return finding("usable", "files can be made here", answers, sentence, remedy)


def _remedy(problem: Mapping[str, str], directory: Path) -> str:
    if problem["errno"] == "ENOENT" and problem["path"] != str(directory):
        return ELSEWHERE  # it is there, and nothing can be made in it, as in /proc
    return PROBLEMS.get(problem["errno"], "see to the file system")


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
    errors = sum(one.verdict == ERROR for one in findings if not one.unreachable)
    warnings = sum(one.verdict == WARNING for one in findings)
    where, hosts = measured.directory, fold(host for host in measured.hosts if host not in measured.silent)
    alone = len(measured.hosts) - len(measured.silent) == 1
    unknown = f"; of {fold(measured.silent)} nothing is known" if measured.silent else ""
    if not hosts:
        return f"nothing is known of {where}: no host answered"
    if errors:
        sharing = "" if alone else f" that {hosts} share"
        return f"{where} is NOT good enough for an environment{sharing}: {figures.counted(errors, 'error')}{unknown}"
    but = f", with {figures.counted(warnings, 'warning')}" if warnings else ""
    if alone:
        more = unknown or "; between hosts nothing was measured: name the hosts of the job with --multihost-hosts"
        return f"publish-once works at {where} on {hosts}{but}{more}"
    return f"publish-once works at {where}{but}: {hosts} can share an environment there{unknown}"
