"""Reconciler of active runs in Prefect with the processes of this machine.

A run whose process is gone is ended or, if it never began, queued again; a script whose run has
ended is killed. File locks and the workers decide, never a clock: a run is starting in one of
the workers, or its lock is held from before it is Running until it has ended.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.logging import get_logger
from prefect.states import Cancelled, Scheduled

from infra import active_runs, run_ends, run_lock
from infra.controllers import Reconciler
from infra.home import Home
from infra.stack import orphans

_ACTIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]

_logger = get_logger("modelyard.reconciler")

# Whether this machine executes a run, by id; None if it never did.
IsExecuted = Callable[[str], bool | None]


@dataclass(frozen=True)
class ObservedRun:
    """An active run and its process.

    Attributes:
        flow_run: The run, as Prefect had it before its process was looked for.
        locked: Whether a process on this machine executes it; None if none ever did.
        starting: Whether a worker of this process starts it, or waits for its process.
    """

    flow_run: FlowRun
    locked: bool | None
    starting: bool


def decide_state(observed: ObservedRun, pools: Sequence[str]) -> State[Any] | None:
    """Decide a run's next state; None if it keeps its own. Pure.

    Args:
        observed: The run.
        pools: The pools of this worker. Runs of others that never ran here are left to others.
    """
    flow_run, locked = observed.flow_run, observed.locked
    state = flow_run.state
    if (
        state is None
        or observed.starting
        or locked
        or (locked is None and flow_run.work_pool_name not in pools)
    ):
        return None
    if state.type == StateType.PENDING:
        return Scheduled(message="Its worker died before it began; it is queued again.")
    if state.type == StateType.CANCELLING:
        return Cancelled(message="Stopped; its process is gone.")
    if state.type == StateType.RUNNING:
        return run_ends.crashed_state(flow_run.id, "Its process or worker was killed.")
    return None


@dataclass(frozen=True)
class LocalRunsPlan:
    """Next states of runs, and whether any run is active."""

    states: Sequence[tuple[FlowRun, State[Any]]]
    active: bool


class LocalRunReconciler(Reconciler[Sequence[ObservedRun], LocalRunsPlan]):
    """Reconciler of the runs of this machine."""

    def __init__(
        self,
        client: PrefectClient,
        home: Home,
        pools: Sequence[str],
        starts: Callable[[UUID], bool],
        tidy: Callable[[IsExecuted], object],
        *,
        active_seconds: float,
    ) -> None:
        """Prepare the reconciler.

        Args:
            client: Prefect's.
            home: Where the runs' locks are.
            pools: The pools of this worker.
            starts: Whether a worker of this process has a run; see :meth:`LocalWorker.executes`.
            tidy: Reconciles other services' records of runs. Called in a thread in each round.
            active_seconds: The time between rounds while a run is active: a process that is
                killed sends no event.
        """
        self._client = client
        self._home = home
        self._pools = tuple(pools)
        self._starts = starts
        self._tidy = tidy
        self._active_seconds = active_seconds

    async def observe(self) -> Sequence[ObservedRun]:
        """Read the active runs, then look for their processes."""
        return [
            ObservedRun(run, run_lock.is_held(self._home, str(run.id)), self._starts(run.id))
            for run in await active_runs.read(self._client, _ACTIVE)
        ]

    def decide(self, observed: Sequence[ObservedRun]) -> LocalRunsPlan:
        """Decide which runs get another state; pure."""
        decided = [(one.flow_run, decide_state(one, self._pools)) for one in observed]
        return LocalRunsPlan(
            [(run, state) for run, state in decided if state is not None], bool(observed)
        )

    async def act(self, plan: LocalRunsPlan) -> float | None:
        """Set states, kill the scripts of ended runs, and tidy."""
        for flow_run, state in plan.states:
            await self._set_state(flow_run, state)
        executed = functools.partial(run_lock.is_held, self._home)
        await asyncio.to_thread(orphans.end_runs, self._home, lambda run: executed(run) is True)
        await asyncio.to_thread(self._tidy, executed)
        return self._active_seconds if plan.active else None

    async def _set_state(self, flow_run: FlowRun, state: State[Any]) -> None:
        """Set a run's state, unless it has changed: an executor reports before it unlocks."""
        current = await self._client.read_flow_run(flow_run.id)
        if current.state and flow_run.state and current.state.id == flow_run.state.id:
            _logger.warning("Run %s is %s: %s", flow_run.id, state.name, state.message)
            await self._client.set_flow_run_state(flow_run.id, state, force=True)
