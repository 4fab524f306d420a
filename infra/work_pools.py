"""The work pools: made or brought up to date, never lost."""

from __future__ import annotations

import shlex
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from infra import forked
from infra.home import Home
from infra.stack import parts

PROCESS_TYPE = ProcessWorker.type

_DESCRIPTIONS = {
    "gpu": "Trainings and whatever else may want a GPU.",
    "cpu": "Everything that wants none.",
}


def local_template(home: Home) -> dict[str, Any]:
    """The base job template of a local pool: Prefect's own, started through the fork server."""
    template: dict[str, Any] = ProcessWorker.get_default_base_job_template()
    command = shlex.join(forked.command(home, "prefect.engine"))
    template["variables"]["properties"]["command"]["default"] = command
    return template


async def register(client: PrefectClient, home: Home) -> list[str]:
    """Make the local pools, or bring them up to date; their names. Twice is no change."""
    template = local_template(home)
    for name in parts.POOLS:
        try:
            pool = await client.read_work_pool(name)
        except ObjectNotFound:
            await client.create_work_pool(
                WorkPoolCreate(
                    name=name,
                    type=PROCESS_TYPE,
                    description=_DESCRIPTIONS[name],
                    base_job_template=template,
                )
            )
        else:
            if pool.base_job_template != template:
                await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return list(parts.POOLS)
