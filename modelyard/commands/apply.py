"""``modelyard apply``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from flows import scheduling
from modelyard import output, parameters
from modelyard.options import Json

app = typer.Typer(add_completion=False)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A YAML or JSON file with schedules.")],
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="Take over schedules that were not created from the file."),
    ] = False,
    json: Json = False,
) -> None:
    """Create, change and archive schedules, so that they are as in a file.

    Relative paths in it are relative to it.
    """
    document = parameters.read(file, None, what="schedules, such as 'schedules: []'")
    path = file.resolve()
    with contextlib.chdir(path.parent):
        applied = scheduling.apply(document, str(path), adopt=adopt)
    output.thing(applied, as_json_=json)
