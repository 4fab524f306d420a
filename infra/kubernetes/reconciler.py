"""Reconciler of the runs of a cluster's pools, between Prefect and Kubernetes.

A round observes the cluster first and Prefect afterwards, decides about each run with
``run_policy.decide``, and acts: it records what a run waits for, ends a run whose pod died with
the reason and the container's last lines, deletes Jobs without an active run, and confirms that
a run has stopped. Between rounds only the last observed status of pods is kept, so another
process can lead at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort, LogSort
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.states import Scheduled

from infra import active_runs
from infra.controllers import Leadership, LeadershipLostError, Reconciler
from infra.kubernetes import names, objects, queue
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempts import AttemptRecord, AttemptStore
from infra.kubernetes.capacity import NodeCapacity, can_hold
from infra.kubernetes.diagnosis import Diagnosis
from infra.kubernetes.jobs import AttemptStatus, Jobs, Key
from infra.kubernetes.objects import Object
from infra.kubernetes.run_policy import NextState, RunCase, RunDecision, decide
from infra.state_details import CREATE_FAILED, annotate

_NODES_SECONDS = 30.0
_ACTIVE_SECONDS = 3.0
_ACTIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED]
_PAGE = 200
_SORT = FlowRunSort.ID_DESC
_KNOWN_PAGES = 5
_LONGEST_LINE = 10_000
_IN_MESSAGE = 10
_INFO = 20
_NONE = AttemptRecord()

_logger = get_logger("modelyard.reconciler")


@dataclass(frozen=True)
class ObservedRuns:
    """Observed runs of the pools in Prefect and on the cluster.

    Attributes:
        found: Attempts on the cluster by run; None if it did not answer.
        runs: Runs by id; None for one that Prefect does not have.
        attempts: The newest attempts of those that have one.
        last_seen: The status in which attempts were last seen, in this round or before.
        queued: Runs that were in a queue in the last round, and when.
        now: The present.
        events: The cluster's events, where a run may wait.
        nodes: The cluster's nodes, where a run may wait and they may be listed.
    """

    found: Mapping[Key, AttemptStatus] | None
    runs: Mapping[str, FlowRun | None]
    attempts: Mapping[str, AttemptRecord]
    last_seen: Mapping[Key, AttemptStatus]
    queued: Mapping[str, datetime]
    now: datetime
    events: tuple[Object, ...] = ()
    nodes: Sequence[NodeCapacity] | None = None


@dataclass(frozen=True)
class RunsPlan:
    """Decision about each observed run."""

    observed: ObservedRuns
    decisions: Sequence[tuple[RunCase, RunDecision]]


@dataclass(frozen=True)
class RunWaitLimits:
    """Time limits of waiting runs.

    Attributes:
        pending: For their pods to start, once these have nodes.
        queue: For resources that other runs occupy; None for ever.
    """

    pending: timedelta
    queue: timedelta | None = None


def plan_runs(observed: ObservedRuns, limits: RunWaitLimits) -> RunsPlan:
    """Decide about each run; queued ones get their positions. Pure."""
    cases = [case for run_id in observed.runs if (case := build_case(run_id, observed, limits))]
    decided = [(case, decide(case)) for case in cases]
    waiting = {case.flow_run_id for case, decision in decided if decision.queued}
    places = queue.rank_runs(
        case.found for case in cases if case.flow_run_id in waiting and case.found
    )
    return RunsPlan(
        observed,
        [
            (case, replace(decision, waiting=f"{places[case.flow_run_id]} {decision.waiting}"))
            if case.flow_run_id in places
            else (case, decision)
            for case, decision in decided
        ],
    )


def build_case(run_id: str, observed: ObservedRuns, limits: RunWaitLimits) -> RunCase | None:
    """Build the case of a run for the policy; None if its state is unknown. Pure."""
    run = observed.runs[run_id]
    state = run.state if run else None
    if run is not None and state is None:
        return None
    newest = observed.attempts.get(run_id, _NONE)
    attempt = _attempt(state, newest)
    of_run = [one for one in (observed.found or {}).values() if one.flow_run_id == run_id]
    found = next((one for one in of_run if one.attempt == attempt), None)
    if found is None and (before := observed.last_seen.get((run_id, attempt))):
        found = AttemptStatus(run_id, attempt).with_gone_pods(before)
    return RunCase(
        flow_run_id=run_id,
        state=state.type.value if state else None,
        since=state.timestamp if state else observed.now,
        attempt=attempt,
        now=observed.now,
        pending=limits.pending,
        failures=newest.failures,
        waiting_since=newest.queued_at,
        queue=limits.queue,
        could_hold=_could_hold(found, observed.nodes),
        queued_at=observed.queued.get(run_id),
        found=found,
        others=tuple(one for one in of_run if one.attempt != attempt),
        events=observed.events,
        looked=observed.found is not None,
    )


class ClusterRunReconciler(Reconciler[ObservedRuns, RunsPlan]):
    """Reconciler of the runs of some pools."""

    def __init__(
        self,
        client: PrefectClient,
        jobs: Jobs,
        pools: Sequence[str],
        attempts: AttemptStore,
        *,
        limits: RunWaitLimits,
        nodes: Callable[[], Sequence[NodeCapacity] | None] = lambda: None,
        leadership: Leadership,
        active_seconds: float = _ACTIVE_SECONDS,
    ) -> None:
        """Prepare the reconciler.

        Args:
            client: Prefect's.
            jobs: The cluster's Jobs.
            pools: The pools whose runs are reconciled; runs of others are ignored.
            attempts: Where the runs' attempts are kept.
            limits: How long runs may wait.
            nodes: The cluster's nodes; None if they cannot be listed.
            leadership: Asked before each write.
            active_seconds: The longest time to the next round while a run starts, waits or ends:
                that depends on the time as well.
        """
        self._client = client
        self._jobs = jobs
        self._pools = list(pools)
        self._attempts = attempts
        self._limits = limits
        self._nodes = nodes
        self._surveyed: tuple[float, Sequence[NodeCapacity] | None] = (-_NODES_SECONDS, None)
        self._queued: dict[str, datetime] = {}
        self._leadership = leadership
        self._active_seconds = active_seconds
        self._last_seen: dict[Key, AttemptStatus] = {}
        self._recorded: dict[str, int] = {}
        self._active: frozenset[str] | None = None

    def executes(self, flow_run_id: str) -> bool | None:
        """Whether the cluster has active objects of a run; None if it was not observed."""
        return None if self._active is None else flow_run_id in self._active

    def on_stopped_leading(self) -> None:
        """Discard the last observed status; it becomes stale while another process leads."""
        self._last_seen.clear()
        self._active = None

    def decide(self, observed: ObservedRuns) -> RunsPlan:
        """Decide about each run; pure."""
        return plan_runs(observed, self._limits)

    async def act(self, plan: RunsPlan) -> float | None:
        """Carry out each decision; the trouble of one run does not stop the others."""
        observed = plan.observed
        queued = {case.flow_run_id: case.now for case, one in plan.decisions if one.queued}
        self._queued = {
            run_id: at for run_id, at in self._queued.items() if run_id in observed.runs
        } | queued
        for case, decision in plan.decisions:
            try:
                await self._carry_out(case, decision, observed)
            except LeadershipLostError:
                raise
            except ClusterError as error:
                _logger.warning("Run %s is left as it is for now: %s", case.flow_run_id, error)
            except Exception:  # tried again in the next round
                _logger.exception("Run %s is left as it is for now", case.flow_run_id)
        await self._forget(observed)
        settled = observed.found is not None and all(_is_settled(*one) for one in plan.decisions)
        return None if settled else self._active_seconds

    async def observe(self) -> ObservedRuns:
        """Read the cluster, then Prefect."""
        found: Mapping[Key, AttemptStatus] | None
        try:
            found = self._of_pools(await asyncio.to_thread(self._jobs.find))
        except ClusterError as error:
            _logger.warning("%s", error)
            found = None
        active = await active_runs.read(self._client, _ACTIVE, self._pools)
        runs: dict[str, FlowRun | None] = {str(run.id): run for run in active}
        if found is None:
            return await self._observed(None, runs)
        self._active = frozenset(one.flow_run_id for one in found.values() if one.is_active)
        runs |= await self._read(self._active - runs.keys())
        waiting = any(_may_wait(one) for one in found.values())
        events = await asyncio.to_thread(self._jobs.events) if waiting else []
        nodes = await self._survey() if waiting else None
        return await self._observed(found, runs, events, nodes)

    async def _observed(
        self,
        found: Mapping[Key, AttemptStatus] | None,
        runs: Mapping[str, FlowRun | None],
        events: Sequence[Object] = (),
        nodes: Sequence[NodeCapacity] | None = None,
    ) -> ObservedRuns:
        attempts = await asyncio.to_thread(self._attempts.newest, list(runs))
        seen, now = dict(self._last_seen), datetime.now(UTC)
        return ObservedRuns(
            found, runs, attempts, seen, dict(self._queued), now, tuple(events), nodes
        )

    async def _survey(self) -> Sequence[NodeCapacity] | None:
        """Return the cluster's nodes, cached for a while."""
        at, nodes = self._surveyed
        if time.monotonic() - at >= _NODES_SECONDS:
            try:
                nodes = await asyncio.to_thread(self._nodes)
            except ClusterError as error:
                _logger.warning("The nodes cannot be listed: %s", error)
                nodes = None
            self._surveyed = (time.monotonic(), nodes)
        return nodes

    def _of_pools(self, found: Mapping[Key, AttemptStatus]) -> Mapping[Key, AttemptStatus]:
        """Select the attempts of these pools; the cluster may have others of another worker."""
        pools = {names.label_value(pool) for pool in self._pools}
        return {
            key: one.with_gone_pods(self._last_seen.get(key))
            for key, one in found.items()
            if any(objects.label(thing, names.POOL) in pools for thing in (*one.jobs, *one.pods))
        }

    async def _read(self, run_ids: Iterable[str]) -> dict[str, FlowRun | None]:
        """Read runs by id that are not active, but have objects on the cluster."""
        wanted = sorted(run_ids)
        runs: dict[str, FlowRun | None] = dict.fromkeys(wanted)
        for first in range(0, len(wanted), _PAGE):
            ids = [UUID(run_id) for run_id in wanted[first : first + _PAGE]]
            page = await self._client.read_flow_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)),
                sort=_SORT,
                limit=_PAGE,
            )
            runs |= {str(run.id): run for run in page}
        return runs

    async def _carry_out(
        self, case: RunCase, decision: RunDecision, observed: ObservedRuns
    ) -> None:
        if case.found:
            self._last_seen[case.found.key] = case.found
        run = observed.runs[case.flow_run_id]
        if run and decision.waiting is not None:
            before = observed.attempts.get(case.flow_run_id, _NONE)
            await self._record_waiting(case.flow_run_id, before, decision.waiting)
        if decision.next_state and run:
            await self._transition(run, decision)
            return
        for one in decision.stop:
            await self._stop(one)

    async def _stop(self, found: AttemptStatus) -> None:
        self._leadership.confirm()
        await asyncio.to_thread(self._jobs.stop, found, datetime.now(UTC))

    async def _record_waiting(self, run_id: str, before: AttemptRecord, waiting: str) -> None:
        if waiting:
            self._recorded[run_id] = before.number
        if waiting != before.waiting:
            self._leadership.confirm()
            await asyncio.to_thread(self._attempts.record_waiting, run_id, before.number, waiting)

    async def _transition(self, run: FlowRun, decision: RunDecision) -> None:
        """Set a run's state, if a fresh observation leads to it too: it may have ended since."""
        run_id = str(run.id)
        found = self._of_pools(await asyncio.to_thread(self._jobs.find, run_id))
        events = await asyncio.to_thread(self._jobs.events) if decision.died else []
        try:
            current = await self._client.read_flow_run(run.id)
        except ObjectNotFound:
            return
        observed = await self._observed(found, {run_id: current}, events, self._surveyed[1])
        case = build_case(run_id, observed, self._limits)
        decision = decide(case) if case else RunDecision()
        if decision.next_state is None:
            return
        self._leadership.confirm()
        outcome = decision.next_state
        if decision.died and case and case.found:
            # Before the pods are deleted, and with them their logs.
            lines = await self._keep_lines(current, case.found, decision.died)
            outcome = _with_lines(outcome, lines)
        for one in decision.stop:
            await self._stop(one)
        self._leadership.confirm()  # reading the lines may have taken long
        if decision.retry and case:
            retry = self._attempts.retry
            await asyncio.to_thread(retry, run_id, case.attempt, decision.retry)
            await self._log(current, [outcome.message])
        _logger.warning("Run %s becomes %s: %s", run_id, outcome.detail, outcome.message)
        await self._set(current, outcome)

    async def _set(self, run: FlowRun, outcome: NextState) -> None:
        name, message = annotate(outcome.type, outcome.detail, outcome.message)
        state: State[Any] = State(type=StateType(outcome.type), name=name, message=message)
        if state.type == StateType.SCHEDULED:
            due = datetime.now(UTC) + outcome.delay
            state = Scheduled(scheduled_time=due, name=name, message=message)
        answer = await self._client.set_flow_run_state(run.id, state)
        if answer.status != SetStateStatus.ACCEPT:
            current = await self._client.read_flow_run(run.id)
            if run.state and current.state and current.state.id == run.state.id:
                await self._client.set_flow_run_state(run.id, state, force=True)

    async def _keep_lines(self, run: FlowRun, found: AttemptStatus, died: Diagnosis) -> list[str]:
        """Read the container's last lines, and add those that the run's log lacks."""
        try:
            lines = await asyncio.to_thread(
                self._jobs.last_lines, found, pod=died.pod, container=died.container
            )
        except ClusterError as error:
            _logger.warning("The last lines of run %s cannot be read: %s", run.id, error)
            return []
        known = await self._known(run.id)
        new = [line for line in lines if line.strip() and not known & _forms(line)]
        await self._log(run, new)
        return lines

    async def _log(self, run: FlowRun, lines: Sequence[str]) -> None:
        """Write lines into a run's log."""
        now = datetime.now(UTC)
        await self._client.create_logs(
            LogCreate(
                name="modelyard.container",
                level=_INFO,
                message=line[:_LONGEST_LINE],
                timestamp=now + timedelta(microseconds=number),  # they are shown in its order
                flow_run_id=run.id,
            )
            for number, line in enumerate(lines)
        )

    async def _known(self, run_id: UUID) -> set[str]:
        """Read the lines of the run's log that may be among the container's last lines."""
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
        known: set[str] = set()
        for page in range(_KNOWN_PAGES):
            logs = await self._client.read_logs(
                wanted, limit=_PAGE, offset=page * _PAGE, sort=LogSort.TIMESTAMP_DESC
            )
            known.update(line.strip() for log in logs for line in log.message.splitlines())
            if len(logs) < _PAGE:
                break
        return known

    async def _forget(self, observed: ObservedRuns) -> None:
        """Discard the waiting reasons of ended runs."""
        if observed.found is not None:
            self._last_seen = {
                key: one for key, one in self._last_seen.items() if key[0] in observed.runs
            }
        for run_id in self._recorded.keys() - observed.runs.keys():
            number = self._recorded[run_id]
            self._leadership.confirm()
            await asyncio.to_thread(self._attempts.record_waiting, run_id, number, "")
            del self._recorded[run_id]


