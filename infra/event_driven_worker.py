"""Prefect worker that claims runs at Prefect's events instead of by polling."""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.workers.base import BaseWorker

from infra.controllers import Controller, PeriodicTask
from infra.prefect_events import ENDED_RUNS, POOLS, QUEUES, RUNS, EventSubscription

# Prefect considers a queue dead that was not polled for 60 seconds.
_POLL_SECONDS = 30.0
_COUNT_SECONDS_WITHOUT_EVENTS = 0.5
# A run is scheduled, or one ends for which others wait; or a pool or queue has changed.
_DUE_EVENTS = (
    f"{RUNS}Scheduled", f"{RUNS}Awaiting", f"{RUNS}Resuming",
    *ENDED_RUNS, POOLS, QUEUES,
)  # fmt: skip


# As an "abstract" class it is not registered as a type.
class EventDrivenWorker(BaseWorker[Any, Any, Any], abc.ABC):
    """Mixin for a worker class, before its Prefect base. Also a subscription to due runs.

    Attributes:
        started: Set when it takes runs of its pool.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Prepare the worker, as Prefect's.

        It claims runs that are due before its next poll, and starts each when it is due.
        """
        super().__init__(*arguments, **options)
        self._prefetch_seconds = _POLL_SECONDS
        self.started = asyncio.Event()
        self._polls_at = 0.0

    async def start(self, *_: Any, **__: Any) -> None:
        """Claim runs until cancelled: at each event, and at intervals without one."""
        async with self, asyncio.TaskGroup() as group:
            runs = Controller(
                f"runs of {self._work_pool_name}",
                PeriodicTask(self.get_and_submit_flow_runs),
                resync_seconds=_POLL_SECONDS,
                poll_seconds=_COUNT_SECONDS_WITHOUT_EVENTS,
                subscriptions=[self],
                outages=(httpx.HTTPError,),
            )
            heartbeat = Controller(
                f"heartbeat of {self._work_pool_name}",
                PeriodicTask(self._sync_and_initialize),
                resync_seconds=self.heartbeat_interval_seconds,
                outages=(httpx.HTTPError,),
            )
            group.create_task(runs.run())
            group.create_task(heartbeat.run())
            self._started_event = await self._emit_worker_started_event()
            self.started.set()

    async def listen(self, notify: Callable[[], None]) -> None:
        """Poll the pool at each event after which a run of it may be due; count due runs later."""

        def on_event() -> None:
            self._polls_at = 0.0
            notify()

        events = EventSubscription(*_DUE_EVENTS, pool=self.work_pool.id)
        await events.listen(on_event, again=notify)

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """Read the due runs of the pool.

        At each poll Prefect records that queues and deployments were polled, which costs its
        server ten times what counting does. So without an event runs are counted, and the pool is
        polled when some are due, and every 30 seconds.
        """
        if time.monotonic() < self._polls_at and not await self._due():
            return []
        self._polls_at = time.monotonic() + _POLL_SECONDS
        return await super()._get_scheduled_flow_runs()

    async def _due(self) -> int:
        """Count the due runs of the pool, including those in paused queues."""
        before = datetime.now(UTC) + timedelta(seconds=self._prefetch_seconds)
        scheduled = FlowRunFilterStateType(any_=[StateType.SCHEDULED])
        return await self.client.count_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=scheduled),
                next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(before_=before),
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._work_pool_name])),
        )
