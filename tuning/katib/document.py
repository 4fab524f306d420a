"""YAML document as plain strings, lists and mappings, and the reading of its fields.

Every scalar stays the text that was written: Katib's numbers are texts anyway, ``on`` is a value
of a categorical parameter, and nothing that a tag could construct is ever made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from infra.errors import BadInputError

Tree = dict[str, "Tree"] | list["Tree"] | str | None

_LARGEST = 2**20
_MOST_PARTS = 50_000  # an Experiment has a hundred; aliases can make millions of a few lines
_DEEPEST = 64
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")

_YAML = "tag:yaml.org,2002:"
_NULL, _MERGE = _YAML + "null", _YAML + "merge"
_TAGS = frozenset(
    _YAML + word
    for word in (
        "null",
        "merge",
        "bool",
        "int",
        "float",
        "str",
        "timestamp",
        "value",
        "seq",
        "map",
    )
)


def invalid(where: str, what: str, hint: str) -> BadInputError:
    """Build the error for an invalid field."""
    return BadInputError(f"{where} {what}.", hint, code="KatibFieldInvalid")


def finite(text: str) -> float | None:
    """Parse a finite number; None if ``text`` is not one."""
    value = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    return value if math.isfinite(value) else None


class Section:
    """Mapping of the document that records which fields were read."""

    def __init__(self, fields: Mapping[str, Tree], where: str = "") -> None:
        """Read ``fields``, which stand at ``where``."""
        self._fields = fields
        self._where = where
        self._asked: set[str] = set()
        self._inner: dict[str, list[Section]] = {}

    def place(self, name: str) -> str:
        """Where the field ``name`` stands, for people."""
        return f"{self._where}.{name}".lstrip(".")

    def tree(self, name: str) -> Tree:
        """The field ``name``, whatever it is; None if there is none."""
        self._asked.add(name)
        return self._fields.get(name)

    def ignore(self, *names: str) -> None:
        """Count these fields as read, because they have no meaning for a tuning."""
        self._asked.update(names)

    def unread(self) -> list[str]:
        """List the places of non-empty fields that were not read."""
        left = [
            self.place(name)
            for name, value in self._fields.items()
            if name not in self._asked and value not in (None, "", [], {})
        ]
        inner = (section for sections in self._inner.values() for section in sections)
        return left + [place for section in inner for place in section.unread()]

    def text(self, name: str) -> str:
        """A text; "" if there is none.

        Raises:
            BadInputError: If it is a list or a mapping.
        """
        value = self.tree(name)
        if isinstance(value, dict | list):
            raise invalid(self.place(name), "is not a string", "Give one value.")
        return value or ""

    def required(self, name: str) -> str:
        """A text that must be there.

        Raises:
            BadInputError: If it is not.
        """
        return self.text(name) or self._missing(name)

    def number(self, name: str) -> float | None:
        """A finite number; None if there is none.

        Raises:
            BadInputError: If it is something else.
        """
        text = self.text(name)
        if not text:
            return None
        value = finite(text)
        if value is None:
            raise invalid(self.place(name), f"is {text[:60]!r}, not a finite number", "Fix it.")
        return value

    def whole(self, name: str, least: int | None = None) -> int | None:
        """A whole number; None if there is none.

        Raises:
            BadInputError: If it is something else, or less than ``least``.
        """
        value = self.number(name)
        if value is None:
            return None
        if not value.is_integer() or (least is not None and value < least):
            above = "" if least is None else f" from {least} on"
            raise invalid(self.place(name), f"is {value:g}, not a whole number{above}", "Fix it.")
        return int(value)

    def section(self, name: str) -> Section:
        """A mapping; an empty one if there is none.

        Raises:
            BadInputError: If it is something else.
        """
        if name not in self._inner:
            self._inner[name] = [_section(self.tree(name), self.place(name))]
        return self._inner[name][0]

    def sections(self, name: str) -> list[Section]:
        """A list of mappings.

        Raises:
            BadInputError: If it is something else.
        """
        if name not in self._inner:
            self._inner[name] = [_section(one, where) for one, where in self._list(name)]
        return self._inner[name]

    def texts(self, name: str) -> list[str]:
        """A list of texts.

        Raises:
            BadInputError: If it is something else.
        """
        found = []
        for one, where in self._list(name):
            if not isinstance(one, str):
                raise invalid(where, "is not a string", "Give one value.")
            found.append(one)
        return found

    def _list(self, name: str) -> list[tuple[Tree, str]]:
        value = self.tree(name)
        if value is None or value == "":
            return []
        if not isinstance(value, list):
            raise invalid(self.place(name), "is not a list", "Give a list.")
        return [(one, f"{self.place(name)}[{number}]") for number, one in enumerate(value)]

    def _missing(self, name: str) -> str:
        raise BadInputError(
            f"The Experiment has no {self.place(name)}.", "Give it.", code="KatibFieldMissing"
        )


def _section(value: Tree, where: str) -> Section:
    if value is None or value == "":
        return Section({}, where)
    if not isinstance(value, dict):
        raise invalid(where, "is not a mapping", "Give its fields, each with a name.")
    return Section(value, where)


def parse(text: str) -> Section:
    """The one document of ``text``.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    if len(text) > _LARGEST or len(text.encode(errors="replace")) > _LARGEST:
        raise BadInputError(
            f"The file has more than {_LARGEST} bytes.", "An Experiment has a few thousand.",
            code="KatibTooLarge",
        )  # fmt: skip
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise BadInputError(
            f"The file is not YAML: {' '.join(str(error).split())[:300]}.", "Fix it.",
            code="KatibNotYaml",
        ) from error  # fmt: skip
    except RecursionError:
        raise _too_deep() from None
    documents = [node for node in nodes if node.tag != _NULL]
    if len(documents) != 1:
        raise BadInputError(
            f"The file has {len(documents)} YAML documents.",
            "Give a file with one Experiment, and nothing else.",
            code="KatibDocuments",
        )
    tree = _TreeBuilder().tree(documents[0], 0)
    if not isinstance(tree, dict):
        raise BadInputError(
            "The file holds no mapping, and so no Experiment.",
            "Give the YAML of a Katib Experiment.",
            code="KatibNotExperiment",
        )
    return Section(tree)


