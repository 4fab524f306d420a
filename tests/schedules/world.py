"""A world for schedulers: a clock of its own, runs that take their time, and faults."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from infra.controllers import LeaderElection, LeadershipLostError
from infra.errors import BadInputError, NotFoundError
from registry import leases
from registry.leases import Lease
from registry.schedules import schedules
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Slot
from schedules import deciding
from schedules.instants import second_of
from schedules.policy import SchedulePolicy
from schedules.schedule import PausedSchedule, Schedule
from schedules.scheduler import LEASE, LEASE_SECONDS, Scheduler
from schedules.trigger import Trigger


@dataclass(frozen=True)
class _ExpiringLeases:
    """The catalogue's leases, which expire after ``seconds`` whatever a campaign asks for."""

    seconds: float

    def take(self, name: str, holder: str, _: float) -> Lease | None:
        return leases.take(name, holder, self.seconds)

    def renew(self, lease: Lease, _: float) -> bool:
        return leases.renew(lease, self.seconds)

    def release(self, lease: Lease) -> None:
        leases.release(lease)


class SteppedScheduler(Scheduler):
    """A scheduler whose rounds and whose campaign for the lease a test steps."""

    def __init__(self, world: World, lease_seconds: float) -> None:
        holder = str(uuid.uuid4())
        self.election = LeaderElection(
            _ExpiringLeases(lease_seconds), LEASE, holder, seconds=LEASE_SECONDS, clock=lambda: 0.0
        )
        super().__init__(world, holder, self.election, now=lambda: world.now)

    @property
    def leads(self) -> bool:
        return self.election.is_leader()

    def step(self) -> float:
        """Do a round, if it leads; after how many seconds there is more."""
        self.election.campaign()
        if not self.leads:
            return 1.0
        try:
            return self.act(self.decide(self.observe()))
        except LeadershipLostError:
            self.election.resign()
            return 1.0

    def close(self) -> None:
        self.election.close()


class Killed(BaseException):
    """The scheduler's process is gone."""


@dataclass
class Run:
    """A run.

    Attributes:
        key: The schedule, the kind and the slot.
        begins: When it was created.
        ends: When it ends by itself.
        word: As what.
    """

    key: tuple[str, str, int]
    begins: float
    ends: float
    word: str = "COMPLETE"


@dataclass
class World:
    """Runs as schedulers see them, and what goes wrong.

    Attributes:
        now: The present.
        chance: What all chance derives from.
        kills: How likely a call is to be the last one.
        losses: How likely Prefect is not to answer.
        takes: How long the runs of a schedule take, by its id; a minute if it is not here.
        fails: Schedules whose runs fail.
        runs: Every run by its id.
        most: How many runs of a schedule went on at once at most.
        refused: Deployments that are gone.
    """

    now: float
    chance: random.Random
    kills: float = 0.0
    losses: float = 0.0
    takes: dict[str, float] = field(default_factory=dict)
    fails: set[str] = field(default_factory=set)
    runs: dict[str, Run] = field(default_factory=dict)
    most: Counter[str] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)
    silent: bool = False
    malformed: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    announced: list[Mapping[str, str]] = field(default_factory=list)
    pauses: list[PausedSchedule] = field(default_factory=list)
    tried_pauses: list[uuid.UUID] = field(default_factory=list)
    announces_pauses: bool = True

    def scheduler(self, lease_seconds: float = 0.0) -> SteppedScheduler:
        """One that nobody waits for: its lease is over at once."""
        return SteppedScheduler(self, lease_seconds)

    def perhaps_killed(self) -> None:
        """Sometimes this is where the scheduler ends."""
        if self.chance.random() < self.kills:
            self.counts["kills"] += 1
            raise Killed

    def _perhaps_lost(self) -> None:
        if self.chance.random() < self.losses:
            self.counts["losses"] += 1
            raise ConnectionError("nobody answers")

    def find(self, slot: Slot) -> str | None:
        self.perhaps_killed()
        self._perhaps_lost()
        key = (slot.schedule, str(slot.kind), slot.slot)
        return next((name for name, run in self.runs.items() if run.key == key), None)

    def create(self, schedule: Schedule, slot: Slot) -> str:
        self.perhaps_killed()
        self._perhaps_lost()
        if schedule.deployment in self.refused:
            raise NotFoundError("It is gone.", "Deploy it.")
        if schedule.id in self.malformed:
            raise BadInputError("It is wrong.", "Mend it.")
        key = (slot.schedule, str(slot.kind), slot.slot)
        found = next((name for name, run in self.runs.items() if run.key == key), None)
        if found is None:
            found = str(uuid.uuid4())
            takes = self.takes.get(schedule.id, 60.0)
            word = "FAIL TRAIN" if schedule.id in self.fails else "COMPLETE"
            self.runs[found] = Run(key, self.now, self.now + takes, word)
            self.most[schedule.id] = max(self.most[schedule.id], self.active(schedule.id))
            self.counts["runs"] += 1
        self.perhaps_killed()
        self._perhaps_lost()
        return found

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        self.perhaps_killed()
        self._perhaps_lost()
        return {
            one: self.runs[one].word if one in self.runs else "DELETED"
            for one in ids
            if one not in self.runs or self.runs[one].ends <= self.now
        }

    def stop(self, run_id: str) -> None:
        self._perhaps_lost()
        run = self.runs[run_id]
        if run.ends > self.now:
            run.ends, run.word = self.now, "STOPPED"

    def refusal(self, deployment: str) -> str:
        if self.silent:
            raise ConnectionError("nobody answers")
        return "It is gone." if deployment in self.refused else ""

    def announce_pause(self, paused: PausedSchedule) -> None:
        self.perhaps_killed()
        self._perhaps_lost()
        self.tried_pauses.append(paused.event)
        if not self.announces_pauses:
            raise ConnectionError("nobody answers")
        self.pauses.append(paused)
        self.perhaps_killed()

    def announce(self, table: Sequence[Mapping[str, str]]) -> None:
        self.perhaps_killed()
        self._perhaps_lost()
        self.announced = list(table)

    def active(self, schedule: str) -> int:
        """How many runs of a schedule go on."""
        return sum(run.key[0] == schedule and run.ends > self.now for run in self.runs.values())

    def schedule(self, name: str, *, deployment: str = "train", **given: Any) -> str:
        """Keep a schedule; its id. What is no field of a policy is one of the trigger."""
        policy = {key: given.pop(key) for key in list(given) if key in SchedulePolicy.model_fields}
        trigger = Trigger(**{"since": datetime.fromtimestamp(self.now, UTC), **given})
        decided = second_of(trigger.base)
        now = datetime.now(UTC)
        key = str(uuid.uuid4())
        schedules.add(
            ScheduleModel(
                id=key, name=name, description="", deployment=deployment, parameters={},
                trigger=trigger.model_dump(mode="json", exclude_none=True),
                policy=SchedulePolicy(**policy).model_dump(mode="json"), enabled=True, paused="",
                registered=False, error="", source="", decided_until=decided,
                next_slot=deciding.next_slot(trigger, decided), failures_since=0,
                created_at=now, created_by="somebody", changed_at=now, changed_by="somebody",
            )
        )  # fmt: skip
        return key
