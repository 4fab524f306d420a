"""Built-in schedules, which every stack has.

Each is created once, under a fixed id. A user's change, stop or deletion of it is never reverted.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid5

from infra.errors import ConflictError
from registry.schedules import schedules as rows
from schedules import editing
from schedules.editing import ScheduleSpec

_NAMESPACE = UUID("5b0f3c1e-7a52-4d0b-9f0e-2d1c6f0a9e11")


def ensure(wanted: Iterable[ScheduleSpec]) -> list[str]:
    """Create the schedules that never existed; their names.

    A schedule whose name is taken is not created.
    """
    made = []
    for one in wanted:
        row = editing.new_row(one, dict(one.parameters))
        row.id = str(uuid5(_NAMESPACE, one.name))
        try:
            rows.add(row)
        except ConflictError:  # it exists, is archived, or its name is taken
            continue
        made.append(one.name)
    return made
