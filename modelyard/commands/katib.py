"""``modelyard katib``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from modelyard import output, parameters
from modelyard.options import Json
from modelyard.output import console
from tuning import katib as experiments

app = typer.Typer(add_completion=False)


@app.command()
def katib(
    file: Annotated[Path, typer.Argument(help="A Katib Experiment as YAML.")], json: Json = False
) -> None:
    """Print a Katib Experiment as parameters of tune, with a notice for each part left out."""
    found = experiments.read(parameters.read_text(file))
    if json:
        output.as_json({"parameters": found.parameters, "left_out": found.left_out})
        return
    sys.stdout.write(yaml.safe_dump(found.parameters, sort_keys=False, allow_unicode=True))
    sys.stdout.flush()
    for line in found.left_out:
        console.print(f"# {' '.join(line.split())}", markup=False)
