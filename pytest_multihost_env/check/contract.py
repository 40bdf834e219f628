"""Whether every host has what a project asks for.  Pure: answers and requirements in, findings out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_multihost_env.check.drift import Comparison
from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.outcome import DEFAULT, MISMATCH, MISSING, NOT_RUN, Findings, Policy, Row
from pytest_multihost_env.check.requirements import Want
from pytest_multihost_env.check.values import Answers, Declared, Snapshot
from pytest_multihost_env.errors import UsageProblem

NOT_APPLICABLE = "not applicable"
_COMMIT = re.compile(r"@([0-9a-f]{7,40})(?:#.*)?$")


def satisfied(answers: Answers, wants: Sequence[Want], *, policy: Policy = DEFAULT, imported: bool = False) -> Findings:
    """Say which host does not have what is wanted.  A requirement whose marker excludes a host is not missing there.

    Args:
        answers: Each host's answer.
        wants: What is to be there.
        policy: What counts as a difference.
        imported: The hosts were told to import it as well, and must have got what their metadata declares.

    Raises:
        UsageProblem: There is no host, no requirement, or none that applies to any host: that is never a pass.
    """
    if not answers:
        raise UsageProblem("no host was checked", hint="name the hosts of the job (--multihost-hosts)")
    if not wants:
        raise UsageProblem("no requirement was checked", hint="name at least one requirement")
    comparison = Comparison(answers, policy)
    comparison.silence()
    for want in wants:
        hosts = _check(comparison, want)
        if imported:
            _same_as_declared(comparison, want.requirement.name, hosts)
    values = [value for row in comparison.rows for value in row.values.values()]
    if values and all(value == NOT_APPLICABLE for value in values):
        raise UsageProblem("no requirement applies to any host, so nothing was checked", hint="check the markers")
    return comparison.report(brief=len(wants) > 20)


def unpinned(wants: Sequence[Want]) -> list[str]:
    """Return a sentence for each requirement that names a branch or a tag, which may be another commit tomorrow."""
    return [
        f"{want.requirement} ({want.where}) is not pinned to a commit"
        for want in wants
        if (want.requirement.url or "").startswith("git+") and not _COMMIT.search(want.requirement.url or "")
    ]


def _check(comparison: Comparison, want: Want) -> list[str]:
    """Add the row of one requirement; return the hosts that have the distribution."""
    values: dict[str, str | None] = {}
    wrong: dict[tuple[str, str], list[str]] = {}
    subject = str(want.requirement)
    for host, snapshot in comparison.snapshots.items():
        values[host], kind = _on_host(snapshot, want)
        if kind is not None:
            wrong.setdefault((kind, values[host] or "none"), []).append(host)
    comparison.rows.append(Row(subject, "required", values))
    for (kind, value), hosts in wrong.items():
        verb = "has" if len(hosts) == 1 else "have"
        text = "did not look for it" if kind == NOT_RUN else f"{verb} {value}"
        comparison.add(kind, subject, "required", hosts, f"{subject} ({want.where}): {fold(hosts)} {text}")
    return [host for host, value in values.items() if value not in (None, NOT_APPLICABLE, "not run")]


def _same_as_declared(comparison: Comparison, name: str, hosts: Sequence[str]) -> None:
    modules = {host: comparison.snapshots[host].asked[name].modules for host in hosts}
    for module in dict.fromkeys(m for names in modules.values() for m in names):
        comparison.faults(module, [host for host, names in modules.items() if module in names])


def _on_host(snapshot: Snapshot, want: Want) -> tuple[str | None, str | None]:
    """Return what a host has and, when that is not what is wanted, the kind of difference."""
    requirement = want.requirement
    if requirement.marker and not requirement.marker.evaluate({**snapshot.markers, "extra": ""}):
        return NOT_APPLICABLE, None
    asked = snapshot.asked.get(requirement.name)
    if asked is None:
        return "not run", NOT_RUN
    found = next((snapshot.declared[d] for d in asked.distributions if d in snapshot.declared), None)
    if found is None:
        return (NOT_APPLICABLE, None) if want.constraint else (None, MISSING)
    if requirement.url:
        return _by_url(found, requirement.url)
    return found.version, None if _contains(want, found.version) else MISMATCH


def _by_url(found: Declared, url: str) -> tuple[str, str | None]:
    pinned = _COMMIT.search(url)
    have = f"{found.version} at {found.commit[:12]}" if found.commit else found.version
    if not url.startswith("git+") or pinned is None:
        return have, None
    return have, None if (found.commit or "").startswith(pinned[1]) else MISMATCH


def _contains(want: Want, version: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return want.requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
