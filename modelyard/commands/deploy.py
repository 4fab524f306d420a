"""``modelyard deploy``."""

from __future__ import annotations

import asyncio

import typer

from flows import deploying
from flows.lifecycle import connected
from modelyard import output
from modelyard.output import Json

app = typer.Typer(add_completion=False)


@app.command()
def deploy(json: Json = False) -> None:
    """Bring the catalogue's database, the work pools and the deployments up to date."""
    with connected():
        output.thing(asyncio.run(deploying.deploy()), as_json_=json)
