"""The loop that keeps Prefect and the cluster of one mind about runs.

Every few seconds it looks at the cluster, then at Prefect, asks ``reconciling.decide`` and acts.
It tells what a run waits for, ends a run whose pod died with the reason and the container's last
lines, ends what runs for nobody, and confirms that a run has stopped. Several processes may have
the loop: one of them leads. Between looks it keeps only what pods were last seen as, so another
one can lead from now on.
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
from infra.kubernetes import names, objects, queue
from infra.kubernetes.attempts import Attempt, Attempts
from infra.kubernetes.capacity import Node, could_hold
from infra.kubernetes.diagnosis import Diagnosis
from infra.kubernetes.jobs import Found, Jobs, Key
from infra.kubernetes.objects import Object
from infra.kubernetes.reconciling import Case, Decision, Outcome, decide
from infra.kubernetes.refusals import ClusterError
from infra.state_details import CREATE_FAILED, annotate

INTERVAL_SECONDS = 3.0

_NODES_SECONDS = 30.0
_ACTIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED]
_PAGE = 200
_SORT = FlowRunSort.ID_DESC
_KNOWN_PAGES = 5
_LONGEST_LINE = 10_000
_IN_MESSAGE = 10
_INFO = 20
_NONE = Attempt()

_logger = get_logger("modelyard.reconciler")


@dataclass(frozen=True)
class _Look:
    """What the cluster and Prefect had at one time.

    Attributes:
        found: Attempts on the cluster by run; None if it did not answer.
        runs: Runs by id; None for one that Prefect does not have.
        attempts: The newest attempts of those that have one.
        events: The cluster's events, where they were asked for.
        nodes: The cluster's nodes, where they were asked for and may be listed.
    """

    found: Mapping[Key, Found] | None
    runs: Mapping[str, FlowRun | None]
    attempts: Mapping[str, Attempt]
    events: tuple[Object, ...] = ()
    nodes: Sequence[Node] | None = None


@dataclass(frozen=True)
class Limits:
    """How long runs may wait.

    Attributes:
        pending: For their pods to start, once these have nodes.
        queue: For what others have; None for ever.
    """

    pending: timedelta
    queue: timedelta | None = None


class Reconciler:
    """The loop of some pools.

    Attributes:
        turned: ``time.monotonic()`` at the end of the last turn, whatever came of it.
    """

    def __init__(
        self,
        client: PrefectClient,
        jobs: Jobs,
        pools: Sequence[str],
        attempts: Attempts,
        *,
        limits: Limits,
        nodes: Callable[[], Sequence[Node] | None] = lambda: None,
        lead: Callable[[], bool],
    ) -> None:
        """Prepare the loop.

        Args:
            client: Prefect's.
            jobs: The cluster's Jobs.
            pools: The pools whose runs are followed. Others are not ours to judge.
            attempts: Where the runs' attempts are kept.
            limits: How long runs may wait.
            nodes: The cluster's nodes; None if they cannot be listed.
            lead: Whether this process leads; asked at every turn and before every act.
        """
        self._client = client
        self._jobs = jobs
        self._pools = list(pools)
        self._attempts = attempts
        self._limits = limits
        self._nodes = nodes
        self._surveyed: tuple[float, Sequence[Node] | None] = (-_NODES_SECONDS, None)
        self._queued: dict[str, datetime] = {}
        self._lead = lead
        self._seen: dict[Key, Found] = {}
        self._told: dict[str, int] = {}
        self._going: frozenset[str] | None = None
        self.turned = time.monotonic()

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            try:
                await self.turn()
            except Exception:  # the edge of the loop: the next turn may do better
                _logger.exception("Not reconciled this time")
            self.turned = time.monotonic()
            await asyncio.sleep(INTERVAL_SECONDS)

    def executes(self, flow_run_id: str) -> bool | None:
        """Whether the cluster had something going of a run; None if it was not looked at."""
        return None if self._going is None else flow_run_id in self._going

    async def turn(self) -> int:
        """Look once and act; on how many runs something was done."""
        if not self._lead():
            self._seen.clear()
            self._going = None
            return 0
        look = await self._look()
        acted = 0
        for case, decision in self._decisions(look):
            run_id = case.flow_run_id
            try:
                acted += await self._act(case, decision, look)
            except ClusterError as error:
                _logger.warning("Run %s is left for now: %s", run_id, error)
            except Exception:  # one run's trouble is not the others'
                _logger.exception("Run %s is left for now", run_id)
        await self._forget(look)
        return acted

    def _decisions(self, look: _Look) -> list[tuple[Case, Decision]]:
        """What is to be done about each run; those in a queue are told their places."""
        cases = [case for run_id in look.runs if (case := self._case(run_id, look))]
        decided = [(case, decide(case)) for case in cases]
        queued = {case.flow_run_id: case.now for case, decision in decided if decision.queued}
        self._queued = {one: at for one, at in self._queued.items() if one in look.runs} | queued
        places = queue.places(
            case.found for case in cases if case.flow_run_id in queued and case.found
        )
        return [
            (case, replace(decision, waiting=f"{places[case.flow_run_id]} {decision.waiting}"))
            if case.flow_run_id in places
            else (case, decision)
            for case, decision in decided
        ]

    async def _look(self) -> _Look:
        found: Mapping[Key, Found] | None
        try:
            found = self._ours(await asyncio.to_thread(self._jobs.find))
        except ClusterError as error:
            _logger.warning("%s", error)
            found = None
        active = await active_runs.read(self._client, _ACTIVE, self._pools)
        runs: dict[str, FlowRun | None] = {str(run.id): run for run in active}
        if found is None:
            return _Look(None, runs, await self._newest(runs))
        self._going = frozenset(one.flow_run_id for one in found.values() if one.going)
        runs |= await self._read(self._going - runs.keys())
        waiting = any(_may_wait(one) for one in found.values())
        events = await asyncio.to_thread(self._jobs.events) if waiting else []
        nodes = await self._survey() if waiting else None
        return _Look(found, runs, await self._newest(runs), tuple(events), nodes)

    async def _survey(self) -> Sequence[Node] | None:
        """The cluster's nodes as they were a little while ago."""
        at, nodes = self._surveyed
        if time.monotonic() - at >= _NODES_SECONDS:
            try:
                nodes = await asyncio.to_thread(self._nodes)
            except ClusterError as error:
                _logger.warning("The nodes cannot be listed: %s", error)
                nodes = None
            self._surveyed = (time.monotonic(), nodes)
        return nodes

    async def _newest(self, run_ids: Iterable[str]) -> Mapping[str, Attempt]:
        return await asyncio.to_thread(self._attempts.newest, list(run_ids))

    def _ours(self, found: Mapping[Key, Found]) -> Mapping[Key, Found]:
        """What is of our pools; the cluster may serve others that somebody else follows."""
        pools = {names.cleaned(pool) for pool in self._pools}
        return {
            key: one.remembering(self._seen.get(key))
            for key, one in found.items()
            if any(objects.label(thing, names.POOL) in pools for thing in (*one.jobs, *one.pods))
        }

    async def _read(self, run_ids: Iterable[str]) -> dict[str, FlowRun | None]:
        """Runs by id that are none of the active ones, but have something on the cluster."""
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

    def _case(self, run_id: str, look: _Look) -> Case | None:
        run = look.runs[run_id]
        state = run.state if run else None
        if run is not None and state is None:
            return None
        now = datetime.now(UTC)
        newest = look.attempts.get(run_id, _NONE)
        attempt = _attempt(state, newest)
        of_run = [one for one in (look.found or {}).values() if one.flow_run_id == run_id]
        found = next((one for one in of_run if one.attempt == attempt), None)
        if found is None and (before := self._seen.get((run_id, attempt))):
            found = Found(run_id, attempt).remembering(before)
        return Case(
            flow_run_id=run_id,
            state=state.type.value if state else None,
            since=state.timestamp if state else now,
            attempt=attempt,
            now=now,
            pending=self._limits.pending,
            failures=newest.failures,
            waiting_since=newest.queued_at,
            queue=self._limits.queue,
            could_hold=_could_hold(found, look.nodes),
            queued_at=self._queued.get(run_id),
            found=found,
            others=tuple(one for one in of_run if one.attempt != attempt),
            events=look.events,
            looked=look.found is not None,
        )

    async def _act(self, case: Case, decision: Decision, look: _Look) -> bool:
        if case.found:
            self._seen[case.found.key] = case.found
        run = look.runs[case.flow_run_id]
        if run and decision.waiting is not None:
            before = look.attempts.get(case.flow_run_id, _NONE)
            await self._tell(case.flow_run_id, before, decision.waiting)
        if decision.becomes and run:
            return await self._become(run, decision)
        for one in decision.stop:
            await self._stop(one)
        return bool(decision.stop)

    async def _stop(self, found: Found) -> None:
        if self._lead():
            await asyncio.to_thread(self._jobs.stop, found, datetime.now(UTC))

    async def _tell(self, run_id: str, before: Attempt, waiting: str) -> None:
        if waiting:
            self._told[run_id] = before.number
        if waiting != before.waiting:
            await asyncio.to_thread(self._attempts.tell_waiting, run_id, before.number, waiting)

    async def _become(self, run: FlowRun, decision: Decision) -> bool:
        """Set a run's state, if another look says the same: it may have ended in between."""
        run_id = str(run.id)
        found = self._ours(await asyncio.to_thread(self._jobs.find, run_id))
        events = await asyncio.to_thread(self._jobs.events) if decision.died else []
        try:
            now_it_is = await self._client.read_flow_run(run.id)
        except ObjectNotFound:
            return False
        newest = await self._newest([run_id])
        look = _Look(found, {run_id: now_it_is}, newest, tuple(events), self._surveyed[1])
        case = self._case(run_id, look)
        decision = decide(case) if case else Decision()
        if decision.becomes is None or not self._lead():
            return False
        outcome = decision.becomes
        if decision.died and case and case.found:
            # Before the pods are taken away, and with them their logs.
            lines = await self._keep_lines(now_it_is, case.found, decision.died)
            outcome = _with_lines(outcome, lines)
        for one in decision.stop:
            await self._stop(one)
        if decision.retry and case:
            retry = self._attempts.retry
            await asyncio.to_thread(retry, run_id, case.attempt, decision.retry)
            await self._log(now_it_is, [outcome.message])
        _logger.warning("Run %s becomes %s: %s", run_id, outcome.detail, outcome.message)
        await self._set(now_it_is, outcome)
        return True

    async def _set(self, run: FlowRun, outcome: Outcome) -> None:
        name, message = annotate(outcome.type, outcome.detail, outcome.message)
        state: State[Any] = State(type=StateType(outcome.type), name=name, message=message)
        if state.type == StateType.SCHEDULED:
            due = datetime.now(UTC) + outcome.delay
            state = Scheduled(scheduled_time=due, name=name, message=message)
        answer = await self._client.set_flow_run_state(run.id, state)
        if answer.status != SetStateStatus.ACCEPT:
            now_it_is = await self._client.read_flow_run(run.id)
            if run.state and now_it_is.state and now_it_is.state.id == run.state.id:
                await self._client.set_flow_run_state(run.id, state, force=True)

    async def _keep_lines(self, run: FlowRun, found: Found, died: Diagnosis) -> list[str]:
        """The container's last lines; those that the run's log does not have are written there."""
        try:
            lines = await asyncio.to_thread(
                self._jobs.last_lines, found, pod=died.pod, container=died.container
            )
        except ClusterError as error:
            _logger.warning("The last lines of run %s cannot be had: %s", run.id, error)
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
        """Lines that the run's log has, as far back as the container's last lines may go."""
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

    async def _forget(self, look: _Look) -> None:
        """Keep nothing of runs that are over; nobody waits for anything there."""
        if look.found is not None:
            self._seen = {key: one for key, one in self._seen.items() if key[0] in look.runs}
        for run_id in self._told.keys() - look.runs.keys():
            await asyncio.to_thread(self._attempts.tell_waiting, run_id, self._told[run_id], "")
            del self._told[run_id]


