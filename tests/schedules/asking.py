"""Schedules as people ask for them in tests, and what became of their slots."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from infra.errors import BadInputError, NotFoundError
from registry import catalogue
from registry.schedules import slots
from registry.schedules.slots import Slot
from schedules import verbs, views
from schedules.verbs import ScheduleSpec
from schedules.views import ScheduleDetailView
from tests.schedules.conftest import BEGINNING
from tests.schedules.world import World

HOUR = 3600


def checked(deployment: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of parameters that are all right, unless there is a wrong one; of a deployment too."""
    if deployment == "gone":
        raise NotFoundError("It is not registered.", "Deploy it.", code="DeploymentUnknown")
    if "required" in deployment and "must" not in given:
        raise BadInputError("must: it is missing.", "Give it.", code="ParameterInvalid")
    return dict(given)


def create(name: str = "s", deployment: str = "train", **given: Any) -> ScheduleDetailView:
    """A schedule of every hour, if no trigger is given."""
    written = {"trigger": {"interval_seconds": HOUR}, **given}
    return verbs.create(ScheduleSpec(name=name, deployment=deployment, **written), checked)


def rows(key: str) -> list[Slot]:
    with catalogue.engine().connect() as connection:
        return slots.of(connection, key)


def fates(key: str) -> list[tuple[float, str, str]]:
    return [((one.slot - BEGINNING) / HOUR, str(one.fate), one.reason) for one in rows(key)]


def at(hours: float) -> str:
    return f"{datetime.fromtimestamp(BEGINNING + hours * HOUR, UTC):%Y-%m-%dT%H:%M:%SZ}"


def pass_hours(world: World, hours: float, every: float = 600.0) -> None:
    """Let time pass, with a scheduler at work."""
    scheduler, until = world.scheduler(), world.now + hours * HOUR
    while world.now < until:
        world.now += every
        scheduler.step()


def state(key: str) -> tuple[str, str]:
    """Its state, and the bracketed word."""
    shown = views.show(key)
    return shown["state"], shown["detail"]
