"""The page of the Python API: every public name, and the client's nouns and verbs."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

import modelyard
from flows.lifecycle import LifecycleFlow
from modelyard.api import client
from tests.reference import markdown

_INTRODUCTION = """\
# Python

`from modelyard import train, Client` and the like: these names are the public API. All else may
change. See [Python](../python.md) for how to use them. Each raises a `ModelyardError`, by its
[code](errors.md).
"""
_CLIENT = """\
A noun of the command is an attribute, a verb its method: `Client().runs.list()` is
`modelyard runs list`. What a verb returns has the fields that `--json` prints as attributes;
`to_json()` returns them as JSON's values.
"""
_HOMES = re.compile(r"(?<![\w.])(?:[a-z_]\w*\.)+(?=[A-Za-z_])")
_REPRESENTATION = re.compile(r"<[^<>]*>")


def write() -> str:
    """Write the page."""
    public = {name: getattr(modelyard, name) for name in sorted(modelyard.__all__, key=str.lower)}
    flows = {name: one for name, one in public.items() if isinstance(one, LifecycleFlow)}
    models = {name: one for name, one in public.items() if _is(one, BaseModel)}
    errors = {name: one for name, one in public.items() if _is(one, Exception)}
    others = {name: one for name, one in public.items() if name not in {*flows, *models, *errors}}
    lines = [_INTRODUCTION, "## Flows", ""]
    for name, flow in flows.items():
        lines += _flow(name, flow)
    lines += _methods()
    lines += ["## Models of parameters", ""]
    lines += [
        "The fields of each, with types and defaults, are in [Parameters](parameters.md).",
        "",
    ]
    rows = ((markdown.code(name), _summary(one)) for name, one in models.items())
    lines += markdown.table(("Class", "Meaning"), rows)
    for name, one in others.items():
        if name != "Client":
            lines += _class(name, one)
    lines += ["## Errors", "", "See [Errors](errors.md#classes).", ""]
    lines += [", ".join(map(markdown.code, errors)) + ".", ""]
    lines += ["## Client", "", *_described(client.Client), _CLIENT]
    for noun, path in client.NOUNS.items():
        lines += [f"### client.{noun}", "", _summary(pkgutil.resolve_name(path)), ""]
        for verb, function in vars(pkgutil.resolve_name(path)).items():
            if not verb.startswith("_"):
                lines += _function(f"client.{noun}.{verb}", function.__func__, "####")
    return "\n".join(lines)


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, type) and issubclass(value, kind)


def _summary(owner: object) -> str:
    return markdown.text(markdown.docstring(owner).summary)


def _flow(name: str, flow: Any) -> Iterator[str]:
    link = f"[parameters](parameters.md#{markdown.anchor(str(flow.name))})"
    result = flow.spec.result.__name__
    yield from (f"### {name}", "", markdown.text(markdown.docstring(flow.fn).summary), "")
    yield f"`{name}(...)` takes its {link} as keywords, runs in this process, and returns a"
    yield from (f"[`{result}`](#{result.lower()}).", "")


def _methods() -> Iterator[str]:
    for verb in ("start", "retry"):
        yield from _function(f"FLOW.{verb}", getattr(LifecycleFlow, verb), "###")


def _class(name: str, owner: type) -> Iterator[str]:
    yield from (f"## {name}", "", *_described(owner))
    for verb, member in inspect.getmembers(owner):
        own = any(verb in vars(one) for one in owner.__mro__ if one.__module__.startswith("flows"))
        if own and not verb.startswith("_") and inspect.isfunction(member):
            yield from _function(f"{name}.{verb}", member, "###")
        elif own and isinstance(member, property):
            yield from (f"### {name}.{verb}", "", *_described(member.fget))


def _function(path: str, function: Any, level: str) -> Iterator[str]:
    yield from (f"{level} {path}", "", "```python", f"{path}{_signature(function)}", "```", "")
    yield from _described(function)


def _signature(function: Any) -> str:
    """The signature of a function without ``self``, one parameter a line where it is long."""
    found = inspect.signature(function)
    parameters = [one for one in found.parameters.values() if one.name != "self"]
    written = str(found.replace(parameters=parameters)).replace("'", '"')
    written = re.sub(r': "([^"]*)"', r": \1", written)
    written = re.sub(r'-> "([^"]*)"', r"-> \1", written)
    written = _HOMES.sub("", written).replace("mappingproxy({})", "{}")
    written = written.replace("*args: P.args, **kwargs: P.kwargs", "**parameters")
    written = _REPRESENTATION.sub("...", written)
    return written if len(written) < 80 else _wrapped(written)


def _wrapped(written: str) -> str:
    head, _, result = written.rpartition(")")
    depth, parts, word = 0, [], ""
    for letter in head[1:]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts, word = [*parts, word.strip()], ""
        else:
            word += letter
    lines = "".join(f"    {part},\n" for part in [*parts, word.strip()] if part)
    return f"(\n{lines}){result}"


def _described(owner: Any) -> Iterator[str]:
    found = markdown.docstring(owner)
    for paragraph in (found.summary, *found.paragraphs):
        yield from (markdown.text(paragraph), "")
    for section, items in found.sections.items():
        yield from (f"*{_TITLES.get(section, section)}:*", "")
        for name, words in items:
            shown = f"`{name}`: " if name else ""
            yield f"- {shown}{markdown.text(words)}"
        yield ""


_TITLES = {"Args": "Parameters"}
