"""The removal of schedules, which leaves what became of their slots on record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from infra import identity
from infra.errors import ConflictError
from registry import catalogue
from registry.schedules import scheduled_runs, schedules, slots
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Fate

DELETED = "Deleted"
_AGAIN = "Queued"


def find(key: str) -> str:
    """The id of a schedule that was not deleted.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
        ConflictError: With the code ``ScheduleDeleted``.
    """
    with catalogue.session() as open_session:
        row = schedules.find(open_session, key)
        schedules.check_present(row)
        return row.id


def going_on(schedule: str) -> list[str]:
    """Why the schedule may not be deleted: runs of it that go on, or are being made."""
    with catalogue.engine().connect() as connection:
        active = slots.active(connection, [schedule])
    made = [one.flow_run_id for one in active if one.flow_run_id]
    left = sorted(set(made) - scheduled_runs.ended(made).keys()) if made else []
    begun = sum(one.flow_run_id is None for one in active)
    return [
        *([f"{len(left)} of its runs go on, such as {left[0]}."] if left else []),
        *([f"{begun} of its runs are being made."] if begun else []),
    ]


def archive(open_session: Session, row: ScheduleModel) -> None:
    """Have nothing more come of a schedule; its runs go on, and what is known of it stays.

    Args:
        open_session: Where it is written.
        row: The schedule, which nobody else changes meanwhile.
    """
    connection = open_session.connection()
    slots.decide_waiting(connection, row.id, Fate.SKIPPED, DELETED)
    row.archived_at = row.changed_at = datetime.now(UTC)
    row.changed_by = identity.caller()
    schedules.notify_changed(connection, row.id)


def claim(schedule: str) -> None:
    """Have nothing more come of a schedule, so that no run of it begins any more."""
    with schedules.changing(schedule) as (open_session, row):
        archive(open_session, row)


def release(schedule: str) -> None:
    """Undo :func:`claim`.

    Raises:
        ConflictError: If another schedule has the name by now; this one stays deleted.
    """
    try:
        with catalogue.session() as open_session, open_session.begin():
            row = schedules.find(open_session, schedule, lock=True)
            row.archived_at = None
            connection = open_session.connection()
            slots.decide_waiting(connection, row.id, Fate.WAITING, _AGAIN, was=DELETED)
            schedules.notify_changed(connection, row.id)
    except IntegrityError:
        raise ConflictError(
            "A run of the schedule has begun meanwhile, and another schedule has its name.",
            "It is deleted, and its run goes on.",
            code="NameTaken",
        ) from None


def remove(schedule: str) -> dict[str, Any]:
    """Say what was removed by :func:`claim`; what :mod:`registry.deletion` calls."""
    with catalogue.session() as open_session:
        row = schedules.find(open_session, schedule)
        return {"id": row.id, "name": row.name}
