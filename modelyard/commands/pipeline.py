"""``modelyard pipeline``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import submission
from flows.lifecycle import connected
from flows.pipeline_run import pipeline_run
from modelyard import output, parameters
from modelyard.commands import pipeline_graph
from modelyard.commands.run import watch
from modelyard.output import Json
from modelyard.parameters import File, Pairs
from pipelines.arguments import arguments
from registry import pipeline_nodes, statuses
from tasks.pipelines import request

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command()(pipeline_graph.graph)


@app.callback()
def pipeline() -> None:
    """Pipelines that were compiled with the KFP SDK."""


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A compiled pipeline: YAML, or a zip.")],
    arguments_file: File = None,
    parameter: Pairs = None,
    name: Annotated[str, typer.Option(help="The run's name.")] = "",
    experiment: Annotated[str, typer.Option(help="Its experiment.")] = "Default",
    local: Annotated[
        bool, typer.Option("--local", help="In this process, whether or not the stack is up.")
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run each task, also if an equal one has run.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a pipeline to its end; -f and -p are its own arguments."""
    given = arguments(
        request.load(str(file)), parameters.read(arguments_file, parameter), coerce=True
    )
    asked = {
        "pipeline": str(file), "arguments": given, "name": name, "experiment": experiment,
        "cache": not no_cache,
    }  # fmt: skip
    with connected(to_workers=not local):
        found = _in_process(asked) if local else _in_pool(asked, quiet=json)
    output.thing(found, as_json_=json)
    if found["state"] != statuses.COMPLETE:
        raise typer.Exit(1)


def _in_pool(asked: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
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
    return _told(run_id, statuses.word(pipeline_run.name, state), state.message, found)


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
