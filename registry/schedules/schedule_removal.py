"""Removal of schedules, which keeps the record of their slots."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from infra import identity
from infra.errors import ConflictError
from registry import catalogue
from registry.blockers import Blocker
from registry.schedules import scheduled_runs, schedules, slots
from registry.schedules.schedules import ScheduleModel
from registry.schedules.slots import Fate
from registry.views import JsonObject

DELETED = "Deleted"
_AGAIN = "Queued"


def find(key: str) -> str:
    """Return the id of a schedule that was not deleted.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
        ConflictError: With the code ``ScheduleDeleted``.
    """
    with catalogue.session() as open_session:
        row = schedules.find(open_session, key)
        schedules.check_present(row)
        return row.id


def active_blockers(schedule: str) -> list[Blocker]:
    """Return why the schedule may not be deleted: its runs that are active or being created."""
    with catalogue.engine().connect() as connection:
        active = slots.active(connection, [schedule])
    made = [one.flow_run_id for one in active if one.flow_run_id]
    left = sorted(set(made) - scheduled_runs.ended(made).keys()) if made else []
    begun = sum(one.flow_run_id is None for one in active)
    found = []
    if left:
        run = left[0]
        found.append(
            Blocker(f"{len(left)} of its runs are active, such as {run}.", ("runs", "stop", run))
        )
    if begun:
        found.append(
            Blocker(
                f"{begun} of its runs are being created.",
                ("runs", "list", "--schedule", schedule),
            )
        )
    return found


def archive(open_session: Session, row: ScheduleModel) -> None:
    """Archive a schedule: it makes no more runs; active ones and its record stay.

    Args:
        open_session: The session.
        row: The schedule, locked.
    """
    connection = open_session.connection()
    slots.decide_waiting(connection, row.id, Fate.SKIPPED, DELETED)
    row.archived_at = row.changed_at = datetime.now(UTC)
    row.changed_by = identity.caller()
    schedules.notify_changed(connection, row.id)


def claim(schedule: str) -> None:
    """Archive a schedule, so that it starts no more runs."""
    with schedules.changing(schedule) as (open_session, row):
        archive(open_session, row)


def release(schedule: str) -> None:
    """Undo :func:`claim`.

    Raises:
        ConflictError: If another schedule has taken the name; this one stays deleted.
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
            "A run of the schedule has started, and another schedule has taken its name.",
            "Nothing has to be done: the schedule is deleted, and its run continues.",
            code="NameTaken",
        ) from None


def remove(schedule: str) -> JsonObject:
    """Return the schedule that :func:`claim` archived; called by :mod:`registry.deletion`."""
    with catalogue.session() as open_session:
        row = schedules.find(open_session, schedule)
        return {"id": row.id, "name": row.name}
