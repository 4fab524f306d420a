"""Slots of schedules, each with its fate: rows of the catalogue.

A slot is decided about once. Its row is written in the transaction that moves its schedule past
it, and only by who holds the lease; a run is created for it under a key that is the slot's own.
So whatever dies when, a slot has one fate and at most one run.
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
    """What became of a slot."""

    WAITING = "waiting"
    CREATED = "created"
    SKIPPED = "skipped"


class Kind(StrEnum):
    """Why there is a slot."""

    SCHEDULED = "scheduled"
    BACKFILL = "backfill"
    MANUAL = "manual"


_WAITS = sqlalchemy.text("fate = 'waiting'")
_GOES_ON = sqlalchemy.text("fate = 'created' AND run_state IS NULL")


class SlotModel(Base):
    """One slot, or several that follow each other and share their fate."""

    __tablename__ = "schedule_slots"
    __table_args__ = (
        Index(
            "schedule_slots_waiting", "schedule", "slot",
            postgresql_where=_WAITS,
        ),
        Index(
            "schedule_slots_active", "schedule",
            postgresql_where=_GOES_ON,
        ),
        Index("schedule_slots_run", "flow_run_id"),
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
    """One slot, or several that follow each other and share their fate.

    Attributes:
        schedule: The schedule's id.
        slot: When it is, or the first of them; in seconds since 1970, as all times here.
        kind: Why there is a slot.
        last: When the last of them is.
        count: How many there are.
        fate: What became of it.
        reason: Why it is skipped, or what it waits for.
        not_before: When its run is created at the earliest.
        begun: Whether its run's creation has begun, so that it may exist.
        flow_run_id: Its run.
        run_at: When that was created.
        run_state: What its run has ended as; None while it goes on.
        decided_at: When its fate was decided.
        decided_by: Who decided it.
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
        """What names it."""
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
    """Write slots that were decided; those that are there stay."""
    rows = [asdict(slot) for slot in slots]
    if rows:
        connection.execute(insert(SlotModel).on_conflict_do_nothing(), rows)


def add_new(connection: Connection, slot: Slot) -> bool:
    """Write a slot unless it is there; whether it was not."""
    made = insert(SlotModel).values(**asdict(slot)).on_conflict_do_nothing()
    return connection.scalar(made.returning(SlotModel.slot)) is not None


def waiting(connection: Connection) -> dict[str, float]:
    """Each schedule of which slots wait, and when the first of those may go on."""
    soonest = func.min(SlotModel.not_before).label("soonest")
    wanted = select(SlotModel.schedule, soonest).where(SlotModel.fate == Fate.WAITING)
    found = connection.execute(wanted.group_by(SlotModel.schedule))
    return {row.schedule: row.soonest for row in found}


def queue(
    connection: Connection, schedule: str, now: float, most: int, *, own: bool = True
) -> list[Slot]:
    """A schedule's slots that wait and need not wait longer, the oldest first.

    Args:
        connection: Where they are read; nobody else changes them until its transaction ends.
        schedule: The schedule's id.
        now: The present.
        most: How many.
        own: Whether the schedule's own are among them; those that somebody has asked for are, and
            those whose run's creation has begun.
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
    """Give a fate to all slots of a schedule at once that wait, and whose runs do not exist.

    Args:
        connection: Where it is written.
        schedule: The schedule's id.
        fate: ``waiting`` says what they wait for; ``skipped`` skips them.
        reason: Why.
        was: Instead of those that wait: those that were skipped for this reason.
        own: Only the schedule's own, and none that somebody has asked for.
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
    """Skip a schedule's own slots that wait, and whose runs do not exist, but for the newest.

    Args:
        connection: Where it is written.
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
    """Slots of these schedules, or of all, whose runs go on, or may."""
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
    """A schedule's slots, the oldest first; or the newest ones, the newest first.

    Args:
        connection: Where they are read.
        schedule: The schedule's id.
        newest: How many of the newest.
        fate: Only those of this fate.
        kind: Only those of this kind.
    """
    only = {SlotModel.fate: fate, SlotModel.kind: kind}
    wanted = [column == value for column, value in only.items() if value is not None]
    return _read(connection, SlotModel.schedule == schedule, *wanted, newest=newest)


def newest_runs(schedule: str, most: int) -> list[str]:
    """The ids of the runs that a schedule has made last."""
    own = (SlotModel.schedule == schedule, SlotModel.flow_run_id.is_not(None))
    wanted = select(SlotModel.flow_run_id).where(*own).order_by(SlotModel.run_at.desc())
    with engine().connect() as connection:
        return [str(run) for run in connection.scalars(wanted.limit(most))]


def change(connection: Connection, slots: Iterable[Slot]) -> None:
    """Write what has changed of slots that are there."""
    rows = [{f"new_{name}": value for name, value in asdict(slot).items()} for slot in slots]
    if rows:
        connection.execute(_CHANGE, rows)


def mark_resumed(run_id: str) -> None:
    """Count a run that had ended among the active ones of its schedule: it is retried."""
    ended = (SlotModel.flow_run_id == run_id, SlotModel.run_state.is_not(None))
    with engine().begin() as connection:
        connection.execute(update(SlotModel).where(*ended).values(run_state=None))


def with_runs(connection: Connection, schedule: str, after: int, until: int) -> set[int]:
    """A schedule's slots after one instant and not after another that have a run, or wait."""
    wanted = select(SlotModel.slot).where(
        SlotModel.schedule == schedule, SlotModel.kind != Kind.MANUAL,
        SlotModel.fate != Fate.SKIPPED, SlotModel.slot > after, SlotModel.slot <= until,
    )  # fmt: skip
    return set(connection.scalars(wanted))


def number(schedule: str, slot: int) -> int:
    """Which of the schedule's runs that of a slot is, from 1 on in the order of the slots."""
    earlier = sqlalchemy.select(sqlalchemy.func.count()).where(
        SlotModel.schedule == schedule, SlotModel.slot < slot, SlotModel.fate == Fate.CREATED
    )
    with engine().connect() as connection:
        return 1 + int(connection.scalar(earlier) or 0)


def backfilled(connection: Connection, decided: Mapping[str, int]) -> dict[str, set[int]]:
    """Slots that somebody has asked for before they were decided, by their schedule.

    Args:
        connection: Where they are read.
        decided: Until when each schedule was decided.
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
    """What the runs that were made last have ended as, from ``since`` on, the newest first."""
    own = (SlotModel.schedule == schedule, SlotModel.run_at >= since)
    wanted = select(SlotModel.run_state).where(*own, SlotModel.run_state.is_not(None))
    wanted = wanted.order_by(SlotModel.run_at.desc(), SlotModel.slot.desc()).limit(count)
    return [str(state) for state in connection.scalars(wanted)]


def fates(schedule: str) -> dict[tuple[str, str], int]:
    """How many slots of a schedule have which fate for which reason."""
    wanted = select(SlotModel.fate, SlotModel.reason, func.sum(SlotModel.count))
    wanted = wanted.where(SlotModel.schedule == schedule)
    with engine().connect() as connection:
        found = connection.execute(wanted.group_by(SlotModel.fate, SlotModel.reason))
        return {(fate, reason): int(count) for fate, reason, count in found}
