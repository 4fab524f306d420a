"""Parameters from files and from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from infra.errors import BadInputError

File = Annotated[
    Path | None, typer.Option("--file", "-f", help="Parameters as a YAML or JSON mapping.")
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter", "-p", help="key=value; a dotted key goes inside: hyperparameters.epochs=5."
    ),
]


_MACRO = re.compile(r"\{\{|\[\[(?:RunUUID|Index|ScheduledTime|CurrentTime)\b")


def read(
    file: Path | None,
    pairs: list[str] | None,
    *,
    option: str = "-p",
    what: str = "parameters",
    texts: Collection[str] = (),
) -> dict[str, Any]:
    """Parameters of ``file``, with ``pairs`` over them.

    Values are read as YAML, but for macros: what begins with two braces, or as one of Kubeflow's,
    is a text.

    Args:
        file: A YAML or JSON file.
        pairs: Each ``key=value``.
        option: What the pairs are given with.
        what: What the file holds.
        texts: The keys whose pairs are texts, whatever they look like; quotes around one are not
            part of it.

    Raises:
        BadInputError: If the file or a pair cannot be read as that.
    """
    parameters = _read_file(file, what) if file else {}
    for pair in pairs or ():
        key, text = _split(pair, option)
        if key in texts:
            _put(parameters, key, _unquoted(text))
            continue
        # In YAML two braces would be a mapping whose key is a mapping, which no JSON has.
        value = text if _MACRO.match(text.lstrip()) else _parse(text, pair)
        _put(parameters, key, value)
    return parameters


def as_written(pairs: list[str] | None) -> dict[str, Any]:
    """``pairs`` that are passed on to a program: dots are part of a name, and no text is changed.

    A value is a number or truth value only where it is written as it will be passed on: ``1.10``,
    ``1e-4`` and ``{"a": 1}`` stay texts. Quotes make a text of anything.

    Raises:
        BadInputError: If a pair cannot be read as that.
    """
    return {key: _value(text) for key, text in map(_split, pairs or ())}


def _split(pair: str, option: str = "-p") -> tuple[str, str]:
    key, separator, text = pair.partition("=")
    if not separator or not key:
        raise BadInputError(f"{pair!r} is not key=value.", f"Write {option} key=value.")
    return key, text


def _unquoted(text: str) -> str:
    """What stands within the quotes of a text, or all of it where it is not in quotes."""
    if len(text) < 2 or text[0] not in "'\"" or text[0] != text[-1]:
        return text
    try:
        value = _parse(text, text)
    except BadInputError:
        return text
    return value if isinstance(value, str) else text


def _value(text: str) -> Any:
    try:
        value = _parse(text, text)
    except BadInputError:
        return text
    if isinstance(value, str):
        return _unquoted(text)
    plain = isinstance(value, bool | int | float) and json.dumps(value) == text
    return value if plain else text


def _read_file(file: Path, what: str) -> dict[str, Any]:
    try:
        found = _parse(file.read_text(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file} cannot be read: {error}.", "Check the path.") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadInputError(f"{file} holds no mapping of {what}.", "Write name: value lines.")
    return found


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: ``1e-4`` is a number, a date is a text, and a key stands once."""

    yaml_implicit_resolvers = {
        first: [found for found in resolvers if found[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise BadInputError(f"{where} is not YAML: {error}", "Quote the value.") from error
    except RecursionError:
        raise BadInputError(f"{where[:60]} is nested too deep.", "Give a flatter value.") from None


def _put(parameters: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    inside = parameters
    for name in outer:
        inner = inside.setdefault(name, {})
        if not isinstance(inner, dict):
            raise BadInputError(f"{key}: {name} is no mapping.", "Give the whole value instead.")
        inside = inner
    inside[last] = value
