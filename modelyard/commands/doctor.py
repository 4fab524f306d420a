"""``modelyard doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from infra import connection, home, instance_types, settings
from infra.errors import ModelyardError
from infra.kubernetes import cluster as clusters
from infra.kubernetes import doctor as doctors
from infra.kubernetes import pool_template
from infra.kubernetes.checks import Check
from infra.kubernetes.secret_checks import Secrets
from infra.stack import client as stack
from modelyard import output
from modelyard.options import Json
from modelyard.output import console

if TYPE_CHECKING:
    from infra.work_pools import PoolStatus

app = typer.Typer(add_completion=False)

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "unseen": "bold yellow"}


@app.command()
def doctor(json: Json = False) -> None:
    """Check the cluster for runs; status 0 only if all checks were made and none failed."""
    given = settings.load()
    types = instance_types.load_all(given)
    pools, published = _asked_of_prefect()
    checks = [*doctors.examine(clusters.load(given), types, published), *pools]
    if json:
        output.as_json([asdict(check) for check in checks])
    else:
        _show(checks)
    if any(check.result in {"failed", "unseen"} for check in checks):
        raise typer.Exit(1)


def _asked_of_prefect() -> tuple[list[Check], Secrets]:
    """Whether the work pools are a cluster's, and what the last deployment saw of Secrets.

    Only where there is a Prefect to ask.
    """
    if connection.from_environment() is None and stack.status(home.current()) is None:
        return [
            Check(
                "pools",
                "warning",
                "Not looked at: no Prefect is known here.",
                "Set PREFECT_API_URL, MLFLOW_TRACKING_URI and MODELYARD_DATABASE_URL to those of "
                "the cluster.",
            )
        ], {}
    # Prefect takes seconds, and is not needed above.
    import httpx  # noqa: PLC0415

    from flows.connection import connected  # noqa: PLC0415
    from infra import work_pools  # noqa: PLC0415

    try:
        with connected():
            pools = [pool(seen) for seen in asyncio.run(work_pools.read_statuses())]
            return pools, asyncio.run(_published())
    except ModelyardError as error:
        return [Check("pools", "warning", f"Not looked at: {error.message}", error.hint)], {}
    except httpx.HTTPError as error:  # Prefect's own refusals are such, too
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "See modelyard status, and what PREFECT_API_URL and PREFECT_API_AUTH_STRING say."
        return [Check("pools", "failed", f"Prefect does not tell of them: {said}.", remedy)], {}


async def _published() -> Secrets:
    from prefect.client.orchestration import get_client  # noqa: PLC0415

    from infra.kubernetes import secrets_published  # noqa: PLC0415

    async with get_client() as client:
        return await secrets_published.read(client)


def pool(seen: PoolStatus) -> Check:
    """Check that a pool's runs go to a cluster, and that a worker takes them."""
    name = f"pool {seen.name}"
    deploy = "Register it: modelyard deploy --pools kubernetes."
    if not seen.type:
        return Check(name, "failed", "There is none.", deploy)
    if seen.type != pool_template.TYPE:
        return Check(name, "failed", f"Its type is {seen.type}: its runs stay here.", deploy)
    if seen.paused:
        remedy = f"Resume it: prefect work-pool resume {seen.name}."
        return Check(name, "warning", "It is paused: its runs wait.", remedy)
    if not seen.workers:
        remedy = f"Start one: python -m modelyard.kubernetes_worker {seen.name}."
        return Check(name, "failed", "No worker has been heard lately.", remedy)
    return Check(name, "ok", f"Workers that have been heard lately: {seen.workers}.")


def _show(checks: Sequence[Check]) -> None:
    """Print a line for each check, with its remedy below."""
    table = Table("check", "", "what was seen", box=None, header_style="bold", pad_edge=False)
    for check in checks:
        message = Text(check.message, overflow="fold")
        if check.remedy:
            message.append(f"\n{check.remedy}", style="dim")
        table.add_row(Text(check.name), Text(check.result, style=_STYLES[check.result]), message)
    console.print(table, soft_wrap=False)
