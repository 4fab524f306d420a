"""``modelyard pipeline``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from flows import connection as flows_connection
from flows import pipeline_run as pipeline_flow
from flows import pipelines, submission
from infra import work_pools
from infra.errors import BadInputError, NotFoundError
from modelyard import output, parameters
from modelyard.commands import pipeline_graph
from modelyard.connecting import announce_temporary_stack, connected
from modelyard.options import File, Json, Pairs
from modelyard.run_watch import print_started, state_logged_once, watch
from pipelines import arguments as pipeline_arguments
from registry import deletion
from registry.pipelines import pipeline_nodes
from registry.pipelines import pipelines as rows
from registry.pipelines.pipeline_views import PipelineResultView
from registry.runs import runs, statuses
from registry.views import JsonObject
from tasks.pipelines import request

Name = Annotated[str, typer.Argument(help="Name of the pipeline.")]
RunName = Annotated[
    str, typer.Option(help="Name of the run; its pipeline's and a number if left out.")
]
AllowCpu = Annotated[
    bool,
    typer.Option(
        "--allow-cpu", help="Run without GPUs if the machine or the cluster has too few."
    ),
]
Nodes = Annotated[
    int | None, typer.Option(help="Number of machines that the tasks share on a cluster.")
]
BootStorage = Annotated[
    float | None,
    typer.Option(
        help="Ephemeral storage of each task on a cluster, in GiB, beside inputs and outputs."
    ),
]
DataStorage = Annotated[
    float | None,
    typer.Option(help="Storage for the inputs and outputs of each task on a cluster, in GiB."),
]
Mounts = Annotated[
    list[str] | None, typer.Option(help="NAME=nas://ID:/path, mounted in the tasks at /mnt/NAME.")
]
Parallel = Annotated[int | None, typer.Option(help="Largest number of tasks that run at once.")]
LogUri = Annotated[
    str, typer.Option(help="URI of a folder for a copy of the whole log at the end of the run.")
]
Local = Annotated[
    bool, typer.Option("--local", help="Run in this process, whether or not the stack is up.")
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Run each task, even if the outputs of an equal one are cached."
    ),
]
Reference = Annotated[str, typer.Argument(help="NAME, or NAME:VERSION.")]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Run and store pipelines that the KFP SDK compiled.",
)
app.command()(pipeline_graph.graph)


@app.callback()
def pipeline() -> None:
    """Pipelines that were compiled with the KFP SDK."""


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="A compiled pipeline: YAML, or a zip.")],
    name: Annotated[
        str, typer.Option(help="Name of the pipeline; the compiled one if left out.")
    ] = "",
    description: Annotated[str, typer.Option(help="Description of the pipeline.")] = "",
    about: Annotated[str, typer.Option(help="Description of this version.")] = "",
    json: Json = False,
) -> None:
    """Store a pipeline, or a new version of it, and register its deployment."""
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
        found = rows.show(name).to_json()
        with contextlib.suppress(BadInputError):  # an unreadable one shows its error
            fields = pipeline_arguments.form(request.load(name))["properties"].values()
            found["inputs"] = [_input(field) for field in fields]
        output.thing(found, as_json_=json)


def _input(field: JsonObject) -> JsonObject:
    """Return one of a pipeline's inputs, from its field in the form."""
    return {
        "name": field["title"],
        "type": field.get("type") or "any",
        "required": "default" not in field,
        "default": field.get("default"),
        "description": field.get("description", ""),
    }


@app.command()
def versions(name: Name, json: Json = False) -> None:
    """Show the versions of a pipeline, newest first."""
    with connected():
        columns = ("version", "state", "description", "file", "digest", "created", "created_by")
        output.rows(rows.versions(name), columns, as_json_=json)


@app.command()
def update(
    name: Name,
    description: Annotated[str, typer.Option(help="New description of the pipeline.")],
    json: Json = False,
) -> None:
    """Change the description. New versions are uploaded."""
    with connected():
        output.thing(rows.describe(name, description), as_json_=json)


@app.command()
def rename(
    name: Name,
    new_name: Annotated[str, typer.Argument(help="The new name.")],
    json: Json = False,
) -> None:
    """Rename a pipeline; its versions, history, runs and schedules stay with it."""
    with connected():
        output.thing(pipelines.rename(name, new_name), as_json_=json)


