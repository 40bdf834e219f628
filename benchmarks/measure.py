"""Measures programs side by side: in turn, on the same machine, in the same minutes."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

Cell = str | float | None
# They would change what is measured, or how Python and pytest start, in one shell and not in another.
_NOT_OURS = re.compile(r"(OMPI|PRTE|PMIX|PMI|HYDRA|MPI|MPICH|PYTEST|MULTIHOST)_|PYTHON|VIRTUAL_ENV$")


class Failed(Exception):
    """What was to be measured did not do its work."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One run: seconds on the clock, seconds of processor time, and what it printed."""

    wall: float
    cpu: float
    output: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """The runs of one case, in the order of the rounds, and the load of the machine before each."""

    samples: tuple[Sample, ...]
    loads: tuple[float, ...]

    @property
    def walls(self) -> tuple[float, ...]:
        """Seconds on the clock, in the order of the rounds."""
        return tuple(sample.wall for sample in self.samples)

    @property
    def median(self) -> float:
        """Half of the runs were quicker."""
        return statistics.median(self.walls)

    @property
    def least(self) -> float:
        """The quickest run: the one that other programs disturbed least."""
        return min(self.walls)

    @property
    def cpu(self) -> float:
        """The least processor time of a run."""
        return min(sample.cpu for sample in self.samples)


def unwind_on_sigterm() -> None:
    """Have SIGTERM end this process as ctrl-C does, so that the temporary directory goes."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def run(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, expect: str = "") -> Sample:
    """Run a program once, with all that it starts.

    Args:
        argv: The program and its arguments.
        env: Its whole environment.
        cwd: Its working directory.
        expect: A regular expression that its output must contain.

    Raises:
        Failed: It ended with another code than 0, or did not say what was expected.
    """
    before = processor(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    wall = time.perf_counter() - began
    cpu = processor(resource.RUSAGE_CHILDREN) - before
    if done.returncode != 0 or not re.search(expect, done.stdout, re.DOTALL):
        raise Failed(f"{' '.join(argv)}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return Sample(wall, cpu, done.stdout)


def processor(*who: int) -> float:
    """Return the seconds of processor time so far, of this process or of those that it waited for (getrusage(2))."""
    used = [resource.getrusage(one) for one in who]
    return sum(one.ru_utime + one.ru_stime for one in used)


def in_turn(cases: Mapping[str, Callable[[], Sample]], rounds: int) -> dict[str, Series]:
    """Run every case once to warm up, and then in `rounds` rounds, each in the opposite order of the one before."""
    names = list(cases)
    for name in names:
        cases[name]()
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    loads: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            loads[name].append(os.getloadavg()[0])
            samples[name].append(cases[name]())
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return {name: Series(tuple(samples[name]), tuple(loads[name])) for name in names}


def environ(env: Path, **more: str) -> dict[str, str]:
    """Return the variables of a shell in which `env` is activated, without what would change the measurement."""
    kept = {name: value for name, value in os.environ.items() if not _NOT_OURS.match(name)}
    path = f"{env / 'bin'}:{kept.get('PATH', os.defpath)}"
    return {**kept, "VIRTUAL_ENV": str(env), "PATH": path, **more}


def environment(directory: Path, *requirements: str) -> Path:
    """Make a virtual environment with `requirements` from PyPI and return its directory."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    subprocess.run([*pip, *requirements], check=True, env=environ(directory))
    return directory


def versions(env: Path, *names: str) -> str:
    """Return the versions of the distributions `names` in `env`, as `name 1.2, other 3.4`."""
    code = "import sys; from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in sys.argv[1:]), sep=', ')"
    command = [str(env / "bin" / "python"), "-I", "-c", code, *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A title, the names of the columns, and rows; numbers are shown with three places."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def text(self) -> str:
        """Return the table as Markdown."""
        cells = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(self.columns))]
        lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
        lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return f"{self.title}\n\n" + "\n".join(lines) + "\n"


def _shown(cell: Cell) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else (cell or "")


def report(tables: Sequence[Table], series: Mapping[str, Series], *, json_file: Path | None) -> None:
    """Print the machine, its load and the tables; write them with every single run to `json_file`."""
    loads = [load for one in series.values() for load in one.loads]
    rounds = max(len(one.samples) for one in series.values())
    machine: dict[str, Cell] = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processors": float(os.cpu_count() or 0),
        "rounds": float(rounds),
        "least load": min(loads),
        "median load": statistics.median(loads),
        "highest load": max(loads),
    }
    print(
        ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in machine.items()
        )
    )
    for table in tables:
        print(f"\n{table.text()}", end="")
    if json_file is not None:
        runs = {
            name: [{"wall": s.wall, "cpu": s.cpu, "load": load} for s, load in zip(one.samples, one.loads, strict=True)]
            for name, one in series.items()
        }
        data = {"machine": machine, "tables": [dataclasses.asdict(table) for table in tables], "runs": runs}
        json_file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
