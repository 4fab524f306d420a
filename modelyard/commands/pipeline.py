"""``modelyard pipeline``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import pipelines, submission
from flows.connection import connected
from flows.pipeline_run import pipeline_run
from infra import work_pools
from infra.errors import BadInputError, NotFoundError
from modelyard import output, parameters
from modelyard.commands import pipeline_graph
from modelyard.commands.run import watch
from modelyard.options import File, Json, Pairs
from pipelines.arguments import arguments, form, texts
from registry import deletion
from registry.pipelines import pipeline_nodes
from registry.pipelines import pipelines as rows
from registry.runs import statuses
from tasks.pipelines import request

Name = Annotated[str, typer.Argument(help="The pipeline's name.")]
Reference = Annotated[str, typer.Argument(help="NAME, or NAME:VERSION.")]

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command()(pipeline_graph.graph)


@app.callback()
def pipeline() -> None:
    """Pipelines that were compiled with the KFP SDK: uploaded, run, shown."""


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="A compiled pipeline: YAML, or a zip.")],
    name: Annotated[
        str, typer.Option(help="What it is called; as it was compiled by default.")
    ] = "",
    description: Annotated[str, typer.Option(help="What is said of it.")] = "",
    about: Annotated[str, typer.Option(help="What is said of this version.")] = "",
    json: Json = False,
) -> None:
    """Keep a pipeline, or another version of it, and have it started from anywhere."""
    with connected():
        output.thing(pipelines.upload(file, name, description, about), as_json_=json)


@app.command(name="list")
def list_(json: Json = False) -> None:
    """Show every pipeline."""
    with connected():
        columns = ("name", "state", "version", "versions", "description", "changed")
        output.rows(rows.list_all(), columns, as_json_=json)


@app.command()
def show(name: Reference, json: Json = False) -> None:
    """Show everything about a pipeline."""
    with connected():
        found = rows.show(name)
        with contextlib.suppress(BadInputError):  # one that cannot be read has its error shown
            fields = form(request.load(name))["properties"].values()
            found["inputs"] = [_input(field) for field in fields]
        output.thing(found, as_json_=json)


def _input(field: dict[str, Any]) -> dict[str, Any]:
    """What a person is told of one of a pipeline's own inputs."""
    return {
        "name": field["title"],
        "type": field.get("type") or "any",
        "required": "default" not in field,
        "default": field.get("default"),
        "description": field.get("description", ""),
    }


@app.command()
def versions(name: Name, json: Json = False) -> None:
    """Show the versions of a pipeline, the newest first."""
    with connected():
        columns = ("version", "state", "description", "file", "digest", "created", "created_by")
        output.rows(rows.versions(name), columns, as_json_=json)


@app.command()
def update(
    name: Name,
    description: Annotated[str, typer.Option(help="What is said of it from now on.")],
    json: Json = False,
) -> None:
    """Describe a pipeline otherwise. Another version of it is uploaded."""
    with connected():
        output.thing(rows.describe(name, description), as_json_=json)


@app.command()
def download(
    name: Reference,
    to: Annotated[Path, typer.Option("--output", "-o", help="The file that is written.")],
    json: Json = False,
) -> None:
    """Write the file of a version as it was uploaded."""
    with connected():
        data, _ = rows.compiled(name)
    try:
        with to.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise BadInputError(
            f"{to} cannot be written: {error.strerror}.", "Give another file: -o.",
            code="FileNotWritable",
        ) from None  # fmt: skip
    output.thing({"pipeline": name, "file": str(to), "bytes": len(data)}, as_json_=json)


@app.command()
def delete(name: Reference, json: Json = False) -> None:
    """Delete a pipeline, or one version of it, that no schedule takes."""
    with connected():
        output.thing(deletion.delete("pipeline", name), as_json_=json)


