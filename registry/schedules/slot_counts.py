"""Figures of schedules' slots, over all of their rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from registry.catalogue import engine
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Fate, Kind, SlotModel

_REASON = func.split_part(SlotModel.reason, ":", 1)  # without what was said of one slot alone


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
    wanted = select(_REASON, func.sum(SlotModel.count)).where(SlotModel.fate == Fate.WAITING)
    with engine().connect() as connection:
        found = connection.execute(wanted.group_by(_REASON).order_by(_REASON))
        return {reason: int(count) for reason, count in found}


def fates() -> dict[tuple[str, str, str], int]:
    """How many slots of each schedule have which fate for which reason, but those that wait.

    Of schedules that have the same name after each other it is the sum, which never shrinks.
    """
    told = (ScheduleModel.name, SlotModel.fate, _REASON)
    wanted = select(*told, func.sum(SlotModel.count)).where(
        SlotModel.schedule == ScheduleModel.id, SlotModel.fate != Fate.WAITING
    )
    with engine().connect() as connection:
        found = connection.execute(wanted.group_by(*told).order_by(*told))
        return {(name, fate, reason): int(count) for name, fate, reason, count in found}
