"""The slots to come of all schedules, as a table."""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy import Connection

from registry.schedules import schedules
from schedules.instants import instant_at
from schedules.subject import Subject

MOST = 50
_THEN = 2


def table(connection: Connection) -> list[dict[str, str]]:
    """The next slots of the schedules that are due next, the soonest first."""
    return [_row(found) for found in schedules.soonest(connection, MOST)]


def _row(found: Any) -> dict[str, str]:
    subject, slot = Subject.of(found), instant_at(found.next_slot)
    following = subject.trigger.between(slot, instant_at(2**37))
    return {
        "slot": f"{slot:%Y-%m-%dT%H:%M:%SZ}",
        "schedule": subject.name,
        "runs": subject.deployment,
        "then": ", ".join(f"{at:%Y-%m-%d %H:%M:%S}" for at in itertools.islice(following, _THEN)),
    }
