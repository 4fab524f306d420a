"""What lists tell: the pipeline of a run, the uploaded pipelines, the inputs of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

from modelyard.pages import details
from pipelines import arguments
from pipelines.drawing import text
from pipelines.pipeline import Pipeline
from registry.pipelines import pipelines

_LONGEST = 500


@dataclass(frozen=True)
class Ref:
    """A pipeline as a list shows it.

    Attributes:
        name: What it is called: its reference, or its file without the folders.
        link: Its page; empty where it has none.
        about: What stands beside the pointer: the whole path of a file.
    """

    name: str
    link: str = ""
    about: str = ""


@dataclass(frozen=True)
class Uploaded:
    """The newest version of an uploaded pipeline.

    Attributes:
        name: What it is called.
        link: The page of this version.
        version: Its number.
        state: How it stands.
        description: What is said of the pipeline.
        error: Why it is CREATE FAILED.
    """

    name: str
    link: str
    version: int
    state: str
    description: str
    error: str


@dataclass(frozen=True)
class Input:
    """An input of a pipeline.

    Attributes:
        name: What it is called.
        type: Its type, in a word.
        default: What it is where it is not given, as text; None where there is nothing.
        required: Whether it must be given.
        description: What is said of it.
    """

    name: str
    type: str
    default: str | None
    required: bool
    description: str


def page(name: str, version: int | str | None = None) -> str:
    """The address of a pipeline's page."""
    asked = f"?{urlencode({'version': version})}" if version is not None else ""
    return f"/pipelines/{quote(name, safe='')}{asked}"


def ref(told: str) -> Ref:
    """The pipeline that a run was told: one that was uploaded, or a file."""
    if pipelines.is_file(told):
        return Ref(text.plain(PurePosixPath(told).name or told), about=text.plain(told))
    if not told:
        return Ref("")
    name, separator, version = told.rpartition(":")
    link = page(name, version) if separator else page(told)
    return Ref(text.plain(told), link)


def uploaded(rows: Sequence[Mapping[str, Any]]) -> list[Uploaded]:
    """Uploaded pipelines, from rows as ``modelyard pipeline list`` has them."""
    return [
        Uploaded(
            row["name"], page(row["name"], row["version"]), row["version"], row["state"],
            _cut(row["description"]), _cut(row["error"]),
        )
        for row in rows
    ]  # fmt: skip


def inputs(pipeline: Pipeline) -> list[Input]:
    """The inputs of a pipeline: those that must be given first."""
    form = arguments.form(pipeline)
    artifacts = pipeline.spec.root.input_definitions.artifacts
    return [
        _input(name, field, required=name in form["required"], artifact=name in artifacts)
        for name, field in form["properties"].items()
    ]


def _input(name: str, field: Mapping[str, Any], *, required: bool, artifact: bool) -> Input:
    default = field.get("default")
    return Input(
        text.plain(name),
        _type(field, artifact=artifact),
        None if default is None else details.shown(default) if default != "" else '""',
        required,
        _cut(field.get("description", "")),
    )


def _type(field: Mapping[str, Any], *, artifact: bool) -> str:
    schema = next(iter(field.get("anyOf", ())), field)
    word = str(schema.get("type", "any value"))
    if artifact:
        return "list of artifacts" if word == "array" else "artifact"
    named = {"array": "list", "object": "dictionary"}.get(word, word)
    choices = schema.get("enum")
    return f"{named}: {_cut(', '.join(map(details.shown, choices)))}" if choices else named


def _cut(told: str) -> str:
    line = text.plain(told[: 2 * _LONGEST])
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
