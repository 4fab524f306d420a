"""Rows of schedules whose triggers do not matter."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from registry.schedules.schedules import ScheduleModel
from tests.registry.fake_runs import new_id


def scheduled(name: str, parameters: dict[str, Any], deployment: str = "train") -> ScheduleModel:
    now = datetime.now(UTC)
    return ScheduleModel(
        id=new_id(), name=name, description="", deployment=deployment, parameters=parameters,
        trigger={}, policy={}, enabled=True, decided_until=0, next_slot=None, created_at=now,
        created_by="me", changed_at=now, changed_by="me",
    )  # fmt: skip
