"""The scheduler's reconciler: decides the fate of slots and creates their runs.

Each slot takes two steps. First its fate is written, in one transaction with how far its
schedule was decided: from then on it waits, or is skipped for good. Then, when its schedule has
room, its row says that its run's creation has begun; the run is created under the slot's own
key; and the row says which run it is. A scheduler can be killed between any two of these: the
next one repeats what had begun, and finds the run that exists.

Only the leader writes: each transaction checks the token of its lease. All state is in the rows,
so a new leader continues at once.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sqlalchemy import Connection

from infra.controllers import Leadership
from infra.errors import ModelyardError, NotFoundError
from registry import catalogue, history
from registry.schedules import schedules, slots
from registry.schedules.slots import Fate, Slot
from schedules import deciding, dispatching, upcoming
from schedules.deciding import SlotDecision
from schedules.policy import Catchup, SkipReason
from schedules.schedule import PausedSchedule, Schedule

LEASE = "scheduler"
LEASE_SECONDS = 8.0
_RETRY_SECONDS = 1.0
_BLOCKED_SECONDS = 10.0  # the end of a run is an event
_SWEEP_SECONDS = 30.0
_CREATED_AT_ONCE = 4
_BATCH = 500
_QUEUED_AT_ONCE = 1000  # of a schedule; more come in the next round
_GONE = "Its deployment does not exist any more. Register it: modelyard deploy."

_logger = logging.getLogger("modelyard.scheduler")


class Runs(Protocol):
    """The runs of slots, as the scheduler creates and follows them."""

    def find(self, slot: Slot) -> str | None:
        """The id of a slot's run; None if it was not created."""

    def create(self, schedule: Schedule, slot: Slot) -> str:
        """Create the run of a slot, or find the one that exists; its id.

        Raises:
            NotFoundError: If its deployment is gone, for now.
            ModelyardError: If it is refused for good. Any other error is tried again.
        """

    def ended(self, ids: Collection[str]) -> Mapping[str, str]:
        """Those of the runs that have ended or are gone, with their status word."""

    def stop(self, run_id: str) -> None:
        """Request the end of a run."""

    def refusal(self, deployment: str) -> str:
        """Why runs of a deployment cannot be created; "" if they can."""

    def announce_pause(self, paused: PausedSchedule) -> None:
        """Emit the event of a schedule that was paused; one of the same id counts once."""

    def announce(self, table: Sequence[Mapping[str, str]]) -> None:
        """Publish the next slots where people look for runs."""


@dataclass(frozen=True)
class ObservedSchedules:
    """The schedules and slots that may need work.

    Attributes:
        now: The present, in seconds since 1970.
        new: Schedules that are not registered yet, with their deployments.
        next_slot: The next slot of all.
        waiting: Schedules with waiting slots, and until when these wait at least.
        sweep_due: Whether the last sweep is long enough ago.
    """

    now: float
    new: Mapping[str, str]
    next_slot: int | None
    waiting: Mapping[str, float]
    sweep_due: bool


@dataclass(frozen=True)
class RoundPlan:
    """The work of one round.

    Attributes:
        register: Schedules to register, with their deployments.
        decide: Whether slots are due to be decided.
        dispatch: Schedules with slots that may get their runs.
        sweep: Whether to look at all active runs and missing deployments.
        idle_seconds: The time until the next slot is due; infinite if there is none.
    """

    register: Mapping[str, str]
    decide: bool
    dispatch: tuple[str, ...]
    sweep: bool
    idle_seconds: float


def plan_round(observed: ObservedSchedules) -> RoundPlan:
    """Plan a round from what was observed. Pure."""
    now, slot = observed.now, observed.next_slot
    moments = [at for at in observed.waiting.values() if at > now]
    if slot is not None:
        moments.append(slot)
    return RoundPlan(
        register=observed.new,
        decide=bool(observed.new) or (slot is not None and slot <= now),
        dispatch=tuple(key for key, at in observed.waiting.items() if at <= now),
        sweep=observed.sweep_due,
        idle_seconds=max(0.0, min(moments, default=math.inf) - now),
    )


