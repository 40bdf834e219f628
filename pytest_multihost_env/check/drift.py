"""Where hosts differ, and which host is the odd one out.  Pure: answers in, a report out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pytest_multihost_env.check.grid import fold
from pytest_multihost_env.check.outcome import (
    DEFAULT,
    EXTRA,
    MISMATCH,
    MISSING,
    NOT_RUN,
    SHADOWED,
    UNREACHABLE,
    Difference,
    Findings,
    Policy,
    Row,
)
from pytest_multihost_env.check.values import Answers, Snapshot, Unanswered
from pytest_multihost_env.check.versions import STRICT, same, same_here
from pytest_multihost_env.errors import UsageProblem

_VERBS = {"imported": ("imports", "import"), "loaded": ("has loaded", "have loaded")}


def compare(answers: Answers, *, packages: Sequence[str] | None = None, policy: Policy = DEFAULT) -> Findings:
    """Compare what the hosts answered.

    The value that most hosts have is the reference; the first host's among equally frequent ones.

    Args:
        answers: Each host's answer, in the order of the job's hosts.
        packages: The names that the hosts were asked for; None: all distributions.
        policy: What counts as a difference.

    Raises:
        UsageProblem: There is no host or nothing to compare: that is never a pass.
    """
    if not answers:
        raise UsageProblem("no host was compared", hint="name the hosts of the job (--multihost-hosts)")
    if packages is not None and not packages:
        raise UsageProblem("no package was compared", hint="name a package, or leave the names out to compare all")
    comparison = Comparison(answers, policy)
    comparison.silence()
    if packages is None:
        comparison.distributions({name for s in comparison.snapshots.values() for name in s.declared}, asked=False)
    for name in dict.fromkeys(packages or ()):
        comparison.package(name)
    if comparison.snapshots and not comparison.rows:
        raise UsageProblem("no host has any distribution to compare", hint="is this the environment's python?")
    comparison.surroundings()
    if len(comparison.hosts) == 1:
        comparison.notes.append(f"{comparison.hosts[0]} is the only host: it was compared with nothing but itself")
    return comparison.report(brief=packages is None)


class Comparison:
    """Collects rows and differences; each method looks at one kind of thing."""

    def __init__(self, answers: Answers, policy: Policy) -> None:
        self.hosts = tuple(answers)
        self.policy = policy
        self.rows: list[Row] = []
        self.differences: list[Difference] = []
        self.notes: list[str] = []
        self._silent = {host: a for host, a in answers.items() if isinstance(a, Unanswered)}
        self.snapshots: dict[str, Snapshot] = {h: a for h, a in answers.items() if isinstance(a, Snapshot)}

    def report(self, *, brief: bool) -> Findings:
        """Return what was collected."""
        # Two asked names may mean the same distribution.
        rows = {(row.subject, row.layer): row for row in reversed(self.rows)}
        return Findings(
            hosts=self.hosts,
            rows=tuple(reversed(rows.values())),
            differences=tuple(dict.fromkeys(self.differences)),
            notes=tuple(dict.fromkeys(self.notes)),
            brief=brief,
        )

    def silence(self) -> None:
        """Hold every host that gave no answer to be a difference."""
        for host, answer in self._silent.items():
            kind, verb = (NOT_RUN, "was not checked") if answer.reached else (UNREACHABLE, "gave no answer")
            self.add(kind, "", "host", [host], f"{host} {verb}: {answer.reason}")

    def package(self, name: str) -> None:
        """Compare one asked name: its distributions, then its modules on the hosts that have any."""
        unasked = [host for host, s in self.snapshots.items() if name not in s.asked]
        if unasked:
            self.rows.append(Row(name, "declared", dict.fromkeys(unasked, "not run")))
            self.add(NOT_RUN, name, "declared", unasked, f"{name}: {fold(unasked)} did not look for it")
        found = [s.asked[name] for s in self.snapshots.values() if name in s.asked]
        dists = list(dict.fromkeys(d for asked in found for d in asked.distributions))
        self.distributions(dists, asked=True)
        # A host without the distribution has been named for that; a failed import there says nothing more.
        able = [h for h, s in self.snapshots.items() if not dists or any(d in s.declared for d in dists)]
        looked = [self.snapshots[h].asked[name] for h in able if name in self.snapshots[h].asked]
        modules = list(dict.fromkeys(m for asked in looked for m in asked.modules))
        for module in modules:
            self.module(module, able)
        if found and not dists and not modules:
            self._compare(name, "declared", dict.fromkeys(self.snapshots), asked=True)
        self.libraries(modules)

    def distributions(self, names: Sequence[str] | set[str], *, asked: bool) -> None:
        """Compare versions; then files and commits among the hosts whose version is the reference."""
        for name in sorted(names) if isinstance(names, set) else names:
            got = {host: s.declared.get(name) for host, s in self.snapshots.items()}
            versions = {host: d.version if d else None for host, d in got.items()}
            for host, dist in got.items():
                if dist and dist.hidden:
                    self.notes.append(f"{host}: {name} {dist.version} in {dist.location} hides {dist.hidden[0]}")
            reference = self._compare(name, "declared", versions, asked=asked)
            alike = {h: d for h, d in got.items() if d and reference and same(d.version, reference, self.policy.local)}
            if any(d.commit for d in alike.values()):
                self._compare(name, "commit", {h: d.commit for h, d in alike.items()}, asked=False)
            if self.policy.local == STRICT and len({d.files for d in alike.values()}) > 1:
                self._compare(name, "files", {h: (d.files or "no RECORD")[:12] for h, d in alike.items()}, asked=False)

    def module(self, name: str, hosts: Sequence[str]) -> None:
        """Compare what was imported, on each host also with what its metadata says."""
        results = {host: self.snapshots[host].modules.get(name) for host in hosts}
        silent = [host for host, result in results.items() if result is None]
        done = {host: r for host, r in results.items() if r is not None}
        failed = {host: r.error for host, r in done.items() if r.error is not None}
        good = {h: r.version or "unversioned" for h, r in done.items() if r.error is None}
        values: dict[str, str | None] = dict.fromkeys(silent, "not run")
        self._compare(name, "imported", dict(good), asked=True, shown={**values, **failed})
        self.faults(name, hosts)

    def faults(self, name: str, hosts: Sequence[str]) -> None:
        """Record imports that were not tried, that failed, or that gave something else than is declared."""
        silent = [host for host in hosts if name not in self.snapshots[host].modules]
        if silent:
            self.add(NOT_RUN, name, "imported", silent, f"{name}: {fold(silent)} did not try to import it")
        done = {host: r for host in hosts if (r := self.snapshots[host].modules.get(name)) is not None}
        for error, unable in _by_value({h: r.error for h, r in done.items() if r.error is not None}).items():
            self.add(MISSING, name, "imported", unable, f"{name}: {fold(unable)} cannot import it: {error}")
        for reason, fooled in _by_value({h: self._shadow(h, name) for h, r in done.items() if r.error is None}).items():
            if reason:
                self.add(
                    SHADOWED, name, "imported", fooled, f"{name}: {fold(fooled)} {_verb(fooled, 'imported')} {reason}"
                )

    def _shadow(self, host: str, name: str) -> str | None:
        """Say why the module that this host imported is not the one that its environment declares."""
        snapshot = self.snapshots[host]
        result = snapshot.modules[name]
        allowed = any(result.file and result.file.startswith(root.rstrip("/") + "/") for root in self.policy.outside)
        if result.origin == "outside" and not allowed:
            return f"{result.file}, outside the environment {snapshot.platform.get('prefix')}"
        if result.origin == "misplaced" and not allowed:
            return f"{result.file}, which is not where its distribution is installed"
        claims = [snapshot.declared[d] for d in result.distributions if d in snapshot.declared]
        if len(claims) == 1 and result.version and "." not in name and not same_here(claims[0].version, result.version):
            return f"{result.version} from {result.file}, but its metadata says {claims[0].version}"
        return None

    def libraries(self, modules: Sequence[str]) -> None:
        """Compare the mapped libraries among the hosts that imported all of `modules`."""
        able = {
            host: s
            for host, s in self.snapshots.items()
            if all(m in s.modules and s.modules[m].error is None for m in modules)
        }
        loaded: dict[str, dict[str, list[str]]] = {}
        for host, snapshot in able.items():
            for library in snapshot.loaded:
                if set(library.modules) & set(modules):
                    loaded.setdefault(library.family, {}).setdefault(host, []).append(library.label)
        for family, labels in loaded.items():
            values = {host: ", ".join(sorted(labels[host])) if host in labels else None for host in able}
            self._compare(f"{family} of {', '.join(modules)}", "loaded", values, asked=False)

    def surroundings(self) -> None:
        """Compare the platform and the variables; say what differs but may."""
        for fact in self.policy.facts:
            self._compare(fact, "platform", {h: s.platform.get(fact) for h, s in self.snapshots.items()}, asked=False)
        for fact in self.policy.noted:
            values = _by_value({h: s.platform.get(fact) for h, s in self.snapshots.items()})
            if len(values) > 1:
                self.notes.append(f"{fact} differs: " + "; ".join(f"{fold(h)} {v}" for v, h in values.items()))
        for name in sorted({name for s in self.snapshots.values() for name in s.variables}):
            self._compare(name, "variable", {h: s.variables.get(name) for h, s in self.snapshots.items()}, asked=False)
        for host, snapshot in self.snapshots.items():
            self.notes.extend(f"{host}: {problem}" for problem in snapshot.problems)

    def _compare(
        self,
        subject: str,
        layer: str,
        values: Mapping[str, str | None],
        *,
        asked: bool,
        shown: Mapping[str, str | None] | None = None,
    ) -> str | None:
        """Add the row and its differences; return the reference.  What was `asked` for is nowhere superfluous."""
        self.rows.append(Row(subject, layer, {**values, **(shown or {})}))
        reference = _reference(list(values.values()), asked=asked)
        alike = self._alike(layer)
        for value, hosts in _by_value(values).items():
            if value is None and (asked or reference is not None):
                kind = MISSING
            elif value is not None and reference is None:
                kind = EXTRA
            elif value is not None and reference is not None and not alike(value, reference):
                kind = MISMATCH
            else:
                continue
            others = [h for h, v in values.items() if v == reference or (v and reference and alike(v, reference))]
            odd = len(values) - len(others)
            self.add(kind, subject, layer, hosts, _sentence(subject, layer, (hosts, value), (others, reference), odd))
        return reference

    def _alike(self, layer: str) -> Callable[[str, str], bool]:
        if layer in ("declared", "imported"):
            return lambda a, b: same(a, b, self.policy.local)
        return lambda a, b: a == b

    def add(self, kind: str, subject: str, layer: str, hosts: Sequence[str], sentence: str) -> None:
        """Record that something is wrong."""
        self.differences.append(Difference(kind, subject, layer, tuple(hosts), sentence))


def _reference(values: Sequence[str | None], *, asked: bool) -> str | None:
    candidates = [v for v in values if v is not None or not asked]
    # `Counter` keeps the order of arrival, and `most_common` keeps it among equals.
    return Counter(candidates).most_common(1)[0][0] if candidates else None


def _by_value(values: Mapping[str, str | None]) -> dict[str | None, list[str]]:
    groups: dict[str | None, list[str]] = {}
    for host, value in values.items():
        groups.setdefault(value, []).append(host)
    return groups


def _verb(hosts: Sequence[str], layer: str) -> str:
    one, many = _VERBS.get(layer, ("has", "have"))
    return one if len(hosts) == 1 else many


def _sentence(
    subject: str,
    layer: str,
    odd: tuple[list[str], str | None],
    reference: tuple[list[str], str | None],
    all_odd: int,
) -> str:
    """Say it as `numpy: n3 has 2.1.0, the other 2 hosts have 2.4.6`."""
    about = f"{subject} ({layer})" if layer in ("files", "commit", "platform", "variable") else subject
    hosts, value = odd
    text = f"{about}: {fold(hosts)} {_verb(hosts, layer)} {value or 'none'}"
    others, expected = reference
    if not others or expected == value:
        return text
    if len(others) == 1:
        who = others[0]
    else:
        who = f"the other {len(others)} hosts" if all_odd == len(hosts) else f"{len(others)} hosts"
    return f"{text}, {who} {_verb(others, layer)} {expected or 'none'}"
