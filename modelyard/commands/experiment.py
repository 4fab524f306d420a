"""``modelyard experiment``."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.errors import BadInputError
from modelyard import output
from modelyard.connecting import connected
from modelyard.options import Description, Json, Limit, NewName
from registry import deletion, experiments

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Group runs; each is an experiment of MLflow."
)

Experiment = Annotated[str, typer.Argument(help="Name of the experiment.")]


@app.command()
def create(name: Experiment, description: Description = None, json: Json = False) -> None:
    """Create an experiment. A run that names a missing one creates it as well."""
    with connected():
        output.thing(experiments.create(name, description or ""), as_json_=json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List every experiment."""
    with connected():
        columns = ("name", "state", "description", "created")
        output.rows(experiments.list_all(), columns, as_json_=json)


@app.command()
def show(
    name: Experiment,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Show an experiment with its runs."""
    with connected():
        found = experiments.show(name, limit)
    if json:
        output.as_json(found)
        return
    output.thing(found.model_copy(update={"runs": []}), as_json_=False)
    output.rows(found.runs, ("id", "name", "flow", "state", "started"), as_json_=False)


@app.command()
def update(
    name: Experiment,
    new_name: NewName = None,
    description: Description = None,
    json: Json = False,
) -> None:
    """Rename or describe an experiment; its runs stay in it, waiting ones as well."""
    if new_name is None and description is None:
        raise BadInputError("There is nothing to change.", "Give --name or --description.")
    with connected():
        output.thing(experiments.update(name, new_name, description), as_json_=json)


@app.command()
def delete(name: Experiment, json: Json = False) -> None:
    """Delete an experiment without active or waiting runs."""
    with connected():
        output.thing(deletion.delete("experiment", name), as_json_=json)
