"""Rows of the pages' lists: pipelines of runs, uploaded pipelines, inputs, models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

from infra import connection
from modelyard.pages import details
from pipelines import arguments
from pipelines.drawing import text
from pipelines.pipeline import Pipeline
from registry.pipelines import pipelines
from registry.pipelines.pipeline_views import PipelineSummaryView
from registry.runs.run_views import RunView

SILENT = "The catalogue's database does not answer."
_LONGEST = 500
_SCRIPT_FAILED = "ScriptFailed: "
_AFTER_QUOTE = "\nThe whole log is "
_MODEL = re.compile(r"models:/(.+)/(\d+)", re.DOTALL)


@dataclass(frozen=True)
class Ref:
    """A pipeline, a model version, a run or a schedule that a page names.

    Attributes:
        name: Its reference, or its file's name.
        link: Its page; empty without one.
        about: Its tooltip: the whole path of a file.
    """

    name: str
    link: str = ""
    about: str = ""


@dataclass(frozen=True)
class UploadedPipeline:
    """An uploaded pipeline in a list, with its newest version.

    Attributes:
        name: Its name.
        link: The page of the version.
        version: The version's number.
        state: The version's state.
        description: The pipeline's description, shortened.
        error: Why the version is CREATE FAILED, shortened.
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
        name: Its name.
        type: Its type.
        default: Its default as text; None without one.
        required: Whether it must be given.
        description: Its description.
    """

    name: str
    type: str
    default: str | None
    required: bool
    description: str


def page(name: str, version: int | str | None = None) -> str:
    """Return the path of a pipeline's page."""
    asked = f"?{urlencode({'version': version})}" if version is not None else ""
    return f"/pipelines/{quote(name, safe='')}{asked}"


def title(run: RunView) -> str:
    """Return what a run is called on pages: its id where its name has only blanks."""
    return run.name if run.name.strip() else run.id


def schedule_page(schedule_id: str) -> str:
    """Return the path of a schedule's page."""
    return f"/schedules/{quote(schedule_id, safe='')}"


def reference(run: RunView) -> str:
    """Return the ``pipeline`` parameter of a run: a reference or a file; empty without one."""
    given = run.parameters.get("pipeline")
    return given if isinstance(given, str) else ""


def run_ref(run: RunView) -> Ref:
    """Return the pipeline of a run."""
    return ref(reference(run))


def ref(reference: str) -> Ref:
    """Return the pipeline of a reference or a file."""
    if pipelines.is_file(reference):
        name = PurePosixPath(reference).name or reference
        return Ref(text.plain(name), about=text.plain(reference))
    if not reference:
        return Ref("")
    name, separator, version = reference.rpartition(":")
    link = page(name, version) if separator else page(reference)
    return Ref(text.plain(reference), link)


def model_ref(uri: str) -> Ref | None:
    """Return the model version that a URI means; without a link, if it is not known yet."""
    found = _MODEL.fullmatch(uri)
    if found is None:
        return Ref(shortened(uri)) if uri else None
    link = connection.mlflow_model_page(found[1], found[2])
    return Ref(shortened(f"{found[1]}/{found[2]}"), link)


def uploaded(rows: Sequence[PipelineSummaryView]) -> list[UploadedPipeline]:
    """Return uploaded pipelines for a list."""
    return [
        UploadedPipeline(
            row.name, page(row.name, row.version), row.version, row.state,
            shortened(row.description), shortened(row.error),
        )
        for row in rows
    ]  # fmt: skip


def inputs(pipeline: Pipeline) -> list[Input]:
    """Return the inputs of a pipeline, required ones first."""
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
        shortened(field.get("description", "")),
    )


def _type(field: Mapping[str, Any], *, artifact: bool) -> str:
    schema = next(iter(field.get("anyOf", ())), field)
    word = str(schema.get("type", "any value"))
    if artifact:
        return "list of artifacts" if word == "array" else "artifact"
    named = {"array": "list", "object": "dictionary"}.get(word, word)
    choices = schema.get("enum")
    return f"{named}: {shortened(', '.join(map(details.shown, choices)))}" if choices else named


def last_words(message: str) -> str:
    """Return why a run failed: of a script's failure the last line that it printed, with the code.

    What introduces a script's lines fills the row of a list, and says less.
    """
    introduced, _, quoted = message.partition(":\n")
    if not introduced.startswith(_SCRIPT_FAILED):
        return message
    lines = [line for line in quoted.split(_AFTER_QUOTE)[0].splitlines() if line.strip()]
    return f"{_SCRIPT_FAILED}{lines[-1].strip()}" if lines else message


def shortened(value: str, longest: int = _LONGEST) -> str:
    """Put a text on one line of a list, cut where it is longer."""
    line = text.plain(value[: 2 * longest])
    return line if len(line) <= longest else f"{line[:longest]}…"
