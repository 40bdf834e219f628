"""Laws of host lists: what is written is read, in every grammar, and no text is taken for something else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.hosts import OptionSource, SlurmSource
from pytest_multihost_env.hosts.hostfile import parse
from pytest_multihost_env.hosts.merge import merged
from pytest_multihost_env.model import Allocation
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


@given(st.text(alphabet="n1-2[],:.@&!*;$ \n=#/ü", max_size=14))
def test_any_text_is_either_refused_or_gives_names_that_a_launcher_may_get(text: str) -> None:
    for read in (lambda: OptionSource(text).find({}), lambda: lines(text)):
        try:
            allocation = merged(read())
        except UsageProblem:
            continue
        assert allocation.hosts
        assert all(valid_host(host.name) and host.slots >= 1 for host in allocation.hosts)
