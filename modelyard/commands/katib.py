"""``modelyard katib``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from infra.errors import BadInputError
from modelyard import output
from modelyard.options import Json
from modelyard.output import console
from tuning import katib as experiments

app = typer.Typer(add_completion=False)


@app.command()
def katib(
    file: Annotated[Path, typer.Argument(help="A Katib Experiment as YAML.")], json: Json = False
) -> None:
    """Print a Katib Experiment as parameters of tune, with a notice for each part left out."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"{file} cannot be read: {error}.", "Give a file of YAML in UTF-8."
        ) from error
    found = experiments.read(text)
    if json:
        output.as_json({"parameters": found.parameters, "left_out": found.left_out})
        return
    sys.stdout.write(yaml.safe_dump(found.parameters, sort_keys=False, allow_unicode=True))
    sys.stdout.flush()
    for line in found.left_out:
        console.print(f"# {' '.join(line.split())}", markup=False)
