"""``modelyard demo``: the way in."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from flows import submission
from flows.connection import connected
from infra import home as homes
from infra import settings
from infra.stack import client
from modelyard import output, parameters
from modelyard.options import Json
from modelyard.output import console
from modelyard.run_watch import watch
from registry.flow_kinds import TRAIN
from registry.runs import statuses

app = typer.Typer(add_completion=False)

_EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
_MODEL = "digits"


@app.command()
def demo(json: Json = False) -> None:
    """Start the stack, train a classifier on scanned digits, and show where to look."""
    if not json:
        console.print("Starting the stack ...")
    client.up(homes.current(), settings.load())
    with connected():
        asked = parameters.read(_EXAMPLE / "train.yaml", None)
        asked["algorithm"]["uri"] = str(_EXAMPLE)
        asked["model"] = {"name": _MODEL}
        found = watch(submission.start(TRAIN.name, asked), quiet=json)
    output.thing(found, as_json_=json)
    if found.state != statuses.COMPLETE:
        raise typer.Exit(1)
    if not json:
        console.print(
            "\nThe run, its log and its form are in the Prefect UI; its metrics and the model are "
            "in MLflow (links above).\nThe stack stays up: modelyard status shows it, modelyard "
            "down ends it.\n\nThe model predicts 100 other digits:\n\n"
            f"  modelyard run batch-inference -p model={_MODEL}/1 "
            f"-p input_uri={os.path.relpath(_EXAMPLE / 'scans.jsonl')} "
            "-p output_uri=build/predictions --watch",
            markup=False,
            soft_wrap=True,
        )
