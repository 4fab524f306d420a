"""Schedules that are there without anybody having made them.

Each is made once, under an id of its own. Whoever stops, changes or deletes it has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid5

from sqlalchemy import select

from infra.errors import ConflictError
from registry import schedules as rows
from registry.catalogue import session
from registry.schedules import ScheduleModel
from schedules import editing
from schedules.editing import Written

_NAMESPACE = UUID("5b0f3c1e-7a52-4d0b-9f0e-2d1c6f0a9e11")


def ensure(wanted: Iterable[Written]) -> list[str]:
    """Make those that were never there; their names.

    One whose name somebody has taken is not made.
    """
    ids = {str(uuid5(_NAMESPACE, one.name)): one for one in wanted}
    with session() as open_session:
        known = set(
            open_session.scalars(select(ScheduleModel.id).where(ScheduleModel.id.in_(ids)))
        )
    made = []
    for key, one in ids.items():
        if key in known:
            continue
        row = editing.new_row(one, dict(one.parameters))
        row.id = key
        try:
            rows.add(row)
        except ConflictError:
            continue
        made.append(one.name)
    return made
