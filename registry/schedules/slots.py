"""Slots of schedules with their fates, as rows of the catalogue.

A slot is decided once: its row is written in the transaction that moves its schedule past it, by
the holder of the lease. Its run is created under an idempotency key of the slot. So a slot has one
fate and at most one run, whichever process is killed at any time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Double,
    Index,
    Text,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from registry.catalogue import Base, engine


class Fate(StrEnum):
    """Fate of a slot.

    Attributes:
        WAITING: Its run is not created yet: it is due soon, or `max_concurrency` is reached.
        CREATED: It has its run.
        SKIPPED: It gets no run; `reason` says why.
    """

    WAITING = "waiting"
    CREATED = "created"
    SKIPPED = "skipped"


class Kind(StrEnum):
    """Origin of a slot.

    Attributes:
        SCHEDULED: A time of the trigger.
        BACKFILL: A past time, by `modelyard schedule backfill`.
        MANUAL: By `modelyard schedule trigger`.
    """

    SCHEDULED = "scheduled"
    BACKFILL = "backfill"
    MANUAL = "manual"


_WAITS = sqlalchemy.text("fate = 'waiting'")
_IS_ACTIVE = sqlalchemy.text("fate = 'created' AND run_state IS NULL")


class SlotModel(Base):
    """A slot, or several that follow each other and share their fate."""

    __tablename__ = "schedule_slots"
    __table_args__ = (
        Index(
            "schedule_slots_waiting", "schedule", "slot",
            postgresql_where=_WAITS,
        ),
        Index(
            "schedule_slots_active", "schedule",
            postgresql_where=_IS_ACTIVE,
        ),
        Index("schedule_slots_run", "flow_run_id"),
        Index("schedule_slots_fate", "schedule", "fate", "slot"),
        Index(
            "schedule_slots_run_at", "schedule", "run_at", "slot",
            postgresql_where=sqlalchemy.text("run_at IS NOT NULL"),
        ),
    )  # fmt: skip

    schedule: Mapped[str] = mapped_column(Text, primary_key=True)
    slot: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(BigInteger)
    fate: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    not_before: Mapped[float] = mapped_column(Double)
    begun: Mapped[bool] = mapped_column(Boolean)
    flow_run_id: Mapped[str | None] = mapped_column(Text)
    run_at: Mapped[float | None] = mapped_column(Double)
    run_state: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[float] = mapped_column(Double)
    decided_by: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True)
class Slot:
    """A slot, or several that follow each other and share their fate.

    Attributes:
        schedule: The schedule's id.
        slot: Time of the slot, or of the first one; in seconds since 1970, as all times here.
        kind: Its origin.
        last: Time of the last one.
        count: How many slots.
        fate: Its fate.
        reason: Why it is skipped, or what it waits for.
        not_before: The earliest time at which its run is created.
        begun: Whether the creation of its run has begun, so that the run may exist.
        flow_run_id: Its run.
        run_at: When its run was created.
        run_state: State in which its run ended; None while it is active.
        decided_at: When its fate was decided.
        decided_by: The scheduler or user that decided it.
    """

    schedule: str
    slot: int
    kind: str
    last: int
    count: int
    fate: str
    reason: str = ""
    not_before: float = 0.0
    begun: bool = False
    flow_run_id: str | None = None
    run_at: float | None = None
    run_state: str | None = None
    decided_at: float = 0.0
    decided_by: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """Its primary key."""
        return self.schedule, self.slot, self.kind


_KEY = (SlotModel.schedule, SlotModel.slot, SlotModel.kind)
_FIELDS = tuple(Slot.__dataclass_fields__)
_COLUMNS = [getattr(SlotModel, name) for name in _FIELDS]
_TABLE = Base.metadata.tables[SlotModel.__tablename__]
_CHANGE = (
    update(_TABLE)
    .where(*(_TABLE.c[column.key] == bindparam(f"new_{column.key}") for column in _KEY))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS})
)
_ACTIVE = or_(
    and_(SlotModel.fate == Fate.CREATED, SlotModel.run_state.is_(None)),
    and_(SlotModel.fate == Fate.WAITING, SlotModel.begun),
)


def _read(
    connection: Connection,
    *where: Any,
    newest: int | None = None,
    oldest: int | None = None,
    lock: bool = False,
) -> list[Slot]:
    first = SlotModel.slot if newest is None else SlotModel.slot.desc()
    wanted = select(*_COLUMNS).where(*where).order_by(first, SlotModel.kind)
    wanted = wanted.limit(oldest if newest is None else newest)
    wanted = wanted.with_for_update(skip_locked=True) if lock else wanted
    return [Slot(**row._mapping) for row in connection.execute(wanted)]


def add(connection: Connection, slots: Iterable[Slot]) -> None:
    """Insert decided slots; existing ones stay as they are."""
    rows = [asdict(slot) for slot in slots]
    if rows:
        connection.execute(insert(SlotModel).on_conflict_do_nothing(), rows)


def add_new(connection: Connection, slot: Slot) -> bool:
    """Insert a slot unless it exists; return whether it was inserted."""
    made = insert(SlotModel).values(**asdict(slot)).on_conflict_do_nothing()
    return connection.scalar(made.returning(SlotModel.slot)) is not None


def waiting(connection: Connection) -> dict[str, float]:
    """Return schedules with waiting slots, and the earliest ``not_before`` of each."""
    soonest = func.min(SlotModel.not_before).label("soonest")
    wanted = select(SlotModel.schedule, soonest).where(SlotModel.fate == Fate.WAITING)
    found = connection.execute(wanted.group_by(SlotModel.schedule))
    return {row.schedule: row.soonest for row in found}


def queue(
    connection: Connection, schedule: str, now: float, most: int, *, own: bool = True
) -> list[Slot]:
    """Return a schedule's waiting slots that are due, oldest first, and lock their rows.

    Args:
        connection: The transaction, which holds the locks.
        schedule: The schedule's id.
        now: The present.
        most: How many at most.
        own: Whether to include scheduled slots; requested ones (backfill, manual) and those whose
            run's creation has begun always are.
    """
    wanted = [] if own else [or_(SlotModel.kind != Kind.SCHEDULED, SlotModel.begun)]
    return _read(
        connection, SlotModel.schedule == schedule, SlotModel.fate == Fate.WAITING,
        SlotModel.not_before <= now, *wanted, oldest=most, lock=True,
    )  # fmt: skip


def decide_waiting(
    connection: Connection,
    schedule: str,
    fate: Fate,
    reason: str,
    *,
    was: str = "",
    own: bool = False,
) -> None:
    """Set the fate of all waiting slots of a schedule that have no run.

    Args:
        connection: The transaction.
        schedule: The schedule's id.
        fate: ``waiting`` changes what they wait for; ``skipped`` skips them.
        reason: Why.
        was: Instead of the waiting slots: those that were skipped for this reason.
        own: Only scheduled slots, not requested ones.
    """
    before = SlotModel.reason == was if was else SlotModel.reason != reason
    these = [
        SlotModel.schedule == schedule, ~SlotModel.begun, before,
        SlotModel.fate == (Fate.SKIPPED if was else Fate.WAITING),
    ]  # fmt: skip
    if own:
        these.append(SlotModel.kind == Kind.SCHEDULED)
    connection.execute(update(SlotModel).where(*these).values(fate=fate, reason=reason))


def skip_all_but_newest(connection: Connection, schedule: str, reason: str) -> None:
    """Skip all but the newest of a schedule's waiting scheduled slots that have no run.

    Args:
        connection: The transaction.
        schedule: The schedule's id.
        reason: Why.
    """
    these = [
        SlotModel.schedule == schedule, ~SlotModel.begun, SlotModel.fate == Fate.WAITING,
        SlotModel.kind == Kind.SCHEDULED,
    ]  # fmt: skip
    newest = select(func.max(SlotModel.slot)).where(*these).scalar_subquery()
    skipped = update(SlotModel).where(*these, SlotModel.slot < newest)
    connection.execute(skipped.values(fate=Fate.SKIPPED, reason=reason))


def active(connection: Connection, schedules: Collection[str] | None = None) -> list[Slot]:
    """Return slots of these schedules, or of all, whose runs are active or may exist."""
    own = () if schedules is None else (SlotModel.schedule.in_(schedules),)
    return _read(connection, *own, _ACTIVE)


def of(
    connection: Connection,
    schedule: str,
    newest: int | None = None,
    *,
    fate: str | None = None,
    kind: str | None = None,
) -> list[Slot]:
    """Return a schedule's slots, oldest first; or its newest ones, newest first.

    Args:
        connection: The connection.
        schedule: The schedule's id.
        newest: How many of the newest.
        fate: Only slots of this fate.
        kind: Only those of this kind.
    """
    only = {SlotModel.fate: fate, SlotModel.kind: kind}
    wanted = [column == value for column, value in only.items() if value is not None]
    return _read(connection, SlotModel.schedule == schedule, *wanted, newest=newest)


def change(connection: Connection, slots: Iterable[Slot]) -> None:
    """Update existing slots."""
    rows = [{f"new_{name}": value for name, value in asdict(slot).items()} for slot in slots]
    if rows:
        connection.execute(_CHANGE, rows)


def mark_resumed(run_id: str) -> None:
    """Count a retried run among its schedule's active runs again."""
    ended = (SlotModel.flow_run_id == run_id, SlotModel.run_state.is_not(None))
    with engine().begin() as connection:
        connection.execute(update(SlotModel).where(*ended).values(run_state=None))


