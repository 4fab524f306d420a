"""The scheduler: it decides what becomes of slots, and has runs created for them.

Each slot goes two steps. First its fate is written down, in one transaction with how far its
schedule was decided: from then on it waits, or is skipped for good. Then, when its schedule has
room, its row says that its run's creation has begun; the run is created under a key that is the
slot's own; and the row says which run it is. Between any two of these a scheduler can be killed:
the next one creates again what had begun, and gets the run that there is.

Only the holder of the lease writes, which every transaction checks. What it knows is in the rows,
so a new leader goes on at once.
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

from infra.errors import ModelyardError, NotFoundError
from registry import catalogue, history, leases, schedules, slots
from registry.leases import Lease, LeaseLostError
from registry.slots import Fate, Slot
from schedules import deciding, dispatching, upcoming
from schedules.deciding import Decision
from schedules.policy import Catchup, SkipReason
from schedules.subject import Subject

LEASE = "scheduler"
LEASE_SECONDS = 8.0
_RENEW_SECONDS = 2.0
_POLL_SECONDS = 1.0
_SWEEP_SECONDS = 30.0
_CREATED_AT_ONCE = 4
_BATCH = 500
_QUEUED_AT_ONCE = 1000  # of a schedule; more come with the next step
_GONE = "Its deployment is gone. Register it: modelyard deploy."

_logger = logging.getLogger("modelyard.scheduler")


class Runs(Protocol):
    """What the scheduler needs of runs."""

    def find(self, slot: Slot) -> str | None:
        """The run of a slot, if it was created; its id."""

    def create(self, subject: Subject, slot: Slot) -> str:
        """Create the run of a slot, or find the one that there is; its id.

        Raises:
            NotFoundError: If its deployment is gone, for now.
            ModelyardError: If it is refused for good. What else is raised is tried again.
        """

    def ended(self, ids: Collection[str]) -> Mapping[str, str]:
        """Those of the runs that have ended or are gone, with the word for it."""

    def stop(self, run_id: str) -> None:
        """Ask for the end of a run."""

    def refusal(self, deployment: str) -> str:
        """Why there can be no runs of a deployment; "" if there can."""

    def announce(self, table: Sequence[Mapping[str, str]]) -> None:
        """Show the slots to come where people look for runs."""


@dataclass(frozen=True)
class _Look:
    """What there is to do.

    Attributes:
        new: Schedules that no scheduler knows yet, with their deployments.
        next_slot: The next slot of all.
        waiting: Schedules of which slots wait, and until when at least.
    """

    new: Mapping[str, str]
    next_slot: int | None
    waiting: Mapping[str, float]

    def due(self, now: float) -> bool:
        """Whether there is something to decide."""
        return bool(self.new) or (self.next_slot is not None and self.next_slot <= now)

    def ready(self, now: float) -> list[str]:
        """Schedules of which slots need not wait longer by themselves."""
        return [schedule for schedule, at in self.waiting.items() if at <= now]

    def seconds(self, now: float, most: float) -> float:
        """How long there is nothing to do, or ``most``."""
        moments = [at for at in self.waiting.values() if at > now]
        if self.next_slot is not None:
            moments.append(self.next_slot)
        return max(0.0, min([most, *(at - now for at in moments)]))


class Scheduler:
    """One scheduler. Several may run; the one that holds the lease does the work."""

    def __init__(
        self,
        runs: Runs,
        holder: str,
        *,
        now: Callable[[], float] = time.time,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """Be ready.

        Args:
            runs: Creates and follows runs.
            holder: What this scheduler is called; no other is called so.
            now: The present, in seconds since 1970.
            lease_seconds: So long after its end another may lead.
        """
        self._runs = runs
        self._holder = holder
        self._now = now
        self._lease_seconds = lease_seconds
        self._lease: Lease | None = None
        self._renewed = 0.0
        self._swept = -math.inf
        self._announced: list[dict[str, str]] = []
        self._pool = ThreadPoolExecutor(_CREATED_AT_ONCE, thread_name_prefix="a slot's run")

    @property
    def leads(self) -> bool:
        """Whether this is the one that does the work."""
        return self._lease is not None

    def step(self) -> float:
        """Do what is to be done now; after how many seconds there is more, at the latest.

        Raises:
            sqlalchemy.exc.OperationalError: If the database cannot be reached.
        """
        if not self._lead():
            return _RENEW_SECONDS
        blocked = False
        try:
            before = self._look()
            if before.new:
                self._register(before.new)
            if before.due(self._now()):
                self._decide()
                if before.new:
                    self._announce()
                before = self._look()
            if before.ready(self._now()):
                blocked = self._dispatch(before.ready(self._now()))
                before = self._look()
            self._sweep()
        except LeaseLostError:
            self._lost()
            return _RENEW_SECONDS
        return before.seconds(self._now(), _POLL_SECONDS if blocked else _RENEW_SECONDS)

    def close(self) -> None:
        """Let another one lead at once."""
        self._pool.shutdown()
        if self._lease is not None:
            leases.release(self._lease)

    def _lead(self) -> bool:
        """Whether this one leads, now that the lease was renewed or taken."""
        if self._lease is not None:
            try:
                self._stay()
            except LeaseLostError:
                self._lost()
            else:
                return True
        self._lease = leases.take(LEASE, self._holder, self._lease_seconds)
        if self._lease is not None:
            self._renewed = time.monotonic()
            _logger.info("This scheduler leads (%s).", self._holder)
        return self._lease is not None

    def _stay(self) -> None:
        """Renew the lease in time.

        Raises:
            LeaseLostError: If another has it.
        """
        assert self._lease is not None
        if time.monotonic() - self._renewed < _RENEW_SECONDS:
            return
        if not leases.renew(self._lease, self._lease_seconds):
            raise LeaseLostError(LEASE)
        self._renewed = time.monotonic()

    def _lost(self) -> None:
        _logger.warning("Another scheduler leads now.")
        self._lease = None

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        assert self._lease is not None
        with catalogue.engine().begin() as connection:
            self._lease.check(connection)
            yield connection

    def _look(self) -> _Look:
        with catalogue.engine().connect() as connection:
            return _Look(
                schedules.unregistered(connection),
                schedules.next_slot(connection),
                slots.waiting(connection),
            )

    def _register(self, new: Mapping[str, str]) -> None:
        """Take notice of new schedules.

        Where Prefect does not answer, their deployments are believed to be there, as they were
        when somebody named them: their slots are decided, and a run will tell.
        """
        refusals = self._refusals(new.values())
        with self._writing() as connection:
            known = {key: refusals.get(name, "") for key, name in new.items()}
            schedules.register(connection, known)

    def _look_again(self) -> None:
        """See whether the deployments are back of schedules for which they were gone."""
        with catalogue.engine().connect() as connection:
            stalled = schedules.stalled(connection)
        refusals = self._refusals(stalled.values())
        if refusals:
            with self._writing() as connection:
                known = {key: refusals[name] for key, name in stalled.items() if name in refusals}
                schedules.register(connection, known)

    def _refusals(self, deployments: Collection[str]) -> dict[str, str]:
        """Why there can be no runs of deployments, of as many as is known."""
        refusals: dict[str, str] = {}
        for name in sorted(set(deployments)):
            try:
                refusals[name] = self._runs.refusal(name)
            except Exception as error:  # noqa: BLE001 (the edge of the loop; asked again)
                _logger.warning("Whether there is %s is not known: %s", name, error)
                break
        return refusals

    def _decide(self) -> None:
        """Decide what becomes of slots that are due; of very many with the next steps."""
        now = self._now()
        with self._writing() as connection:
            due = schedules.due(connection, int(now), _BATCH)
            asked = slots.backfilled(connection, {row.id: row.decided_until for row in due})
            decisions, broken = self._decisions(due, now, asked)
            slots.add(connection, (one for made in decisions.values() for one in made.slots))
            schedules.decided(
                connection,
                {key: (made.decided_until, made.next_slot) for key, made in decisions.items()},
            )
            schedules.register(connection, broken)

    def _decisions(
        self, due: Sequence[Any], now: float, asked: Mapping[str, Collection[int]]
    ) -> tuple[dict[str, Decision], dict[str, str]]:
        """What is decided of schedules; and what is wrong with those that cannot be read."""
        decisions, broken = {}, {}
        for row in due:
            try:
                decisions[row.id] = deciding.decide(
                    Subject.of(row), now, self._holder, asked[row.id]
                )
            except Exception as error:
                _logger.exception("The schedule %s cannot be decided about.", row.name)
                broken[row.id] = f"{type(error).__name__}: {error}"
        return decisions, broken

    def _dispatch(self, ready: Collection[str]) -> bool:
        """Have runs created for slots that wait; whether some must be looked at again."""
        now = self._now()
        if not self._refresh(self._active(ready)):
            return True  # what goes on is not known
        rooms = []
        with self._writing() as connection:
            rows = schedules.with_ids(connection, ready, lock=True)
            subjects = {row.id: Subject.of(row) for row in rows}
            running = _by_schedule(slots.active(connection, list(subjects)))
            for key, subject in subjects.items():
                reason = dispatching.waits_for(subject)
                if reason:
                    if subject.policy.catchup is not Catchup.ALL:
                        slots.skip_all_but_newest(connection, key, SkipReason.NOT_LATEST)
                    own = not subject.error
                    slots.decide_waiting(connection, key, Fate.WAITING, reason, own=own)
                queue = slots.queue(connection, key, now, _QUEUED_AT_ONCE, own=not reason)
                queue = [one for one in queue if one.begun or not subject.error]
                rooms.append(dispatching.room(subject, queue, running[key]))
                slots.change(connection, rooms[-1].changed)
        self._cancel([run for room in rooms for run in room.cancel])
        failed = self._create(
            subjects,
            again=[slot for room in rooms for slot in room.again],
            begin=[slot for room in rooms for slot in room.begin],
        )
        return failed or len(rows) < len(ready) or any(room.blocked for room in rooms)

    def _sweep(self) -> None:
        """Now and then, learn what became of runs, and of deployments; and show what comes."""
        if time.monotonic() - self._swept >= _SWEEP_SECONDS:
            self._swept = time.monotonic()
            self._refresh(self._active())
            self._look_again()
            self._announce()

    def _announce(self) -> None:
        """Have the slots to come shown, where they have changed."""
        with catalogue.engine().connect() as connection:
            table = upcoming.table(connection)
        if table == self._announced:
            return
        try:
            self._runs.announce(table)
        except Exception as error:  # noqa: BLE001 (the edge of the loop; tried again)
            _logger.warning("The slots to come could not be shown: %s", error)
        else:
            self._announced = table

    def _active(self, schedules: Collection[str] | None = None) -> list[Slot]:
        """Slots whose runs go on, as far as is known, of these schedules or of all."""
        with catalogue.engine().connect() as connection:
            found = slots.active(connection, schedules)
        return [one for one in found if one.flow_run_id]

    def _refresh(self, active: Sequence[Slot]) -> bool:
        """Write down which runs have ended, and pause schedules that only fail; if it is known."""
        if not active:
            return True
        try:
            ended = self._runs.ended([str(one.flow_run_id) for one in active])
        except Exception as error:  # noqa: BLE001 (the edge of the loop; asked again)
            _logger.warning("What became of the runs is not known: %s", error)
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
                if why := dispatching.pause_if_failing(connection, Subject.of(row)):
                    paused[row.id] = why
        for key, why in paused.items():
            history.record("schedule", key, "pause", why=why)
        return True

    def _cancel(self, runs: list[str]) -> None:
        for run_id in runs:
            try:
                self._runs.stop(run_id)
            except Exception as error:  # noqa: BLE001 (the edge of the loop; asked again)
                _logger.warning("The run %s could not be stopped: %s", run_id, error)
                return

    def _create(
        self, subjects: Mapping[str, Subject], *, again: list[Slot], begin: list[Slot]
    ) -> bool:
        """Create the runs of slots, several at once; whether some must be tried again."""
        silent = threading.Event()
        tried = {slot.key for slot in again}
        made = self._pool.map(
            lambda slot: self._created(
                subjects[slot.schedule], slot, silent, perhaps_there=slot.key in tried
            ),
            [*again, *begin],
        )
        for slot in made:
            self._stay()
            if slot is None:
                continue
            with self._writing() as connection:
                slots.change(connection, [slot])
                if slot.reason == dispatching.DEPLOYMENT_GONE:
                    schedules.register(connection, {slot.schedule: _GONE})
        return silent.is_set()

    def _created(
        self, subject: Subject, slot: Slot, silent: threading.Event, *, perhaps_there: bool
    ) -> Slot | None:
        """The slot with its run, or as what became of it otherwise; None to try again.

        A run that may be there is looked for: its deployment may be another by now, or gone. Once
        Prefect has not answered, the others are not asked for either: each would take as long to
        find that out, and meanwhile nothing would be decided.
        """
        if silent.is_set():
            return None
        try:
            run = self._runs.find(slot) if perhaps_there else None
            run = run or self._runs.create(subject, slot)
        except NotFoundError as error:
            _logger.warning("The deployment of %s is gone: %s", subject.name, error)
            return replace(slot, reason=dispatching.DEPLOYMENT_GONE, begun=False)
        except ModelyardError as error:
            _logger.warning("The run of %s was refused: %s", subject.name, error)
            reason = f"{dispatching.REFUSED}: {error}"
            return replace(slot, fate=Fate.SKIPPED, reason=reason, begun=False)
        except Exception as error:  # noqa: BLE001 (the edge of the loop; tried again)
            _logger.warning("The run of %s could not be created: %s", subject.name, error)
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