class Scheduler:
    """The scheduler, as a blocking reconciler (:mod:`infra.controllers`)."""

    def __init__(
        self,
        runs: Runs,
        holder: str,
        leadership: Leadership,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the scheduler.

        Args:
            runs: Creates and follows runs.
            holder: This scheduler's name; no other has it.
            leadership: Gives the lease whose token each transaction checks.
            now: The present, in seconds since 1970.
        """
        self._runs = runs
        self._holder = holder
        self._leadership = leadership
        self._now = now
        self._swept = -math.inf
        self._announced: list[dict[str, str]] = []
        self._pool = ThreadPoolExecutor(_CREATED_AT_ONCE, thread_name_prefix="a slot's run")

    def observe(self) -> ObservedSchedules:
        """Read which schedules and slots may need work."""
        with catalogue.engine().connect() as connection:
            return ObservedSchedules(
                self._now(),
                schedules.unregistered(connection),
                schedules.next_slot(connection),
                slots.waiting(connection),
                time.monotonic() - self._swept >= _SWEEP_SECONDS,
            )

    def decide(self, observed: ObservedSchedules) -> RoundPlan:
        """Plan a round; pure."""
        return plan_round(observed)

    def act(self, plan: RoundPlan) -> float:
        """Do what is planned; seconds until there is more, infinite if that is unknown.

        Raises:
            LeadershipLostError: If another scheduler leads.
            sqlalchemy.exc.OperationalError: If the database cannot be reached.
        """
        if plan.register:
            self._register(plan.register)
        ready, worked = plan.dispatch, plan.decide or bool(plan.dispatch)
        if plan.decide:
            self._decide()
            if plan.register:
                self._announce()
            ready = plan_round(self.observe()).dispatch  # with the slots that were just decided
        dispatched = self._dispatch(ready) if ready else math.inf
        idle = plan_round(self.observe()).idle_seconds if worked else plan.idle_seconds
        if plan.sweep:
            self._sweep()
        return min(idle, dispatched)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        lease = self._leadership.confirm()
        with catalogue.engine().begin() as connection:
            lease.check(connection)
            yield connection

    def _register(self, new: Mapping[str, str]) -> None:
        """Register new schedules.

        While Prefect does not answer, their deployments count as present, as they were when the
        schedules were written: their slots are decided, and creating a run finds out.
        """
        refusals = self._refusals(new.values())
        with self._writing() as connection:
            known = {key: refusals.get(name, "") for key, name in new.items()}
            schedules.register(connection, known)

    def _check_stalled(self) -> None:
        """Check whether deployments that were gone are back."""
        with catalogue.engine().connect() as connection:
            stalled = schedules.stalled(connection)
        refusals = self._refusals(stalled.values())
        if refusals:
            with self._writing() as connection:
                known = {key: refusals[name] for key, name in stalled.items() if name in refusals}
                schedules.register(connection, known)

    def _refusals(self, deployments: Collection[str]) -> dict[str, str]:
        """Why runs of deployments cannot be created, for those that Prefect answered about."""
        refusals: dict[str, str] = {}
        for name in sorted(set(deployments)):
            try:
                refusals[name] = self._runs.refusal(name)
            except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
                _logger.warning("The deployment %s could not be looked up: %s", name, error)
                break
        return refusals

    def _decide(self) -> None:
        """Decide the fate of due slots; of very many in the next rounds."""
        now = self._now()
        with self._writing() as connection:
            due = schedules.due(connection, int(now), _BATCH)
            backfilled = slots.backfilled(connection, {row.id: row.decided_until for row in due})
            decisions, broken = self._decisions(due, now, backfilled)
            slots.add(connection, (one for made in decisions.values() for one in made.slots))
            schedules.decided(
                connection,
                {key: (made.decided_until, made.next_slot) for key, made in decisions.items()},
            )
            schedules.register(connection, broken)

    def _decisions(
        self, due: Sequence[Any], now: float, backfilled: Mapping[str, Collection[int]]
    ) -> tuple[dict[str, SlotDecision], dict[str, str]]:
        """The decisions for schedules, and the errors of those that cannot be read."""
        decisions, broken = {}, {}
        for row in due:
            try:
                decisions[row.id] = deciding.decide_slots(
                    Schedule.from_row(row), now, self._holder, backfilled[row.id]
                )
            except Exception as error:
                _logger.exception("The slots of schedule %s cannot be decided.", row.name)
                broken[row.id] = f"{type(error).__name__}: {error}"
        return decisions, broken

    def _dispatch(self, ready: Collection[str]) -> float:
        """Create the runs of waiting slots; seconds until the others are tried again."""
        now = self._now()
        if not self._refresh(self._active(ready)):
            return _RETRY_SECONDS  # which runs are active is not known
        plans = []
        with self._writing() as connection:
            rows = schedules.with_ids(connection, ready, lock=True)
            by_id = {row.id: Schedule.from_row(row) for row in rows}
            running = _by_schedule(slots.active(connection, list(by_id)))
            for key, schedule in by_id.items():
                reason = dispatching.blocking_reason(schedule)
                if reason:
                    if schedule.policy.catchup is not Catchup.ALL:
                        slots.skip_all_but_newest(connection, key, SkipReason.NOT_LATEST)
                    own = not schedule.error
                    slots.decide_waiting(connection, key, Fate.WAITING, reason, own=own)
                queue = slots.queue(connection, key, now, _QUEUED_AT_ONCE, own=not reason)
                queue = [one for one in queue if one.begun or not schedule.error]
                plans.append(dispatching.plan_dispatch(schedule, queue, running[key]))
                slots.change(connection, plans[-1].update)
        self._cancel([run for plan in plans for run in plan.cancel])
        failed = self._create(
            by_id,
            recreate=[slot for plan in plans for slot in plan.recreate],
            create=[slot for plan in plans for slot in plan.create],
        )
        if failed or len(rows) < len(ready):
            return _RETRY_SECONDS
        return _BLOCKED_SECONDS if any(plan.blocked for plan in plans) else math.inf

    def _sweep(self) -> None:
        """Refresh all active runs and missing deployments, and publish the next slots."""
        self._swept = time.monotonic()
        self._refresh(self._active())
        self._check_stalled()
        self._announce_pauses()
        self._announce()

    def _announce(self) -> None:
        """Publish the next slots, if they have changed."""
        with catalogue.engine().connect() as connection:
            table = upcoming.table(connection)
        if table == self._announced:
            return
        try:
            self._runs.announce(table)
        except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
            _logger.warning("The next slots could not be published: %s", error)
        else:
            self._announced = table

    def _active(self, schedules: Collection[str] | None = None) -> list[Slot]:
        """Slots whose runs are not known to have ended, of these schedules or of all."""
        with catalogue.engine().connect() as connection:
            found = slots.active(connection, schedules)
        return [one for one in found if one.flow_run_id]

    def _refresh(self, active: Sequence[Slot]) -> bool:
        """Record which runs have ended, and pause schedules that only fail.

        Returns:
            Whether Prefect answered.
        """
        if not active:
            return True
        try:
            ended = self._runs.ended([str(one.flow_run_id) for one in active])
        except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
            _logger.warning("The states of the runs could not be read: %s", error)
            return False
        over = [
            replace(one, run_state=ended[str(one.flow_run_id)])
            for one in active
            if one.flow_run_id in ended
        ]
        if not over:
            return True
        paused = {}
        with self._writing() as connection:
            slots.change(connection, over)
            for row in schedules.with_ids(connection, {one.schedule for one in over}):
                if why := dispatching.pause_if_failing(connection, Schedule.from_row(row)):
                    paused[row.id] = why
        for key, why in paused.items():
            history.record("schedule", key, "pause", why=why)
        if paused:
            self._announce_pauses()
        return True

    def _announce_pauses(self) -> None:
        """Emit the events of schedules that were paused, also by an earlier leader."""
        with catalogue.engine().connect() as connection:
            found = schedules.unannounced_pauses(connection)
        for row in found:
            self._leadership.confirm()
            try:
                self._runs.announce_pause(
                    PausedSchedule(row.id, row.name, row.deployment, row.paused, row.pause_event)
                )
            except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
                _logger.warning("The pause of %s could not be announced: %s", row.name, error)
                return
            with self._writing() as connection:
                schedules.pause_announced(connection, row.pause_event)

    def _cancel(self, runs: list[str]) -> None:
        for run_id in runs:
            try:
                self._runs.stop(run_id)
            except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
                _logger.warning("The run %s could not be stopped: %s", run_id, error)
                return

    def _create(
        self, by_id: Mapping[str, Schedule], *, recreate: list[Slot], create: list[Slot]
    ) -> bool:
        """Create the runs of slots, several at once; whether some must be tried again."""
        silent = threading.Event()
        tried = {slot.key for slot in recreate}
        made = self._pool.map(
            lambda slot: self._created(
                by_id[slot.schedule], slot, silent, perhaps_there=slot.key in tried
            ),
            [*recreate, *create],
        )
        for slot in made:
            if slot is None:
                continue
            with self._writing() as connection:
                slots.change(connection, [slot])
                if slot.reason == dispatching.DEPLOYMENT_GONE:
                    schedules.register(connection, {slot.schedule: _GONE})
        return silent.is_set()

    def _created(
        self, schedule: Schedule, slot: Slot, silent: threading.Event, *, perhaps_there: bool
    ) -> Slot | None:
        """Create the run of a slot; the slot with its run or its refusal, None to try again.

        A run that may exist is looked up first, because its deployment may have changed or gone.
        Once Prefect does not answer, the other runs are not tried: each would wait for the same
        timeout, while no slot is decided.
        """
        if silent.is_set():
            return None
        try:
            run = self._runs.find(slot) if perhaps_there else None
            run = run or self._runs.create(schedule, slot)
        except NotFoundError as error:
            _logger.warning("The deployment of %s is gone: %s", schedule.name, error)
            return replace(slot, reason=dispatching.DEPLOYMENT_GONE, begun=False)
        except ModelyardError as error:
            _logger.warning("The run of %s was refused: %s", schedule.name, error)
            reason = f"{dispatching.REFUSED}: {error}"
            return replace(slot, fate=Fate.SKIPPED, reason=reason, begun=False)
        except Exception as error:  # noqa: BLE001 (the loop's edge; tried again)
            _logger.warning("The run of %s could not be created: %s", schedule.name, error)
            silent.set()
            return None
        return replace(
            slot, fate=Fate.CREATED, reason="", begun=False, flow_run_id=run, run_at=self._now()
        )


def _by_schedule(found: list[Slot]) -> dict[str, list[Slot]]:
    grouped: dict[str, list[Slot]] = defaultdict(list)
    for slot in found:
        grouped[slot.schedule].append(slot)
    return grouped
