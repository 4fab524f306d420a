"""Registration and status of the work pools."""

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
from infra.prefect_client import prefect_client
from infra.stack import parts

PoolKind = Literal["local", "kubernetes"]

PROCESS_TYPE = "process"
CLUSTER_TYPE = pool_template.TYPE

_TYPES: dict[PoolKind, str] = {"local": PROCESS_TYPE, "kubernetes": CLUSTER_TYPE}
_MOST_NAMED = 5
_PAGE = 200

_DESCRIPTIONS = {
    "gpu": "Trainings and other runs that may use a GPU.",
    "cpu": "Runs that use no GPU.",
}


def is_remote_type(kind: str | None) -> bool:
    """Whether runs of a pool of this type run on other machines than their submitter."""
    return kind == CLUSTER_TYPE


def is_remote(pool: str | None) -> bool:
    """Whether runs of a pool run on a cluster; False if there is no such pool."""
    if not pool:
        return False
    with prefect_client() as client:
        try:
            return is_remote_type(client.read_work_pool(pool).type)
        except ObjectNotFound:
            return False


async def list_local(client: PrefectClient, pools: tuple[str, ...]) -> tuple[str, ...]:
    """List the pools whose runs are processes of this machine."""
    found = [await _find(client, pool) for pool in pools]
    return tuple(pool.name for pool in found if pool and pool.type == PROCESS_TYPE)


def local_template(home: Home) -> dict[str, Any]:
    """Build the base job template of a local pool: Prefect's, with the fork server.

    The command is not a job variable, or anyone who may create a run could run any program.
    """
    from prefect.workers.process import ProcessWorker  # noqa: PLC0415 (takes long to import)

    template: dict[str, Any] = ProcessWorker.get_default_base_job_template()
    del template["variables"]["properties"]["command"]
    command = shlex.join(forked.forkserver_command(home, "infra.run_process"))
    template["job_configuration"]["command"] = command
    return template


@dataclass(frozen=True)
class PoolStatus:
    """Status of a work pool in Prefect.

    Attributes:
        name: The pool's name.
        type: Its type; "" if there is no such pool.
        paused: Whether it is paused.
        workers: The number of its workers that are online.
    """

    name: str
    type: str = ""
    paused: bool = False
    workers: int = 0


async def read_statuses() -> list[PoolStatus]:
    """Read the status of each of Modelyard's pools."""
    async with get_client() as client:
        return [await _read_status(client, name) for name in parts.POOLS]


async def _read_status(client: PrefectClient, name: str) -> PoolStatus:
    pool = await _find(client, name)
    if pool is None:
        return PoolStatus(name)
    workers = await client.read_workers_for_work_pool(name)
    heard = sum(worker.status == WorkerStatus.ONLINE for worker in workers)
    return PoolStatus(name, pool.type, pool.is_paused, heard)


async def register(client: PrefectClient, home: Home, kind: PoolKind | None = None) -> list[str]:
    """Create or update the pools; return their names. Idempotent.

    Args:
        client: Prefect's client.
        home: The home of local runs.
        kind: Where runs run; by default existing pools keep their kind, and new ones are local.

    Raises:
        ConflictError: With the code ``PoolBusy``, if a pool would change its kind while it has
            an active run; then none is changed.
    """
    templates = {PROCESS_TYPE: local_template(home), CLUSTER_TYPE: pool_template.template()}
    found = {name: await _find(client, name) for name in parts.POOLS}
    wanted = {name: _TYPES[kind] if kind else _current_type(pool) for name, pool in found.items()}
    changed = [pool for pool in found.values() if pool and pool.type != wanted[pool.name]]
    for one in changed:
        await _check_idle(client, one, wanted[one.name])
    for name, pool in found.items():
        template = templates.get(wanted[name])
        if template is None:  # of another type, whose template is its owner's
            continue
        if pool is None:
            await _create(client, name, wanted[name], template)
            continue
        if pool in changed:
            await _replace(client, pool, wanted[name], template)
        elif pool.base_job_template != (kept := _with_defaults(template, pool)):
            await client.update_work_pool(name, WorkPoolUpdate(base_job_template=kept))
    return list(parts.POOLS)


def _current_type(pool: WorkPool | None) -> str:
    return pool.type if pool else PROCESS_TYPE


async def _find(client: PrefectClient, name: str) -> WorkPool | None:
    try:
        return await client.read_work_pool(name)
    except ObjectNotFound:
        return None


def _with_defaults(template: dict[str, Any], pool: WorkPool) -> dict[str, Any]:
    """Copy the defaults of variables that users have set in the pool to the template."""
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
    """Refuse to replace a pool with active runs, which would be lost with it."""
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
            f"it has active runs: {named}{', ...' if len(runs) > _MOST_NAMED else ''}.",
            "Wait until they have ended, or stop them: modelyard runs stop.",
            code="PoolBusy",
        )


async def _replace(
    client: PrefectClient, pool: WorkPool, kind: str, template: dict[str, Any]
) -> None:
    """Recreate a pool with another type, which Prefect cannot change; keep its deployments."""
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
