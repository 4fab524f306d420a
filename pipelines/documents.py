"""Bounded parser of YAML and JSON: a small file could cause unbounded work.

The parser is C where there is one; the values are built here from its events, so that depth,
number, aliases and doubled keys are seen before anything is built of them. Scalars mean what they
mean to the SDK, whose compiler writes with the same library.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from infra.errors import BadInputError

LARGEST = 5 * 1024 * 1024
DEEPEST = 64
MOST_VALUES = 200_000
MOST_ALIASES = 100

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL, _BOOL, _INT, _FLOAT, _STR = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str")
)
# Plain words that YAML takes for more than JSON has are texts here, as they are to a reader.
_TEXTS = {_STR, *(f"tag:yaml.org,2002:{name}" for name in ("timestamp", "value", "merge"))}
_CORE = {
    _NULL, _BOOL, _INT, _FLOAT, _STR,
    *(f"tag:yaml.org,2002:{name}" for name in ("map", "seq")),
}  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(data: bytes, name: str) -> list[Any]:
    """Parse the documents of a file, at least one; empty ones are left out.

    Args:
        data: The file.
        name: Its name, for errors.

    Raises:
        BadInputError: With the code ``PipelineTooLarge``, ``PipelineEmpty``,
            ``PipelineUnreadable`` or ``PipelineTooComplex``, and the line.
    """
    if len(data) > LARGEST:
        raise too_large(name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(name, f"byte {error.start} is not UTF-8") from None
    if text.lstrip().startswith("{"):
        try:
            return [_json(text, name)]
        except json.JSONDecodeError as error:
            if name.endswith(".json"):
                where = f"line {error.lineno}, column {error.colno}: {error.msg}"
                raise _unreadable(name, where) from None
    found = [one for one in _yaml(text, name) if one is not None]
    if not found:
        raise BadInputError(
            f"{name} is empty.", "Compile the pipeline again.", code="PipelineEmpty"
        )
    return found


def too_large(name: str) -> BadInputError:
    """Build the error for a file that is too large."""
    return BadInputError(
        f"{name} is larger than {LARGEST // 1024**2} MiB.",
        "A compiled pipeline has no data in it; let its components fetch theirs.",
        code="PipelineTooLarge",
    )


def _unreadable(name: str, why: str) -> BadInputError:
    return BadInputError(
        f"{name} cannot be read: {why}.",
        "Give the file that the KFP SDK's compiler has written.",
        code="PipelineUnreadable",
    )


def _too_complex(name: str, why: str) -> BadInputError:
    return BadInputError(
        f"{name} {why}.",
        "Give the file that the KFP SDK's compiler has written.",
        code="PipelineTooComplex",
    )


def _doubled(name: str, key: str, where: str) -> BadInputError:
    return _unreadable(name, f"{where}the key {key[:100]!r} stands twice")


# JSON


def _json(text: str, name: str) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _doubled(name, key, "")
            found[key] = value
        return found

    def constant(word: str) -> Any:
        raise _unreadable(name, f"{word} is not a number of JSON")

    try:
        value = json.loads(text, object_pairs_hook=mapping, parse_constant=constant)
    except RecursionError:
        raise _too_complex(name, f"has values more than {DEEPEST} levels deep") from None
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number of thousands of digits
        raise _unreadable(name, "a number is too large") from None
    _check_json(value, name)
    return value


def _check_json(value: Any, name: str) -> None:
    number = 0
    level = [value]
    for _ in range(DEEPEST + 1):
        number += len(level)
        if number > MOST_VALUES:
            raise _too_complex(name, f"has more than {MOST_VALUES} values")
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
                below += one
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                _refuse_unstorable(one, name)
            elif isinstance(one, int | float) and not _is_number(one):
                raise _unreadable(name, "a number is too large")
        if not below:
            return
        level = below
    raise _too_complex(name, f"has values more than {DEEPEST} levels deep")


def _refuse_unstorable(text: str, name: str, where: str = "") -> None:
    if _SURROGATE.search(text):
        raise _unreadable(name, f"{where}a string has half a character (an unpaired surrogate)")
    if "\0" in text:
        raise _unreadable(name, f"{where}a string has a NUL character, which no database takes")


def _is_number(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


# YAML


@dataclass
class _OpenCollection:
    """A collection whose end event is still to come.

    Attributes:
        value: The collection.
        anchor: What aliases call it.
        before: How many values, and how many characters, there were before it.
        key: The key whose value comes next; None in a list, and where a key comes next.
    """

    value: dict[str, Any] | list[Any]
    anchor: str | None
    before: tuple[int, int]
    key: str | None = None


@dataclass
class _Builder:
    """Builder of one document from its events.

    Attributes:
        loader: What the events come from, which knows what plain words mean.
        name: The file's name, for errors.
        values: How many values there are, those that aliases stand for among them.
        characters: How many characters, likewise.
        aliases: How many aliases.
    """

    loader: Any
    name: str
    values: int = 0
    characters: int = 0
    aliases: int = 0
    _open: list[_OpenCollection] = field(default_factory=list)
    _anchors: dict[str, tuple[Any, int, int]] = field(default_factory=dict)
    _result: Any = None

    def document(self) -> Any:
        """The document whose start has just been read, up to its end."""
        self._open, self._anchors, self._result = [], {}, None
        while not isinstance(event := self.loader.get_event(), yaml.DocumentEndEvent):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._start(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
            else:
                self._alias(event)
        return self._result

    def _scalar(self, event: Any) -> None:
        before = (self.values, self.characters)
        self._count(1, len(event.value), event)
        _refuse_unstorable(event.value, self.name, _where(event))
        if self._wants_key():
            self._place(event.value, event)
            return
        value = self._meaning(event)
        if event.anchor:
            self._remember(event.anchor, value, before)
        self._place(value, event)

    def _meaning(self, event: Any) -> Any:
        tag = event.tag
        if tag is None and event.implicit[0]:
            tag = self.loader.resolve(yaml.ScalarNode, event.value, (True, False))
        if tag in _TEXTS or tag in {None, "!"}:
            return event.value
        self._refuse_tag(tag, event)
        if tag == _NULL:
            return None
        if tag == _BOOL:
            return self.loader.bool_values.get(event.value.lower(), event.value)
        node = yaml.ScalarNode(tag, event.value)
        try:
            made = (
                self.loader.construct_yaml_int if tag == _INT else self.loader.construct_yaml_float
            )
            number = made(node)
        except (ValueError, IndexError):
            raise _unreadable(self.name, f"{_where(event)}there is no such number") from None
        if not _is_number(number):
            raise _unreadable(
                self.name, f"{_where(event)}{event.value[:20]} is not a number of JSON"
            )
        return number

    def _start(self, event: Any) -> None:
        self._refuse_tag(event.tag, event)
        if self._wants_key():
            raise _unreadable(self.name, f"{_where(event)}a key is a list or a mapping")
        if len(self._open) >= DEEPEST:
            raise _too_complex(
                self.name, f"has values more than {DEEPEST} levels deep (line {_line(event)})"
            )
        before = (self.values, self.characters)
        self._count(1, 1, event)
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._place(value, event)
        self._open.append(_OpenCollection(value, event.anchor, before))

    def _end(self) -> None:
        ended = self._open.pop()
        if ended.anchor:
            self._remember(ended.anchor, ended.value, ended.before)

    def _alias(self, event: Any) -> None:
        self.aliases += 1
        if self.aliases > MOST_ALIASES:
            raise _too_complex(self.name, f"has more than {MOST_ALIASES} aliases")
        if event.anchor not in self._anchors:
            raise _unreadable(self.name, f"{_where(event)}*{event.anchor} stands for nothing yet")
        value, values, characters = self._anchors[event.anchor]
        self._count(values, characters, event)
        if self._wants_key() and not isinstance(value, str):
            raise _unreadable(self.name, f"{_where(event)}a key is not a string")
        self._place(value, event)

    def _refuse_tag(self, tag: str | None, event: Any) -> None:
        if tag not in _CORE and tag not in {None, "!"}:
            raise _unreadable(self.name, f"{_where(event)}the tag {tag} is none of JSON's")

    def _wants_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].value, dict)
            and (self._open[-1].key is None)
        )

    def _place(self, value: Any, event: Any) -> None:
        if not self._open:
            self._result = value
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is None:
            if value == "<<" and event.implicit[0]:
                raise _unreadable(self.name, f"{_where(event)}merge keys (<<) are not read")
            if value in top.value:
                raise _doubled(self.name, value, _where(event))
            top.key = value
        else:
            top.value[top.key] = value
            top.key = None

    def _remember(self, anchor: str, value: Any, before: tuple[int, int]) -> None:
        self._anchors[anchor] = (value, self.values - before[0], self.characters - before[1])

    def _count(self, values: int, characters: int, event: Any) -> None:
        self.values += values
        self.characters += characters
        if self.values > MOST_VALUES:
            raise _too_complex(self.name, f"has more than {MOST_VALUES} values")
        if self.characters > 2 * LARGEST:
            raise _too_complex(
                self.name, f"grows without bounds by its aliases (line {_line(event)})"
            )


def _yaml(text: str, name: str) -> Iterator[Any]:
    loader = _Loader(text)
    builder = _Builder(loader, name)
    try:
        while not isinstance(event := loader.get_event(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                yield builder.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _unreadable(name, where + str(error.problem)) from None
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise _unreadable(name, " ".join(str(error).split())[:200]) from None
    finally:
        loader.dispose()


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _where(event: Any) -> str:
    return f"line {_line(event)}: "
