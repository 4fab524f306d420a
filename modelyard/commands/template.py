"""``modelyard template``."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.errors import BadInputError
from modelyard import output, parameters
from modelyard.connecting import connected
from modelyard.options import Description, File, Json, NewName, Pairs
from registry import deletion, flow_kinds
from registry import training_templates as rows
from tasks.training import training_templates

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Stored parameters of train, which runs complete.",
)

Template = Annotated[str, typer.Argument(help="Name of the template.")]


@app.command()
def create(
    name: Template,
    description: Description = None,
    file: File = None,
    parameter: Pairs = None,
    json: Json = False,
) -> None:
    """Store parameters of train, given by -f and -p, under a name."""
    given = parameters.read_for(flow_kinds.TRAIN.name, file, parameter)
    with connected():
        made = training_templates.create(name, description or "", given)
        output.thing(made, as_json_=json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List every template."""
    with connected():
        columns = ("name", "description", "changed", "changed_by")
        output.rows(rows.list_all(), columns, as_json_=json)


@app.command()
def show(name: Template, json: Json = False) -> None:
    """Show a template with its parameters and its history."""
    with connected():
        output.thing(rows.show(name), as_json_=json)


@app.command()
def update(
    name: Template,
    new_name: NewName = None,
    description: Description = None,
    file: File = None,
    parameter: Pairs = None,
    json: Json = False,
) -> None:
    """Rename or describe a template, or change its parameters; -p key= removes one."""
    given = parameters.read_for(flow_kinds.TRAIN.name, file, parameter)
    if new_name is None and description is None and not given:
        raise BadInputError("There is nothing to change.", "Give --name, --description, -f or -p.")
    with connected():
        changed = training_templates.update(name, new_name, description, given)
        output.thing(changed, as_json_=json)


@app.command()
def copy(
    name: Template,
    new_name: Annotated[str, typer.Argument(help="Name of the copy.")],
    description: Description = None,
    file: File = None,
    parameter: Pairs = None,
    json: Json = False,
) -> None:
    """Copy a template, with parameters changed by -f and -p."""
    given = parameters.read_for(flow_kinds.TRAIN.name, file, parameter)
    with connected():
        made = training_templates.copy(name, new_name, description, given)
        output.thing(made, as_json_=json)


@app.command()
def delete(name: Template, json: Json = False) -> None:
    """Delete a template; runs that took it stay as they are."""
    with connected():
        output.thing(deletion.delete("template", name), as_json_=json)