def with_runs(connection: Connection, schedule: str, after: int, until: int) -> set[int]:
    """Return a schedule's slots within ``(after, until]`` that have a run or wait for one."""
    wanted = select(SlotModel.slot).where(
        SlotModel.schedule == schedule, SlotModel.kind != Kind.MANUAL,
        SlotModel.fate != Fate.SKIPPED, SlotModel.slot > after, SlotModel.slot <= until,
    )  # fmt: skip
    return set(connection.scalars(wanted))


def backfilled(connection: Connection, decided: Mapping[str, int]) -> dict[str, set[int]]:
    """Return backfilled slots that are not decided yet, by schedule.

    Args:
        connection: The connection.
        decided: The time until which each schedule was decided.
    """
    found: dict[str, set[int]] = {schedule: set() for schedule in decided}
    if decided:
        wanted = select(SlotModel.schedule, SlotModel.slot).where(
            SlotModel.schedule.in_(decided), SlotModel.slot > min(decided.values()),
            SlotModel.kind == Kind.BACKFILL, SlotModel.fate != Fate.SKIPPED,
        )  # fmt: skip
        for schedule, slot in connection.execute(wanted):
            found[schedule].add(slot)
    return found


def last_ended(connection: Connection, schedule: str, since: int, count: int) -> Sequence[str]:
    """Return the states in which runs created from ``since`` on ended, newest first."""
    own = (SlotModel.schedule == schedule, SlotModel.run_at >= since)
    wanted = select(SlotModel.run_state).where(*own, SlotModel.run_state.is_not(None))
    wanted = wanted.order_by(SlotModel.run_at.desc(), SlotModel.slot.desc()).limit(count)
    return [str(state) for state in connection.scalars(wanted)]