def _too_deep() -> BadInputError:
    return BadInputError(
        f"The file is nested more than {_DEEPEST} deep.", "Give the YAML of a Katib Experiment.",
        code="KatibTooDeep",
    )  # fmt: skip


class _TreeBuilder:
    """Makes a tree of a document's nodes, and counts what aliases repeat."""

    def __init__(self) -> None:
        self._parts = 0

    def tree(self, node: Node, depth: int) -> Tree:
        self._parts += 1
        if depth > _DEEPEST:
            raise _too_deep()
        if self._parts > _MOST_PARTS:
            raise BadInputError(
                f"The file has more than {_MOST_PARTS} parts, with what its aliases repeat.",
                "Write it without aliases.",
                code="KatibAliasesExpand",
            )
        if node.tag not in _TAGS:
            raise BadInputError(
                f"Line {node.start_mark.line + 1} has the tag {node.tag[:80]!r}.",
                "Leave it out: an Experiment needs no tags.",
                code="KatibTagForbidden",
            )
        if isinstance(node, SequenceNode):
            return [self.tree(one, depth + 1) for one in node.value]
        if isinstance(node, MappingNode):
            return self._mapping(node, depth)
        return None if node.tag == _NULL else str(node.value)

    def _mapping(self, node: MappingNode, depth: int) -> Tree:
        own: dict[str, Tree] = {}
        merged: dict[str, Tree] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                found = self.tree(value, depth + 1)
                for one in found if isinstance(found, list) else [found]:
                    if not isinstance(one, dict):
                        raise invalid(f"Line {line}", "merges what is not a mapping", "Fix it.")
                    merged = {**one, **merged}
                continue
            if not isinstance(key, ScalarNode):
                raise invalid(f"Line {line}", "has a key that is not a string", "Fix it.")
            if key.value in own:
                raise BadInputError(
                    f"Line {line} gives {key.value[:60]!r} again.", "Give each field once.",
                    code="KatibFieldTwice",
                )  # fmt: skip
            own[key.value] = self.tree(value, depth + 1)
        return {**merged, **own}
