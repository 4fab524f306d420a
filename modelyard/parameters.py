"""Parameters from files and from the command line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from infra.errors import BadInputError
from modelyard import core_yaml
from tasks import flow_requests
from tasks.parameters import string_fields

# Groups whose values a program is given: texts, numbers and truth values only.
_PASSED_ON = ("hyperparameters.",)
# Those whose values are of declared types, so that 1.10 for a number need not be kept as 1.10.
_TYPED = ("arguments.",)

_ABSENT = {"", "null"}

_MACRO = re.compile(r"\{\{|\[\[(?:RunUUID|Index|ScheduledTime|CurrentTime)\b")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?([eE][-+]?\d+)?", re.ASCII)


def read(
    file: Path | None,
    pairs: list[str] | None,
    *,
    option: str = "-p",
    what: str = "parameters",
    texts: Collection[str] | None = None,
    strings: Collection[str] = (),
) -> dict[str, Any]:
    """Parameters of ``file``, with ``pairs`` over them.

    The help of :data:`modelyard.options.Pairs` says how values are read. Macros are texts: what
    begins with two braces, or as one of Kubeflow's.

    Args:
        file: A JSON or YAML file.
        pairs: Each ``key=value``.
        option: What the pairs are given with.
        what: What the file holds.
        texts: The keys whose pairs are texts, whatever they look like; quotes around one are not
            part of it. Given, even if there are none, the others are of declared types.
        strings: The keys whose pairs are texts as well, but nothing and null leave them out.

    Raises:
        BadInputError: If the file or a pair cannot be read as that.
    """
    parameters = _read_file(file, what) if file else {}
    for pair in pairs or ():
        key, text = _split(pair, option)
        if (texts is not None and key in texts) or (key in strings and text not in _ABSENT):
            value: Any = _unquoted(text)
        elif key.startswith(_PASSED_ON):
            value = _leaf(text) if text else None
        else:
            value = _value(text, pair, typed=texts is not None or key.startswith(_TYPED))
        _put(parameters, key, value)
    return parameters


def read_for(flow: str, file: Path | None, pairs: list[str] | None) -> dict[str, Any]:
    """Parameters of a flow, with what its request has as strings read as such.

    Args:
        flow: The flow's name; one that is not Modelyard's declares no strings.
        file: A JSON or YAML file.
        pairs: Each ``key=value``.

    Raises:
        BadInputError: If the file or a pair cannot be read as that.
    """
    known = flow in flow_requests.names()
    strings = string_fields(flow_requests.find(flow)) if known else ()
    return read(file, pairs, strings=strings)


def as_written(pairs: list[str] | None) -> dict[str, Any]:
    """``pairs`` that are passed on to a program: dots are part of a name, and no text is changed.

    A value is a number or truth value only where it is written as it will be passed on: ``1.10``,
    ``1e-4`` and ``{"a": 1}`` stay texts. Quotes make a text of anything.

    Raises:
        BadInputError: If a pair cannot be read as that.
    """
    return {key: _leaf(text, exponents=False) for key, text in map(_split, pairs or ())}


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


def _value(text: str, pair: str, *, typed: bool) -> Any:
    """What a text says where it may say anything that JSON has."""
    if text in _ABSENT:
        return None
    # In YAML two braces would be a mapping whose key is a mapping, which no JSON has.
    if text.lstrip()[:1] in {"[", "{"} and not _MACRO.match(text.lstrip()):
        return _parse(text, pair)
    return _leaf(text, exact=not typed)


def _leaf(text: str, *, exact: bool = True, exponents: bool = True) -> bool | float | str:
    """A truth value, a number, or a text.

    Args:
        text: As it was written.
        exact: A number that would be written in another way, such as 1.10, stays a text.
        exponents: But not one with an exponent.
    """
    if text in {"true", "false"}:
        return text == "true"
    number = _NUMBER.fullmatch(text)
    if number is None:
        return _unquoted(text)
    value: float = json.loads(text)
    same = json.dumps(value) == text or bool(exponents and number[1])
    return value if math.isfinite(value) and (same or not exact) else text


def read_text(file: Path) -> str:
    """Return the text of a file that a user names.

    Raises:
        BadInputError: With the code ``FileMissing`` or ``FileNotReadable``.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        given = "" if file.is_absolute() else f"A relative path counts from {Path.cwd()}. "
        raise BadInputError(
            f"There is no file {file}.", f"{given}Check the path.", code="FileMissing"
        ) from None
    except OSError as error:
        raise BadInputError(
            f"{file} cannot be read: {error.strerror}.", "Give a file that you may read.",
            code="FileNotReadable",
        ) from error  # fmt: skip
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{file} is not text in UTF-8.", "Give a file of YAML or JSON in UTF-8.",
            code="FileNotReadable",
        ) from error  # fmt: skip


def _read_file(file: Path, what: str) -> dict[str, Any]:
    text = read_text(file)
    found = _parse(text, str(file), "Correct the file: it may be JSON or YAML 1.2.")
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadInputError(f"{file} is not a mapping of {what}.", "Write name: value lines.")
    return found


def _parse(text: str, where: str, hint: str = "Quote the value.") -> Any:
    try:
        return core_yaml.load(text)
    except yaml.YAMLError as error:
        raise BadInputError(f"{where} is not YAML: {error}", hint) from error
    except RecursionError:
        raise BadInputError(f"{where[:60]} is nested too deep.", "Give a flatter value.") from None


def _put(parameters: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    inside = parameters
    for name in outer:
        inner = inside.setdefault(name, {})
        if not isinstance(inner, dict):
            raise BadInputError(
                f"{key}: {name} is not a mapping.", "Give the whole value instead."
            )
        inside = inner
    inside[last] = value
