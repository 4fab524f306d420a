"""What the scheduler knows of a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from registry.schedules.schedules import ScheduleModel
from schedules.policy import Policy
from schedules.trigger import Trigger


@dataclass(frozen=True)
class Subject:
    """A schedule, read.

    Attributes:
        id: Its id.
        trigger: Its trigger.
        policy: Its policy.
        decided_until: What became of its slots until then was decided; in seconds since 1970.
        name: Its name.
        deployment: What its runs are of, as ``flow/deployment``.
        parameters: Theirs, with macros.
        enabled: Whether its slots are run.
        user: Who made it.
        failures_since: Runs that were made from then on count as failures in a row.
        error: Why no scheduler can work with it; "" if one can.
    """

    id: str
    trigger: Trigger
    policy: Policy
    decided_until: int
    name: str = ""
    deployment: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    user: str = ""
    failures_since: int = 0
    error: str = ""

    @classmethod
    def of(cls, row: ScheduleModel) -> Self:
        """The schedule of a row."""
        return cls(
            row.id,
            Trigger(**row.trigger),
            Policy(**row.policy),
            row.decided_until,
            row.name,
            row.deployment,
            row.parameters,
            row.enabled,
            row.created_by,
            row.failures_since,
            row.error,
        )
