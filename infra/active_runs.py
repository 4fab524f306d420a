"""Active flow runs in Prefect, which reconcilers follow."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

_PAGE = 200


async def read(
    client: PrefectClient, states: Sequence[StateType], pools: Sequence[str] | None = None
) -> list[FlowRun]:
    """Read every run whose state has one of these types, each once.

    Args:
        client: Prefect's.
        states: The types.
        pools: The names of work pools; None for all runs, also without a pool.
    """
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
    )
    of_pools = None if pools is None else WorkPoolFilter(name=WorkPoolFilterName(any_=list(pools)))
    runs: dict[UUID, FlowRun] = {}  # one can move from a page to the next meanwhile
    offset = 0
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=wanted, work_pool_filter=of_pools,
            sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset,
        )  # fmt: skip
        runs |= {run.id: run for run in page}
        offset += len(page)
        if len(page) < _PAGE:
            return list(runs.values())
