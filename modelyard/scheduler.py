"""The scheduler's process: ``python -m modelyard.scheduler``."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import prefect.context
from sqlalchemy.exc import OperationalError

from flows.scheduling import FlowRuns
from infra import home as homes
from infra import service
from infra.controllers import (
    Controller,
    LeaderElection,
    Leadership,
    Reconciler,
    ThreadedReconciler,
)
from infra.prefect_events import ENDED_RUNS, EventSubscription
from registry import leases
from registry.channels import ChannelSubscription
from registry.schedules import schedules
from schedules.scheduler import LEASE, LEASE_SECONDS, Scheduler

# The longest time in which a change of the machine's clock goes unnoticed.
_RESYNC_SECONDS = 10.0
_POLL_SECONDS = 1.0  # while the database or Prefect sends no events
# A Prefect that hangs must not keep slots from being decided; the scheduler asks again by itself.
_PATIENCE = {"PREFECT_API_REQUEST_TIMEOUT": "5", "PREFECT_CLIENT_MAX_RETRIES": "0"}


def controller(reconciler: Reconciler[Any, Any], leadership: Leadership) -> Controller[Any, Any]:
    """The scheduler's controller, woken when a schedule is written or a run ends."""
    return Controller(
        "scheduler",
        reconciler,
        resync_seconds=_RESYNC_SECONDS,
        poll_seconds=_POLL_SECONDS,
        leadership=leadership,
        subscriptions=[ChannelSubscription(schedules.CHANNEL), EventSubscription(*ENDED_RUNS)],
        outages=(OperationalError,),
    )


async def serve() -> None:
    """Schedule until a signal ends it."""
    holder = service.unique_name()
    election = LeaderElection(leases, LEASE, holder, seconds=LEASE_SECONDS)
    scheduler = Scheduler(FlowRuns(), holder, election)
    made = controller(ThreadedReconciler(scheduler), election)
    election.on_elected(made.notify)
    async with service.liveness_socket(homes.current(), "scheduler.sock"):
        with election:
            await service.run_until_stopped(made.run())


def main() -> None:
    """Run the process."""
    service.configure_logging()
    os.environ.update(_PATIENCE)
    prefect.context.refresh_global_settings_context()
    asyncio.Runner().run(serve())


if __name__ == "__main__":
    main()
    service.exit_now(0)
