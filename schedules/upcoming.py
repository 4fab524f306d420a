"""Table of the upcoming slots of all schedules."""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy import Connection

from registry.schedules import schedules
from schedules.instants import instant_at
from schedules.schedule import Schedule

MOST = 50
_THEN = 2


def table(connection: Connection) -> list[dict[str, str]]:
    """List the next slots of the schedules that are due next, the soonest first."""
    return [_row(found) for found in schedules.soonest(connection, MOST)]


def _row(found: Any) -> dict[str, str]:
    schedule, slot = Schedule.from_row(found), instant_at(found.next_slot)
    following = schedule.trigger.between(slot, instant_at(2**37))
    return {
        "slot": f"{slot:%Y-%m-%dT%H:%M:%SZ}",
        "schedule": schedule.name,
        "runs": schedule.deployment,
        "then": ", ".join(f"{at:%Y-%m-%d %H:%M:%S}" for at in itertools.islice(following, _THEN)),
    }
