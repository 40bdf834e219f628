"""Compares the copy of a virtual environment with `cp -a`, `rsync -a` and `shutil.copytree`, on several kinds of storage.

    python benchmarks/copying.py [--storage ext4,tmpfs,slow,xfs,btrfs] [--rounds 5] [--source ENV] [--directory DIR]

Needs root: each file system is made in a file of its own and mounted where only this program and its children see it.
`slow` is a tmpfs on which each call that a file server would answer takes 200 us longer (latency.c, made with cc).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure

PACKAGES = ("numpy", "scipy", "pandas", "matplotlib", "sympy", "scikit-learn", "pytest")
SLOW = ("numpy", "scipy", "sympy")
"""Packages of the part that is copied on slow storage, where `rsync -a` takes a minute for all."""

STORAGES = ("ext4", "tmpfs", "slow", "xfs", "btrfs")
_INSIDE = "MULTIHOST_BENCHMARK_MOUNTS"
_MICROSECONDS = 200
Case = Callable[[], measure.Sample]


# -- one call, in a process of its own ---------------------------------------------------------------------------


def once(how: str, source: Path, destination: Path) -> None:
    """Copy, and print the seconds of the call: starting a Python is not part of it."""
    from pytest_multihost_env.protocols import Work
    from pytest_multihost_env.provision.copy import copy_tree

    work = Work()
    began, used = time.perf_counter(), _used()
    if how == "copytree":
        shutil.copytree(source, destination, symlinks=True)
    else:
        copy_tree(source, destination, work=work, digests=how == "digests")
    print(json.dumps({"wall": time.perf_counter() - began, "cpu": _used() - used}))
    if how == "digests" and not work.read:
        raise SystemExit("no digest was taken")


def _used() -> float:
    return measure.processor(resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


# -- storage -----------------------------------------------------------------------------------------------------


def mount(kind: str, top: Path, size: str = "10G") -> Path:
    """Mount fresh storage of that kind and return where."""
    place = top / kind
    place.mkdir()
    if kind in {"tmpfs", "slow"}:
        _do("mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "benchmark", str(place))
        return place
    image = top / f"{kind}.image"
    _do("truncate", "-s", size, str(image))
    _do(f"mkfs.{kind}", "-q", str(image))
    _do("mount", "-o", "loop", str(image), str(place))
    return place


def _do(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def _latency(top: Path) -> Path:
    library = top / "latency.so"
    flags = ["-O2", "-fno-delete-null-pointer-checks", "-Wno-nonnull-compare", "-shared", "-fPIC"]
    _do("cc", *flags, "-o", str(library), str(measure.ROOT / "benchmarks" / "latency.c"), "-ldl")
    return library


# -- all, in turn ------------------------------------------------------------------------------------------------


def cases(kind: str, place: Path, tool: Path, library: Path | None) -> dict[str, Case]:
    """Return what is compared on one kind of storage; what the others are divided by comes first."""
    variables = measure.environ(tool)
    if library is not None:
        delay = {"LATENCY_US": str(_MICROSECONDS), "LATENCY_BELOW": str(place)}
        variables |= {**delay, "LD_PRELOAD": str(library)}
    source, destination = place / "source", place / "copy"
    python = [str(tool / "bin" / "python"), __file__, "--once"]

    def program(*words: str) -> Case:
        def case() -> measure.Sample:
            try:
                return measure.run([*words, str(destination)], env=variables, cwd=place)
            finally:
                _clear(destination)

        return case

    def call(how: str) -> Case:
        whole = program(*python, how, str(source))

        def case() -> measure.Sample:
            told = json.loads(whole().output)
            return measure.Sample(told["wall"], told["cpu"])

        return case

    ours = {"copy_tree": call("plain"), "copy_tree, with digests": call("digests")}
    if kind in {"xfs", "btrfs"}:
        copy = ("cp", "-a")
        kinds = {
            f"cp -a --reflink={how}": program(*copy, f"--reflink={how}", str(source)) for how in ("never", "always")
        }
        return {**kinds, **ours}
    peers = {"cp -a": program("cp", "-a", str(source))}
    if shutil.which("rsync"):
        peers["rsync -a"] = program("rsync", "-a", f"{source}/")
    return {**peers, "shutil.copytree": call("copytree"), **ours}


def _clear(destination: Path) -> None:
    """Remove a copy, and have nothing left to be written when the next begins."""
    shutil.rmtree(destination, ignore_errors=True)
    _do("sync", "-f", str(destination.parent))


def table(kind: str, series: dict[str, measure.Series], files: str) -> measure.Table:
    """Return the comparison."""
    base = next(iter(series.values()))
    rows = []
    for name, one in series.items():
        ratios = (one.median / base.median, one.least / base.least, one.cpu / base.cpu)
        rows.append((name, one.median, one.least, one.cpu, *ratios))
    name = next(iter(series))
    columns = ("what", "median s", "min s", "min processor s", f"times {name}: medians", "mins", "processor")
    return measure.Table(f"{kind}, {files}", columns, tuple(rows))


def compare(top: Path, options: argparse.Namespace) -> None:
    """Make the source in `top`, measure on each kind of storage, and report."""
    source = options.source or measure.environment(top / "made", *PACKAGES)
    tool = measure.environment(top / "tool", str(measure.ROOT))
    tables, all_series = [], {}
    for kind in options.storage.split(","):
        place = mount(kind, top)
        part = [path for name in SLOW for path in source.glob(f"lib/python3*/site-packages/{name}")]
        (place / "source").mkdir()
        _do("cp", "-a", *map(str, part if part and kind == "slow" else source.iterdir()), str(place / "source"))
        _do("sync", "-f", str(place))
        entries = [path for path in (place / "source").rglob("*") if path.is_file() and not path.is_symlink()]
        files = f"{len(entries):,} files, {sum(path.stat().st_size for path in entries) / 1e6:,.0f} MB"
        library = _latency(top) if kind == "slow" else None
        series = measure.in_turn(cases(kind, place, tool, library), options.rounds)
        tables.append(table(kind, series, files))
        print(tables[-1].text(), flush=True)
        all_series |= {f"{kind}: {name}": one for name, one in series.items()}
        _do("umount", str(place))
        (top / f"{kind}.image").unlink(missing_ok=True)
    measure.report(tables, all_series, json_file=options.json)


def main() -> None:
    """Measure and report."""
    measure.unwind_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default=",".join(STORAGES), help="which kinds (all)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--source", type=Path, help="an environment to copy, instead of one made from PyPI")
    parser.add_argument("--directory", type=Path, help="where to keep the file systems")
    parser.add_argument("--json", type=Path, help="file for the tables and every single run")
    parser.add_argument("--once", nargs=3, metavar=("HOW", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.storage.split(",")) - set(STORAGES)
    if options.once:
        once(options.once[0], Path(options.once[1]), Path(options.once[2]))
    elif unknown:
        parser.error(f"no such storage: {', '.join(sorted(unknown))}; there are {', '.join(STORAGES)}")
    elif os.environ.get(_INSIDE):
        compare(Path(os.environ[_INSIDE]), options)
    elif os.geteuid():
        parser.error("only root may mount file systems")
    else:
        with tempfile.TemporaryDirectory(prefix="multihost-benchmark-", dir=options.directory) as name:
            command = ["unshare", "--mount", sys.executable, *sys.argv]
            raise SystemExit(subprocess.run(command, env={**os.environ, _INSIDE: name}).returncode)


if __name__ == "__main__":
    main()