def _attempt(state: State[Any] | None, newest: AttemptRecord) -> int:
    """Return the number of the attempt that a run's state refers to; 0 if there is none.

    A run that is tried again is Pending before its worker has begun the attempt. What died then
    is the attempt before, whose end Prefect has.
    """
    if state is None:
        return 0
    begins = state.type == StateType.PENDING and str(state.id) != newest.state_id
    return 0 if begins else newest.number


def _could_hold(found: AttemptStatus | None, nodes: Sequence[NodeCapacity] | None) -> bool | None:
    """Whether the nodes could hold an attempt's pods if nothing else ran there."""
    if nodes is None or found is None or found.job is None:
        return None
    return can_hold(objects.template_of(found.job), objects.nodes_of(found.job), nodes)


def _may_wait(found: AttemptStatus) -> bool:
    """Whether some of an attempt's pods have not started, so that events are needed."""
    job = found.job
    if job is None or not found.is_active:
        return False
    return sum(map(objects.is_started, found.own_pods)) < objects.nodes_of(job)


def _is_settled(case: RunCase, decision: RunDecision) -> bool:
    """Whether a run only runs, so that nothing is decided before an event."""
    active = case.found is not None and case.found.is_active and not _may_wait(case.found)
    return case.state == "RUNNING" and active and decision == RunDecision(waiting="")


def _forms(line: str) -> set[str]:
    """Return a line as it is, and without the prefix of Prefect's console log."""
    return {line.strip(), line.partition(" - ")[2].strip()} - {""}


def _with_lines(outcome: NextState, lines: Sequence[str]) -> NextState:
    """Add the container's lines to the state of a run that never began, and has no log."""
    if outcome.detail != CREATE_FAILED or not lines:
        return outcome
    return replace(outcome, message="\n".join([outcome.message, *lines[-_IN_MESSAGE:]]))
