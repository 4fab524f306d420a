"""Schedules that are there without anybody having made them.

Each is made once, under an id of its own. Whoever stops, changes or deletes it has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid5

from infra.errors import ConflictError
from registry.schedules import schedules as rows
from schedules import editing
from schedules.editing import Written

_NAMESPACE = UUID("5b0f3c1e-7a52-4d0b-9f0e-2d1c6f0a9e11")


def ensure(wanted: Iterable[Written]) -> list[str]:
    """Make those that were never there; their names.

    One whose name somebody has taken is not made.
    """
    made = []
    for one in wanted:
        row = editing.new_row(one, dict(one.parameters))
        row.id = str(uuid5(_NAMESPACE, one.name))
        try:
            rows.add(row)
        except ConflictError:  # it is there, was there and is archived, or the name is taken
            continue
        made.append(one.name)
    return made
