"""JSON, and YAML by the core schema of YAML 1.2, as parameters are written in files.

PyYAML reads YAML 1.1, whose ``12:30`` is 750, ``007`` octal, ``no`` false and ``1_000`` 1000.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

_SCHEMA = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),  # of 1.1, and widely written
}


class _Loader(yaml.SafeLoader):
    """The core schema; a key stands once."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        """An integer; a leading 0 makes none octal."""
        text = str(self.construct_scalar(node))
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        try:
            return int(text, base)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"not a whole number: {error}", node.start_mark
            ) from error


for _name, (_expression, _first) in _SCHEMA.items():
    _tag = f"tag:yaml.org,2002:{_name}"
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_expression})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)


def load(text: str) -> Any:
    """A document of JSON or YAML.

    Raises:
        yaml.YAMLError: If it is neither.
        RecursionError: If it is nested too deep.
    """
    # JSON's escapes of what lies beyond 16 bits, such as emoji, are not YAML's.
    if text.lstrip()[:1] in {"{", "[", '"'}:
        try:
            return json.loads(text, object_pairs_hook=_mapping, parse_constant=_refuse)
        except ValueError:
            pass
    document = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    _check_acyclic(document, set(), set())
    return document


def _check_acyclic(value: Any, open_: set[int], done: set[int]) -> None:
    """Refuse an alias within what it stands for, which no JSON has.

    Args:
        value: A mapping, a list or a scalar.
        open_: The identities of the mappings and lists around it.
        done: Those that were checked: an alias may stand in many places.
    """
    if not isinstance(value, dict | list) or id(value) in done:
        return
    if id(value) in open_:
        raise yaml.YAMLError("an alias refers to a value that contains it")
    open_.add(id(value))
    for inner in value.values() if isinstance(value, dict) else value:
        _check_acyclic(inner, open_, done)
    open_.remove(id(value))
    done.add(id(value))


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN is not JSON