@app.command()
def run(
    pipeline: Annotated[
        str, typer.Argument(help="NAME or NAME:VERSION of an uploaded one, or a file.")
    ],
    arguments_file: File = None,
    parameter: Pairs = None,
    name: Annotated[str, typer.Option(help="The run's name.")] = "",
    description: Annotated[str, typer.Option(help="What is said of the run.")] = "",
    experiment: Annotated[str, typer.Option(help="Its experiment.")] = "Default",
    instance_type: Annotated[str, typer.Option(help="The shape of its machines.")] = "",
    mount: Annotated[
        list[str] | None, typer.Option(help="NAME=nas://ID:/path, which tasks find as /mnt/NAME.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(help="How many of its tasks run at once at most.")
    ] = None,
    log_uri: Annotated[
        str, typer.Option(help="A folder that gets a copy of the whole log at the end.")
    ] = "",
    local: Annotated[
        bool, typer.Option("--local", help="In this process, whether or not the stack is up.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run each task, also if an equal one has run.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a pipeline to its end; -f and -p are its own arguments."""
    asked: dict[str, Any] = {
        "name": name, "description": description,
        "experiment": experiment, "cache": not no_cache,
    }  # fmt: skip
    asked |= {
        key: value for key, value in (
            ("resources", instance_type and {"instance_type": instance_type}),
            ("mounts", [_mount(text) for text in mount or ()]),
            ("parallel", parallel),
            ("logs", log_uri and {"uri": log_uri}),
        ) if value or value == 0
    }  # fmt: skip
    with connected(to_workers=not local):
        asked["pipeline"] = _meant(pipeline)
        loaded = request.load(asked["pipeline"])
        given = parameters.read(arguments_file, parameter, texts=texts(loaded))
        asked["arguments"] = arguments(loaded, given, coerce=True)
        found = _in_process(asked) if local else _in_pool(asked, quiet=json)
    output.thing(found, as_json_=json)
    if found["state"] != statuses.COMPLETE:
        raise typer.Exit(1)


def _meant(pipeline: str) -> str:
    """What is no uploaded pipeline's name may be a file whatever it is called."""
    if rows.is_file(pipeline):
        return pipeline
    try:
        return rows.find(pipeline).reference
    except NotFoundError:
        if not Path(pipeline).is_file():
            raise
    return str(Path(pipeline).absolute())


def _mount(text: str) -> dict[str, str]:
    name, given, uri = text.partition("=")
    if not given:
        raise BadInputError(
            f"The mount {text[:200]!r} has no name.", "Write --mount NAME=nas://ID:/path.",
            code="MountInvalid",
        )  # fmt: skip
    return {"name": name, "uri": uri}


def _seen_by_the_pool(pipeline: str) -> str:
    """What the pool's machines know a pipeline as: a file is uploaded where they do not see it."""
    pool = pipeline_run.spec.pool
    if not rows.is_file(pipeline) or not work_pools.is_remote(pool):
        return pipeline
    return rows.find(pipelines.upload(Path(pipeline))["name"]).reference


def _in_pool(asked: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    asked["pipeline"] = _seen_by_the_pool(asked["pipeline"])
    ended = watch(submission.start(pipeline_run.name, asked), quiet=quiet)
    return {
        **_told(ended["flow_run_id"], ended["state"], ended["message"], ended["result"]),
        "links": ended["links"],
    }


def _in_process(asked: dict[str, Any]) -> dict[str, Any]:
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no answer
        state = pipeline_run.outcome(asked)
    run_id = str(state.state_details.flow_run_id)
    found = pipeline_nodes.result(run_id, "", over=True)
    return _told(run_id, statuses.word(pipeline_run.name, state), statuses.message(state), found)


def _told(
    run_id: str, state: str, message: str | None, found: dict[str, Any] | None
) -> dict[str, Any]:
    known = found or {"outputs": {}, "tasks": []}
    return {
        "flow_run_id": run_id,
        "state": state,
        "message": message or "",
        "outputs": known["outputs"],
        "tasks": known["tasks"],
    }
