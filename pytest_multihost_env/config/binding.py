"""Rank bindings: the YAML files that tt-run reads, checked key by key and merged into variables for each rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_multihost_env.config.expand import expand
from pytest_multihost_env.config.settings import Assignment
from pytest_multihost_env.config.yamlfile import YamlFile
from pytest_multihost_env.errors import UsageProblem
from pytest_multihost_env.names import valid_variable

if TYPE_CHECKING:
    import yaml

_TOP: Final = ("rank_bindings", "global_env", "mesh_graph_desc_path")
_ONE: Final = ("rank", "mesh_id", "mesh_host_rank", "env_overrides", "mesh_graph_desc_path")
_NUMBERS: Final = {"mesh_id": "TT_MESH_ID", "mesh_host_rank": "TT_MESH_HOST_RANK"}
_GRAPH: Final = "TT_MESH_GRAPH_DESC_PATH"
_OF_ALL: Final = -1

Key = tuple[int, str, str]
"""Rank (`_OF_ALL` for all), the key that it stands under (`env_overrides`), the variable."""


@dataclasses.dataclass(frozen=True, slots=True)
class Binding:
    """What the files say together.

    Attributes:
        size: Number of ranks that have an entry: 0 to `size - 1`.
        derived: Variables made from `mesh_id` and its like, by rank.
        everywhere: `global_env`.
        ranks: `env_overrides`, by rank.
        cwd: The working directory, for defaults that are made from it.
    """

    size: int = 0
    derived: Mapping[int, tuple[Assignment, ...]] = dataclasses.field(default_factory=dict)
    everywhere: tuple[Assignment, ...] = ()
    ranks: Mapping[int, tuple[Assignment, ...]] = dataclasses.field(default_factory=dict)
    cwd: Path = Path()


def read(paths: Sequence[Path], environ: Mapping[str, str], cwd: Path) -> Binding:
    """Return what the files say together; without a file, nothing.

    Args:
        paths: The files.  A rank may stand in several of them; what they say about it must not differ.
        environ: What `$NAME` is filled in from.
        cwd: What a relative `mesh_graph_desc_path` is looked up in, after TT_METAL_HOME.

    Raises:
        UsageProblem: A file cannot be acted on, two say different things, or the ranks have a gap.
    """
    if not paths:
        return Binding()
    where = ", ".join(str(path) for path in paths)
    known: dict[Key, Assignment] = {}
    ranks: set[int] = set()
    for path in paths:
        file = _File(YamlFile(path, cwd), environ, cwd)
        for key, found in file.entries():
            _note(known, key, found)
        ranks |= file.ranks
    if not ranks:
        raise UsageProblem(
            "rank_bindings has no rank", where=where, expected="an entry for each rank, from 0", hint="add rank 0"
        )
    missing = next(rank for rank in range(len(ranks) + 1) if rank not in ranks)
    if missing < len(ranks):
        raise UsageProblem(
            f"rank_bindings has rank {max(ranks)} and no rank {missing}",
            where=where,
            expected="ranks from 0 without a gap",
            hint=f"add rank {missing}, or number the ranks from 0",
        )
    return _bound(known, len(ranks), cwd)


def _note(known: dict[Key, Assignment], key: Key, found: Assignment) -> None:
    rank, group, name = key
    before = known.setdefault(key, found)
    if before.value != found.value:
        whose = f"rank {rank}: " if rank != _OF_ALL else ""
        raise UsageProblem(
            # The values are not shown: one of them may be a secret.
            f"{whose}{group}{'' if group in (*_NUMBERS, 'mesh_graph_desc_path') else f'.{name}'} has two values",
            where=f"{before.origin} and {found.origin}",
            expected="the same value in every file",
            hint="remove it from one of the two",
        )


def _bound(known: Mapping[Key, Assignment], size: int, cwd: Path) -> Binding:
    def of(rank: int, *, overrides: bool) -> tuple[Assignment, ...]:
        return tuple(one for key, one in known.items() if key[0] == rank and (key[1] == "env_overrides") is overrides)

    common = [one for key, one in known.items() if key[0] == _OF_ALL and key[1] == "mesh_graph_desc_path"]
    return Binding(
        size,
        {rank: (*common, *of(rank, overrides=False)) for rank in range(size)},
        tuple(one for key, one in known.items() if key[1] == "global_env"),
        {rank: of(rank, overrides=True) for rank in range(size)},
        cwd,
    )


class _File:
    """One file, entry by entry."""

    def __init__(self, yaml: YamlFile, environ: Mapping[str, str], cwd: Path) -> None:
        self.ranks: set[int] = set()
        self._yaml = yaml
        self._environ = environ
        self._cwd = cwd

    def entries(self) -> Iterator[tuple[Key, Assignment]]:
        """Yield every variable that the file gives; `ranks` is complete afterwards."""
        top = self._yaml.mapping(self._yaml.root, "the file", _TOP)
        if "mesh_graph_desc_path" in top:
            yield from self._graph(_OF_ALL, top["mesh_graph_desc_path"], "mesh_graph_desc_path")
        if "global_env" in top:
            yield from self._variables(_OF_ALL, top["global_env"], "global_env", "global_env")
        if "rank_bindings" in top:
            for position, node in enumerate(self._yaml.sequence(top["rank_bindings"], "rank_bindings")):
                yield from self._rank(node, f"rank_bindings[{position}]")

    def _rank(self, node: yaml.Node, key: str) -> Iterator[tuple[Key, Assignment]]:
        entry = self._yaml.mapping(node, key, _ONE)
        rank = self._number(entry["rank"], f"{key}.rank") if "rank" in entry else None
        if rank is None:
            raise UsageProblem(
                f"{key} has no rank", where=self._yaml.at(node), expected="rank: N, from 0", hint="add it"
            )
        if rank in self.ranks:
            raise UsageProblem(
                f"{key}: rank {rank} stands there twice",
                where=self._yaml.at(node),
                expected="each rank once in a file",
                hint="join the two entries",
            )
        self.ranks.add(rank)
        for name, variable in _NUMBERS.items():
            if name in entry and (number := self._number(entry[name], f"{key}.{name}")) is not None:
                yield (rank, name, variable), Assignment(variable, str(number), self._yaml.at(entry[name]))
        if "mesh_graph_desc_path" in entry:
            yield from self._graph(rank, entry["mesh_graph_desc_path"], f"{key}.mesh_graph_desc_path")
        if "env_overrides" in entry:
            yield from self._variables(rank, entry["env_overrides"], "env_overrides", f"{key}.env_overrides")

    def _number(self, node: yaml.Node, key: str) -> int | None:
        expected = "a whole number of at least 0"
        number: int | None = self._yaml.scalar(node, key, int, expected)
        if number is not None and number < 0:
            raise UsageProblem(f"{key} is {number}", where=self._yaml.at(node), expected=expected, hint="correct it")
        return number

    def _variables(self, rank: int, node: yaml.Node, group: str, key: str) -> Iterator[tuple[Key, Assignment]]:
        if node.tag.endswith(":null"):
            return
        for name, value in self._yaml.mapping(node, key).items():
            if not valid_variable(name):
                raise UsageProblem(
                    f"{key} has {name!r}, which is not a variable name",
                    where=self._yaml.at(value),
                    expected="letters, digits and _, not beginning with a digit",
                    hint="correct the name",
                )
            text = self._text(value, f"{key}.{name}")
            yield (rank, group, name), Assignment(name, text, self._yaml.at(value))

    def _graph(self, rank: int, node: yaml.Node, key: str) -> Iterator[tuple[Key, Assignment]]:
        text = self._text(node, key)
        if not text:
            return
        home = self._environ.get("HOME")
        written = Path(home + text[1:] if home and text.startswith("~/") else text)
        places = [Path(self._environ["TT_METAL_HOME"])] if self._environ.get("TT_METAL_HOME") else []
        looked = [place / written for place in (*places, self._cwd)]
        found = next((path for path in looked if path.is_file()), None)
        if found is None:
            raise UsageProblem(
                f"{key} names a file that does not exist",
                where=self._yaml.at(node),
                expected=" or ".join(dict.fromkeys(str(path) for path in looked)),
                hint="correct the path; a relative one is looked up in TT_METAL_HOME, then in the working directory",
            )
        yield (rank, "mesh_graph_desc_path", _GRAPH), Assignment(_GRAPH, str(found), self._yaml.at(node))

    def _text(self, node: yaml.Node, key: str) -> str | None:
        text: str | None = self._yaml.scalar(node, key, str, "a string, in quotes")
        if text is None:
            return None
        text = expand(text, self._environ, key=key, where=self._yaml.at(node))
        if "\0" in text:
            raise UsageProblem(f"{key} contains a NUL", where=self._yaml.at(node), hint="remove it")
        return text
