"""A schedule as the scheduler and the verbs use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

from registry.schedules.schedules import ScheduleModel
from schedules.policy import SchedulePolicy
from schedules.trigger import Trigger


@dataclass(frozen=True)
class Schedule:
    """A schedule.

    Attributes:
        id: Its id.
        trigger: Its trigger.
        policy: Its policy.
        decided_until: Time until which the fates of its slots are decided, in seconds since 1970.
        name: Its name.
        deployment: The deployment that it runs.
        parameters: Parameters of its runs, with macros.
        enabled: Whether its slots get runs.
        user: The user who created it.
        failures_since: Earlier runs do not count as consecutive failures; seconds since 1970.
        error: Why it cannot be scheduled, such as a missing deployment; "" if it can.
    """

    id: str
    trigger: Trigger
    policy: SchedulePolicy
    decided_until: int
    name: str = ""
    deployment: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    user: str = ""
    failures_since: int = 0
    error: str = ""

    @classmethod
    def from_row(cls, row: ScheduleModel) -> Self:
        """Read the schedule of a row."""
        return cls(
            row.id,
            Trigger(**row.trigger),
            SchedulePolicy(**row.policy),
            row.decided_until,
            row.name,
            row.deployment,
            row.parameters,
            row.enabled,
            row.created_by,
            row.failures_since,
            row.error,
        )


@dataclass(frozen=True)
class PausedSchedule:
    """A schedule that the scheduler has paused, to be announced.

    Attributes:
        id: Its id.
        name: Its name.
        deployment: The deployment that it runs.
        reason: Why it was paused.
        event: Id of the event that announces it, the same at each attempt.
    """

    id: str
    name: str
    deployment: str
    reason: str
    event: UUID
