"""Figures of schedules' slots, which cost the same however many slots there are.

A trigger of the database counts slots by fate and reason as their rows are written, in the same
transaction, so counts need not read the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Text, func, select
from sqlalchemy.orm import Mapped, mapped_column

from registry.catalogue import Base, engine
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Fate, Kind, SlotModel


class SlotCountModel(Base):
    """How many slots of a schedule have a fate for a reason; written by the trigger alone."""

    __tablename__ = "schedule_slot_counts"

    schedule: Mapped[str] = mapped_column(Text, primary_key=True)
    fate: Mapped[str] = mapped_column(Text, primary_key=True)
    reason: Mapped[str] = mapped_column(Text, primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


# Without what was said of one slot alone.
_REASON = func.split_part(SlotCountModel.reason, ":", 1)


@dataclass(frozen=True)
class Lateness:
    """How many seconds after they could have been created runs were.

    Attributes:
        count: How many runs there were.
        median: Half of those that were decided on time were no later; None if none was.
        p99: Ninety-nine of a hundred were no later.
        most: The latest.
    """

    count: int
    median: float | None
    p99: float | None
    most: float | None


def lateness(since: float) -> Lateness | None:
    """How late the runs of slots were that were created since an instant; None if none was.

    What people have asked for, by hand or of the past, is not counted. How late they were is told
    of slots that were decided on time: a run that is caught up is as late as the platform was
    down.
    """
    policy = ScheduleModel.policy
    old = func.floor(SlotModel.decided_at) - SlotModel.slot
    on_time = old <= policy["grace"].as_integer() + policy["jitter"].as_integer()
    late = SlotModel.run_at - func.greatest(SlotModel.slot, SlotModel.not_before)
    wanted = select(
        func.count(),
        func.percentile_disc(0.5).within_group(late).filter(on_time),
        func.percentile_disc(0.99).within_group(late).filter(on_time),
        func.max(late).filter(on_time),
    ).where(
        SlotModel.run_at >= since, SlotModel.kind == Kind.SCHEDULED,
        SlotModel.schedule == ScheduleModel.id,
    )  # fmt: skip
    with engine().connect() as connection:
        count, median, p99, most = connection.execute(wanted).one()
    return Lateness(count, median, p99, most) if count else None


def backlog() -> dict[str, int]:
    """How many slots wait for what."""
    wanted = (
        select(_REASON, func.sum(SlotCountModel.count))
        .where(SlotCountModel.fate == Fate.WAITING, SlotCountModel.count > 0)
        .group_by(_REASON)
        .order_by(_REASON)
    )
    with engine().connect() as connection:
        return {reason: int(count) for reason, count in connection.execute(wanted)}


def fates() -> dict[tuple[str, str, str], int]:
    """How many slots of each schedule have which fate for which reason, but those that wait.

    Of schedules that have the same name after each other it is the sum, which never shrinks.
    """
    told = (ScheduleModel.name, SlotCountModel.fate, _REASON)
    wanted = select(*told, func.sum(SlotCountModel.count)).where(
        SlotCountModel.schedule == ScheduleModel.id, SlotCountModel.fate != Fate.WAITING,
        SlotCountModel.count > 0,
    )  # fmt: skip
    with engine().connect() as connection:
        found = connection.execute(wanted.group_by(*told).order_by(*told))
        return {(name, fate, reason): int(count) for name, fate, reason, count in found}


def fates_of(schedule: str) -> dict[tuple[str, str], int]:
    """Count a schedule's slots by fate and reason."""
    wanted = select(SlotCountModel.fate, SlotCountModel.reason, SlotCountModel.count).where(
        SlotCountModel.schedule == schedule, SlotCountModel.count > 0
    )
    with engine().connect() as connection:
        found = connection.execute(wanted.order_by(SlotCountModel.fate, SlotCountModel.reason))
        return {(fate, reason): count for fate, reason, count in found}


def number(schedule: str, slot: int) -> int:
    """Return the number of a slot's run among its schedule's, from 1 on in slot order."""
    created = select(func.coalesce(func.sum(SlotCountModel.count), 0)).where(
        SlotCountModel.schedule == schedule, SlotCountModel.fate == Fate.CREATED
    )
    # Of all: the slots from this one on are few, those before it may be a million.
    later = select(func.count()).where(
        SlotModel.schedule == schedule, SlotModel.fate == Fate.CREATED, SlotModel.slot >= slot
    )
    wanted = select(created.scalar_subquery() - later.scalar_subquery())
    with engine().connect() as connection:
        return 1 + int(connection.execute(wanted).scalar_one())