@app.command()
def download(
    name: Reference,
    to: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
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
    """Delete a pipeline, or one version of it, that no schedule runs."""
    with connected():
        output.thing(deletion.delete("pipeline", name), as_json_=json)


@app.command()
def run(
    pipeline: Annotated[
        str, typer.Argument(help="NAME or NAME:VERSION of an uploaded one, or a file.")
    ],
    arguments_file: File = None,
    parameter: Pairs = None,
    name: RunName = "",
    description: Annotated[str, typer.Option(help="Description of the run.")] = "",
    experiment: Annotated[str, typer.Option(help="MLflow experiment of the run.")] = "Default",
    instance_type: Annotated[str, typer.Option(help="Instance type of its machines.")] = "",
    nodes: Nodes = None,
    boot_storage_gib: BootStorage = None,
    data_storage_gib: DataStorage = None,
    allow_cpu: AllowCpu = False,
    mount: Mounts = None,
    parallel: Parallel = None,
    log_uri: LogUri = "",
    local: Local = False,
    no_cache: NoCache = False,
    watch_: Annotated[
        bool, typer.Option("--watch/--no-watch", "-w", help="Wait until the run ends.")
    ] = True,
    json: Json = False,
) -> None:
    """Run a pipeline to its end; -f and -p are its own arguments."""
    if local and not watch_:
        raise BadInputError(
            "A pipeline in this process has ended when the command ends.",
            "Leave out --local or --no-watch.", code="WatchUnused",
        )  # fmt: skip
    asked: JsonObject = {
        "name": name, "description": description, "experiment": experiment, "cache": not no_cache,
    }  # fmt: skip
    machines: JsonObject = {
        "instance_type": instance_type or None, "nodes": nodes,
        "boot_storage_gib": boot_storage_gib, "data_storage_gib": data_storage_gib,
        "allow_cpu": allow_cpu or None,
    }  # fmt: skip
    asked |= {
        key: value for key, value in (
            ("resources", {key: value for key, value in machines.items() if value is not None}),
            ("mounts", [_mount(text) for text in mount or ()]),
            ("parallel", parallel),
            ("logs", log_uri and {"uri": log_uri}),
        ) if value or value == 0
    }  # fmt: skip
    # A file is refused before a stack is started for it.
    checked_first = local and rows.is_file(pipeline)
    if checked_first:
        asked |= _checked(pipeline, arguments_file, parameter)
    with _connected(local=local):
        if not checked_first:
            asked |= _checked(pipeline, arguments_file, parameter)
        if not watch_:
            print_started(runs.brief(_start(asked)), as_json_=json)
            return
        found = _in_process(asked) if local else _in_pool(asked, quiet=json)
    output.thing(found, as_json_=json)
    if found["state"] != statuses.COMPLETE:
        raise typer.Exit(1)


def _checked(pipeline: str, arguments_file: Path | None, pairs: list[str] | None) -> JsonObject:
    """Return the pipeline and its arguments as the flow takes them, refused if they do not fit."""
    meant = _meant(pipeline)
    loaded = request.load(meant)
    texts = pipeline_arguments.string_inputs(loaded)
    given = parameters.read(arguments_file, pairs, texts=texts)
    return {
        "pipeline": meant,
        "arguments": pipeline_arguments.arguments(loaded, given, coerce=True),
    }


@contextlib.contextmanager
def _connected(*, local: bool) -> Iterator[None]:
    """Connect to the workers' stack, or for a run in this process to whichever is up."""
    if local:
        announce_temporary_stack()
    with flows_connection.connected() if local else connected(to_workers=True):
        yield


def _meant(pipeline: str) -> str:
    """Return the uploaded pipeline's reference, or else the path of the file of this name."""
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


def _for_pool(pipeline: str) -> str:
    """Return a reference that the pool's machines can read; a file is uploaded if necessary."""
    pool = pipeline_flow.pipeline_run.spec.pool
    if not rows.is_file(pipeline) or not work_pools.is_remote(pool):
        return pipeline
    return rows.find(pipelines.upload(Path(pipeline)).name).reference


def _start(asked: JsonObject) -> str:
    asked["pipeline"] = _for_pool(asked["pipeline"])
    return submission.start(pipeline_flow.pipeline_run.name, asked)


def _in_pool(asked: JsonObject, *, quiet: bool) -> JsonObject:
    ended = watch(_start(asked), quiet=quiet)
    result = ended.result if isinstance(ended.result, PipelineResultView) else None
    outcome = _outcome(ended.flow_run_id, ended.state, ended.message, result)
    return {**outcome, "links": ended.links}


def _in_process(asked: JsonObject) -> JsonObject:
    # Stdout is for the result only.
    with contextlib.redirect_stdout(sys.stderr), state_logged_once():
        state = pipeline_flow.pipeline_run.outcome(asked)
    run_id = str(state.state_details.flow_run_id)
    found = pipeline_nodes.result(run_id, "", over=True)
    word = statuses.word(pipeline_flow.pipeline_run.name, state)
    return _outcome(run_id, word, statuses.message(state), found)


def _outcome(
    run_id: str, state: str, message: str, result: PipelineResultView | None
) -> JsonObject:
    return {
        "flow_run_id": run_id,
        "state": state,
        "message": message,
        "outputs": result.outputs if result else {},
        "tasks": result.tasks if result else [],
    }
