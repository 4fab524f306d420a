"""``modelyard algorithm``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelyard import output
from modelyard.options import Json
from modelyard.output import console
from tasks import provided
from tasks.provided import ProvidedAlgorithm

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Training algorithms that Modelyard provides."
)

# What an algorithm declares as lists: (key, what people are shown of each)
_TABLES = {
    "datasets": ("name", "required", "description"),
    "hyperparameters": ("name", "default", "allowed", "description"),
    "metrics": ("name", "direction", "description"),
}


def _described(algorithm: ProvidedAlgorithm) -> dict[str, Any]:
    found = algorithm.model_dump(mode="json", exclude={"path"})
    for one, declared in zip(found["hyperparameters"], algorithm.hyperparameters, strict=True):
        one["allowed"] = declared.allowed
    return {**found, "missing_packages": algorithm.missing_packages()}


@app.command("list")
def list_(json: Json = False) -> None:
    """List every provided algorithm."""
    found = [_described(provided.load(name)) for name in provided.names()]
    columns = ("name", "title", "framework", "distributed")
    output.rows(found, columns, as_json_=json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of the algorithm.")], json: Json = False
) -> None:
    """Show an algorithm's data sets, hyperparameters and metrics."""
    algorithm = provided.load(name)
    found = _described(algorithm)
    if json:
        output.as_json(found)
        return
    output.thing({key: found[key] for key in found if key not in _TABLES}, as_json_=False)
    for one, declared in zip(found["hyperparameters"], algorithm.hyperparameters, strict=True):
        one["default"] = declared.default_text
    for title, columns in _TABLES.items():
        console.print(f"\n[bold]{title}[/bold]")
        output.rows(found[title], columns, as_json_=False)