def _attempt(state: State[Any] | None, newest: Attempt) -> int:
    """The number of the attempt that a run's state is about; 0 if there is none.

    A run that is tried again is Pending before its worker has begun the attempt. What died then
    is the attempt before, of which Prefect has been told.
    """
    if state is None:
        return 0
    begins = state.type == StateType.PENDING and str(state.id) != newest.state_id
    return 0 if begins else newest.number


def _could_hold(found: Found | None, nodes: Sequence[Node] | None) -> bool | None:
    """Whether the nodes could have an attempt's pods if nothing else ran there."""
    if nodes is None or found is None or found.job is None:
        return None
    return could_hold(objects.template_of(found.job), objects.nodes_of(found.job), nodes)


def _may_wait(found: Found) -> bool:
    """Whether not all of an attempt's pods have started, so that events say why."""
    job = found.job
    if job is None or not found.going:
        return False
    return sum(map(objects.started, found.own_pods)) < objects.nodes_of(job)


def _forms(line: str) -> set[str]:
    """A line as it is, and what Prefect's console log has made a line of."""
    return {line.strip(), line.partition(" - ")[2].strip()} - {""}


def _with_lines(outcome: Outcome, lines: Sequence[str]) -> Outcome:
    """A run that never began has nowhere else to tell what its container wrote."""
    if outcome.detail != CREATE_FAILED or not lines:
        return outcome
    return replace(outcome, message="\n".join([outcome.message, *lines[-_IN_MESSAGE:]]))
