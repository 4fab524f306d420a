"""Why a run that is due has not been taken from its work pool's queue."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound

_TAKEN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_MOST = 200


def waits(client: SyncPrefectClient, run: FlowRun) -> str:
    """What the run waits for in its pool's queue, in words; "" if a worker is about to take it."""
    name = run.work_pool_name
    if name is None or not _is_due(run):
        return ""
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        return ""
    if pool.is_paused:
        return f"Its pool {name} is paused: prefect work-pool resume {name}."
    if not _is_served(client, name):
        return f"No worker of its pool {name} has been heard lately: modelyard status."
    limit = pool.concurrency_limit
    if limit is not None and _taken(client, name) >= limit:
        return f"Its pool {name} runs as many as it may at once: {limit}."
    return ""


def _is_due(run: FlowRun) -> bool:
    if run.state is None or run.state.type != StateType.SCHEDULED:
        return False
    due = run.state.state_details.scheduled_time
    return due is None or due <= datetime.now(UTC)


def _is_served(client: SyncPrefectClient, pool: str) -> bool:
    answer = client.request(
        "POST",
        "/work_pools/{work_pool_name}/workers/filter",
        path_params={"work_pool_name": pool},
        json={"offset": 0, "limit": _MOST},
    )
    return any(worker["status"] == "ONLINE" for worker in answer.json())


def _taken(client: SyncPrefectClient, pool: str) -> int:
    wanted = {
        "flow_runs": {"state": {"type": {"any_": [state.value for state in _TAKEN]}}},
        "work_pools": {"name": {"any_": [pool]}},
    }
    return int(client.request("POST", "/flow_runs/count", json=wanted).json())
