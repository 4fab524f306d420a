"""The work pools: made or brought up to date, never lost."""

from __future__ import annotations

import copy
import shlex
from dataclasses import dataclass
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import TERMINAL_STATES, WorkerStatus, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort
from prefect.exceptions import ObjectNotFound

from infra import forked
from infra.errors import ConflictError
from infra.home import Home
from infra.kubernetes import pool_template
from infra.stack import parts

Kind = Literal["local", "kubernetes"]

PROCESS_TYPE = "process"
CLUSTER_TYPE = pool_template.TYPE

_TYPES: dict[Kind, str] = {"local": PROCESS_TYPE, "kubernetes": CLUSTER_TYPE}
_MOST_NAMED = 5
_PAGE = 200

_DESCRIPTIONS = {
    "gpu": "Trainings and whatever else may want a GPU.",
    "cpu": "Everything that wants none.",
}


def is_remote_type(kind: str | None) -> bool:
    """Whether runs of a pool of this type are on other machines than those who submit them."""
    return kind == CLUSTER_TYPE


def is_remote(pool: str | None) -> bool:
    """Whether runs of a pool are on a cluster; not if there is no such pool."""
    if not pool:
        return False
    with get_client(sync_client=True) as client:
        try:
            return is_remote_type(client.read_work_pool(pool).type)
        except ObjectNotFound:
            return False


async def local_ones(client: PrefectClient, pools: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the pools whose runs are processes of this machine."""
    found = [await _find(client, pool) for pool in pools]
    return tuple(pool.name for pool in found if pool and pool.type == PROCESS_TYPE)


def local_template(home: Home) -> dict[str, Any]:
    """The base job template of a local pool: Prefect's own, started through the fork server.

    The command is no variable, or whoever may create a run could run any program.
    """
    from prefect.workers.process import ProcessWorker  # noqa: PLC0415 (takes long to import)

    template: dict[str, Any] = ProcessWorker.get_default_base_job_template()
    del template["variables"]["properties"]["command"]
    command = shlex.join(forked.command(home, "infra.run_process"))
    template["job_configuration"]["command"] = command
    return template


@dataclass(frozen=True)
class Seen:
    """What Prefect knows of a pool.

    Attributes:
        name: The pool's name.
        type: Its type; "" if there is no such pool.
        paused: Whether somebody has paused it.
        workers: How many workers of it have been heard lately.
    """

    name: str
    type: str = ""
    paused: bool = False
    workers: int = 0


async def look() -> list[Seen]:
    """What Prefect knows of each pool of ours."""
    async with get_client() as client:
        return [await _look(client, name) for name in parts.POOLS]


async def _look(client: PrefectClient, name: str) -> Seen:
    pool = await _find(client, name)
    if pool is None:
        return Seen(name)
    workers = await client.read_workers_for_work_pool(name)
    heard = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    return Seen(name, pool.type, pool.is_paused, heard)


async def register(client: PrefectClient, home: Home, kind: Kind | None = None) -> list[str]:
    """Make the pools, or bring them up to date; their names. Twice is no change.

    Args:
        client: Prefect's.
        home: Of the local pools.
        kind: Where their runs are; without, those that are there stay as they are, and new ones
            are local.

    Raises:
        ConflictError: With the code ``PoolBusy``, if a pool is to become of another kind and a
            run waits or goes on in it; then none is changed.
    """
    templates = {PROCESS_TYPE: local_template(home), CLUSTER_TYPE: pool_template.template()}
    found = {name: await _find(client, name) for name in parts.POOLS}
    wanted = {name: _TYPES[kind] if kind else _present(pool) for name, pool in found.items()}
    changed = [pool for pool in found.values() if pool and pool.type != wanted[pool.name]]
    for one in changed:
        await _check_idle(client, one, wanted[one.name])
    for name, pool in found.items():
        template = templates.get(wanted[name])
        if template is None:  # somebody else's, whose template is theirs
            continue
        if pool is None:
            await _create(client, name, wanted[name], template)
            continue
        if pool in changed:
            await _replace(client, pool, wanted[name], template)
        elif pool.base_job_template != (kept := _with_defaults(template, pool)):
            await client.update_work_pool(name, WorkPoolUpdate(base_job_template=kept))
    return list(parts.POOLS)


def _present(pool: WorkPool | None) -> str:
    return pool.type if pool else PROCESS_TYPE


async def _find(client: PrefectClient, name: str) -> WorkPool | None:
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        return None


def _with_defaults(template: dict[str, Any], pool: WorkPool) -> dict[str, Any]:
    """The template with what somebody has set in the pool: the defaults of its variables."""
    made = copy.deepcopy(template)
    held = (pool.base_job_template.get("variables") or {}).get("properties") or {}
    for name, variable in made["variables"]["properties"].items():
        if "default" in held.get(name, {}):
            variable["default"] = held[name]["default"]
    return made


async def _create(
    client: PrefectClient,
    name: str,
    kind: str,
    template: dict[str, Any],
    concurrency_limit: int | None = None,
) -> None:
    await client.create_work_pool(
        WorkPoolCreate(
            name=name,
            type=kind,
            description=_DESCRIPTIONS[name],
            base_job_template=template,
            concurrency_limit=concurrency_limit,
        )
    )


async def _check_idle(client: PrefectClient, pool: WorkPool, kind: str) -> None:
    """Refuse to replace a pool whose runs would be lost with it."""
    going = FlowRunFilterStateType(not_any_=list(TERMINAL_STATES))
    runs = await client.read_flow_runs(
        work_pool_filter=_only(pool.name),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=going)),
        sort=FlowRunSort.ID_DESC,
        limit=_PAGE,
    )
    if runs:
        named = ", ".join(run.name for run in runs[:_MOST_NAMED])
        raise ConflictError(
            f"The pool {pool.name} is of the type {pool.type}, and cannot become {kind} while "
            f"runs wait or go on in it: {named}{', ...' if len(runs) > _MOST_NAMED else ''}.",
            "Wait for their end, or stop them: modelyard runs stop.",
            code="PoolBusy",
        )


async def _replace(
    client: PrefectClient, pool: WorkPool, kind: str, template: dict[str, Any]
) -> None:
    """Make a pool anew with another type, which Prefect cannot change; its deployments keep it."""
    deployments = await _deployments(client, pool.name)
    await client.delete_work_pool(pool.name)
    await _create(client, pool.name, kind, template, pool.concurrency_limit)
    for one in deployments:
        await client.update_deployment(one.id, DeploymentUpdate(work_pool_name=pool.name))


async def _deployments(client: PrefectClient, pool: str) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while True:
        page = await client.read_deployments(
            work_pool_filter=_only(pool),
            sort=DeploymentSort.NAME_ASC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found


def _only(pool: str) -> WorkPoolFilter:
    return WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
