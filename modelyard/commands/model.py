"""``modelyard model``."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.lifecycle import connected
from modelyard import output
from modelyard.output import Json
from registry import models

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Models.")


@app.command("list")
def list_(json: Json = False) -> None:
    """Every model."""
    with connected():
        columns = ("name", "newest_version", "aliases")
        output.rows(models.list_all(), columns, as_json_=json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The model's name.")], json: Json = False
) -> None:
    """A model with its versions and what made them."""
    with connected():
        output.thing(models.show(name), as_json_=json)
