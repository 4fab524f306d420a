"""``modelyard deploy``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from flows import deploying
from flows.connection import connected
from infra.work_pools import PoolKind
from modelyard import output
from modelyard.options import Json

app = typer.Typer(add_completion=False)


@app.command()
def deploy(
    pools: Annotated[
        PoolKind | None,
        typer.Option(
            help="Where the pools gpu and cpu run: processes of this machine, or a "
            "Kubernetes cluster. Without, where they go now."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Update the catalogue's database, the work pools and the deployments."""
    with connected():
        output.thing(asyncio.run(deploying.deploy(pools)), as_json_=json)
