"""Schedules that are there without anybody having made them.

Each is made once. Whoever stops, changes or deletes it has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from infra.errors import ConflictError
from registry import schedules as rows
from registry.catalogue import session
from registry.schedules import ScheduleModel
from schedules import editing
from schedules.editing import Written

SOURCE = "modelyard: built in"


def ensure(wanted: Iterable[Written]) -> list[str]:
    """Make those that were never there; their names.

    One whose name somebody has taken is not made.
    """
    with session() as open_session:
        known = select(ScheduleModel.name).where(ScheduleModel.source == SOURCE)
        ever = set(open_session.scalars(known))
    made = []
    for one in wanted:
        if one.name in ever:
            continue
        try:
            rows.add(editing.new_row(one, dict(one.parameters), source=SOURCE))
        except ConflictError:
            continue
        made.append(one.name)
    return made
