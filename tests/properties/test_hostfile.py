"""Laws of host lists: what is written is read, in every grammar, and no text is taken for something else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts import LsfSource, OptionSource, PbsSource, SlurmSource, fold
from pytest_multihost_env.hosts.hostfile import parse
from pytest_multihost_env.hosts.merge import merged
from pytest_multihost_env.hosts.nodeset import unfold
from pytest_multihost_env.model import Allocation, Host
from pytest_multihost_env.names import short_host, valid_host

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,6}(\.[a-z]{1,3}){0,2}", fullmatch=True)
LISTS = st.lists(st.tuples(NAMES, st.integers(1, 64)), min_size=1, max_size=8, unique_by=lambda one: short_host(one[0]))
STYLES = st.sampled_from(
    ["{0} slots={1}", "{0}:{1}", "{0} slots = {1} max_slots={1} # {0}", "\t{0}  max-slots=99 slots={1}"]
)


def pairs(allocation: Allocation | None) -> list[tuple[str, int]]:
    assert allocation is not None
    return [(host.name, host.slots) for host in merged(allocation).hosts]


def lines(text: str) -> Allocation:
    return Allocation(parse(text, "hosts"), "hosts")


@given(LISTS, st.data())
def test_a_hostfile_is_read_as_it_was_written(hosts: list[tuple[str, int]], data: st.DataObject) -> None:
    text = "\n".join(data.draw(STYLES).format(name, slots) for name, slots in hosts)
    assert pairs(lines(text)) == hosts


@given(LISTS)
def test_a_plain_list_counts_its_lines(hosts: list[tuple[str, int]]) -> None:
    assert pairs(lines("\n".join(name for name, slots in hosts for _ in range(slots)))) == hosts


@given(LISTS)
def test_a_set_is_read_as_it_was_written(hosts: list[tuple[str, int]]) -> None:
    assert pairs(OptionSource(",".join(f"{name}:{slots}" for name, slots in hosts)).find({})) == hosts


@given(st.integers(0, 200), st.integers(0, 30), st.integers(1, 4), st.integers(1, 9))
def test_a_range_keeps_its_padding(first: int, more: int, width: int, slots: int) -> None:
    names = [f"n{number:0{width}}" for number in range(first, first + more + 1)]
    text = f"n[{first:0{width}}-{first + more:0{width}}]"
    assert pairs(OptionSource(f"{text}:{slots}").find({})) == [(name, slots) for name in names]
    environ = {"SLURM_JOB_NODELIST": text, "SLURM_TASKS_PER_NODE": f"{slots}(x{len(names)})"}
    assert pairs(SlurmSource().find(environ)) == [(name, slots) for name in names]


@given(LISTS)
def test_what_is_folded_unfolds_to_the_same(hosts: list[tuple[str, int]]) -> None:
    folded = ",".join(fold(Host(name, slots) for name, slots in hosts))
    assert pairs(OptionSource(folded).find({})) == hosts


NUMBERED = st.lists(
    st.builds(
        lambda word, number, width, tail: f"{word}{number:0{width}}{tail}",
        st.sampled_from(["n", "r1n", "10.0.0.", "x0c"]),
        st.integers(0, 12345),
        st.integers(1, 5),
        st.sampled_from(["", "-ib", ".x.org"]),
    ),
    max_size=30,
    unique=True,
)


@given(NUMBERED, st.integers(1, 9))
def test_numbered_names_fold_and_unfold(names: list[str], slots: int) -> None:
    items = fold(Host(name, slots) for name in names)
    assert [name for item in items for name in unfold(item.rpartition(":")[0], "")] == names


ANY = st.one_of(st.text(max_size=30), st.text(alphabet="n12345-[](x),:. \t\r\n#", max_size=30))
VARIABLES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        [
            "SLURM_JOB_ID",
            "SLURM_JOB_NODELIST",
            "SLURM_TASKS_PER_NODE",
            "SLURM_JOB_CPUS_PER_NODE",
            "SLURM_HET_SIZE",
            "SLURM_JOB_NODELIST_HET_GROUP_0",
            "LSB_JOBID",
            "LSB_DJOB_HOSTFILE",
            "LSB_MCPU_HOSTS",
            "LSB_HOSTS",
            "PBS_JOBID",
            "PBS_HOME",
            "PBS_CONF_FILE",
            "PBS_NODEFILE",
        ],
        ANY,
    ),
)


@given(VARIABLES)
def test_any_variables_are_refused_or_give_names_that_a_launcher_may_get(environ: dict[str, str]) -> None:
    problems = []
    for source in (PbsSource(), SlurmSource(), LsfSource()):
        try:
            found = source.find(environ)
            allocation = merged(found) if found is not None else None
        except UsageProblem as problem:
            problems.append(problem)
            continue
        for host in allocation.hosts if allocation is not None else ():
            assert valid_host(host.name)
            assert host.slots >= 1
            assert host.where
    assert all(problem.hint and problem.where for problem in problems)


@given(st.text(alphabet="n1-2[],:.@&!*;$ \n=#/ü", max_size=14))
def test_any_text_is_either_refused_or_gives_names_that_a_launcher_may_get(text: str) -> None:
    for read in (lambda: OptionSource(text).find({}), lambda: lines(text)):
        try:
            allocation = merged(read())
        except UsageProblem:
            continue
        assert allocation.hosts
        assert all(valid_host(host.name) and host.slots >= 1 for host in allocation.hosts)
