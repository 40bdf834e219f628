"""A YAML file as nodes that know their lines, so that whoever reads it can say where something is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_multihost_env.errors import UsageProblem

if TYPE_CHECKING:
    import yaml

_TYPES = {
    "map": "mapping",
    "seq": "sequence",
    "str": "string",
    "int": "integer",
    "float": "float",
    "bool": "boolean",
    "null": "null",
    "timestamp": "date",
}


class YamlFile:
    """The only document of one file.

    Args:
        path: The file.
        cwd: A file below it is named relative to it.

    Raises:
        UsageProblem: The file cannot be read, or is not one YAML document.
    """

    def __init__(self, path: Path, cwd: Path) -> None:
        import yaml

        self._name = str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)
        try:
            self._flat: set[int] = set()
            self._loader = yaml.SafeLoader(path.read_bytes().decode("utf-8"))
            self.root = self._loader.get_single_node()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UsageProblem(
                f"the file cannot be read: {reason}", where=self._name, hint="correct its path, or the file"
            ) from None
        except RecursionError:
            raise UsageProblem("the file is nested too deeply", where=self._name, hint="correct the file") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise UsageProblem(
                f"the file is not YAML: {getattr(error, 'problem', None) or error}",
                where=f"{self._name}:{mark.line + 1}" if mark else self._name,
                expected="one YAML document",
                hint="correct the line",
            ) from None

    def at(self, node: yaml.Node | None) -> str:
        """Return the file and line where `node` begins."""
        return self._name if node is None else f"{self._name}:{node.start_mark.line + 1}"

    def mapping(self, node: yaml.Node | None, key: str, known: Iterable[str] = ()) -> dict[str, yaml.Node]:
        """Return the entries of a mapping; `<<` merges another one in, as YAML 1.1 has it.

        Args:
            node: The mapping.
            key: What it is called.
            known: The only keys that it may have; () for any.

        Raises:
            UsageProblem: It is none, or has a key that is not known, not text, or there twice.
        """
        import yaml

        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, key, "a mapping")
        prefix = "" if node is self.root else f"{key}."
        if id(node) not in self._flat:
            self._refuse_twice(node, prefix)
            try:
                self._loader.flatten_mapping(node)
            except yaml.YAMLError:
                raise self.wrong(node, f"{prefix}<<", "a mapping to merge in") from None
            self._flat.add(id(node))
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode) or name.tag.rpartition(":")[2] != "str":
                raise self.wrong(name, f"a key of {key}", "a string")
            if known and name.value not in known:
                expected = ", ".join(known)
                raise UsageProblem(
                    f"unknown key {prefix}{name.value}",
                    where=self.at(name),
                    expected=expected,
                    hint="correct it, or remove it",
                )
        return {name.value: value for name, value in node.value}

    def _refuse_twice(self, node: yaml.MappingNode, prefix: str) -> None:
        """Refuse a key that stands twice in a mapping as it is written: YAML would take the last."""
        seen: set[str] = set()
        for name, _ in node.value:
            text = str(name.value)
            if text in seen:
                raise UsageProblem(
                    f"{prefix}{text} stands there twice", where=self.at(name), hint="remove one of the two"
                )
            seen.add(text)

    def sequence(self, node: yaml.Node | None, key: str) -> list[yaml.Node]:
        """Return the items of a sequence.

        Raises:
            UsageProblem: It is none.
        """
        import yaml

        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(node, key, "a sequence")
        return list(node.value)

    def scalar(self, node: yaml.Node, key: str, kind: type, expected: str) -> Any:
        """Return the value of a scalar, None for null.

        Raises:
            UsageProblem: It is neither null nor of type `kind`.
        """
        import yaml

        # What is of a type of its own (`!!python/...`) is not even looked at.
        plain = isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] in _TYPES
        try:
            value: object = self._loader.construct_object(node) if plain else []
        except (ValueError, yaml.YAMLError):  # `!!int x`, the 31st of February
            raise self.wrong(node, key, expected) from None
        if value is not None and type(value) is not kind:
            raise self.wrong(node, key, expected)
        return value

    def wrong(self, node: yaml.Node | None, key: str, expected: str) -> UsageProblem:
        """Return the error that `node` is of another type than expected."""
        found = "null" if node is None else node.tag.rpartition(":")[2]
        return UsageProblem(
            f"{key} is of type {_TYPES.get(found, found)}",
            where=self.at(node),
            expected=expected,
            hint="put it in quotes" if expected == "a string, in quotes" else f"correct {key}",
        )
