"""Triggers of notifications: which of Prefect's events they report."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from infra.prefect_events import ENDED_RUNS, PAUSED_SCHEDULE, RUNS, TESTED_NOTIFICATION


class Occasion(StrEnum):
    """What a notification reports."""

    FAILURES = "failures"
    ENDS = "ends"
    PAUSED = "paused"


EVENTS: dict[Occasion, frozenset[str]] = {
    Occasion.FAILURES: frozenset(f"{RUNS}{name}" for name in ("Failed", "TimedOut", "Crashed")),
    Occasion.ENDS: frozenset(ENDED_RUNS),
    Occasion.PAUSED: frozenset({PAUSED_SCHEDULE}),
}
_RESOURCE, _ROLE, _NAME = "prefect.resource.id", "prefect.resource.role", "prefect.resource.name"
_TAG, _SCHEDULE_TAG = "prefect.tag.", "prefect.tag.schedule:"


@dataclass(frozen=True)
class NotificationFilter:
    """Which runs and schedules a notification reports.

    Attributes:
        on: Keys of ``EVENTS``.
        flows: Names of flows, of which a run's must be one; none for all.
        schedules: Names of schedules, of which a run's must be one; none for all runs.
        tags: Tags that a run must have, all of them.
    """

    on: tuple[Occasion, ...]
    flows: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def test_resource(name: str) -> str:
    """Return the id of the resource of a notification's test events."""
    return f"modelyard.notification.{name}"


def build(name: str, wanted: NotificationFilter) -> EventTrigger:
    """Build the trigger of the notification ``name``, which its test events match as well."""
    specs: list[dict[str, str | list[str]]] = [
        {_ROLE: "tag", _RESOURCE: f"{_TAG}{glob.escape(tag)}"} for tag in wanted.tags
    ]
    if wanted.schedules:
        found = [f"{_SCHEDULE_TAG}{glob.escape(one)}" for one in wanted.schedules]
        specs.append({_ROLE: "tag", _RESOURCE: found})
    if wanted.flows:
        specs.append({_ROLE: "flow", _NAME: [glob.escape(flow) for flow in wanted.flows]})
    return EventTrigger(
        expect={TESTED_NOTIFICATION}.union(*(EVENTS[one] for one in wanted.on)),
        match={_RESOURCE: [f"{RUNS}*", "modelyard.schedule.*", test_resource(name)]},
        match_related=[ResourceSpecification(one) for one in specs] or {},
        for_each={_RESOURCE},
        posture=Posture.Reactive,
        threshold=1,
    )


def read(trigger: EventTrigger) -> NotificationFilter:
    """Read what :func:`build` was given."""
    on = [one for one, events in EVENTS.items() if events <= trigger.expect]
    if Occasion.ENDS in on:
        on.remove(Occasion.FAILURES)
    flows: list[str] = []
    schedules: list[str] = []
    tags: list[str] = []
    for spec in _specs(trigger):
        if _NAME in spec:
            flows += [_unescape(one) for one in spec[_NAME]]
            continue
        for one in map(_unescape, spec[_RESOURCE]):
            if one.startswith(_SCHEDULE_TAG):
                schedules.append(one.removeprefix(_SCHEDULE_TAG))
            else:
                tags.append(one.removeprefix(_TAG))
    return NotificationFilter(tuple(on), tuple(flows), tuple(schedules), tuple(tags))


def _specs(trigger: EventTrigger) -> Sequence[ResourceSpecification]:
    found = trigger.match_related
    specs = found if isinstance(found, list) else [found]
    return [ResourceSpecification.model_validate(one) for one in specs if len(one)]


def _unescape(pattern: str) -> str:
    """Undo ``glob.escape``."""
    for one in "*?[":
        pattern = pattern.replace(f"[{one}]", one)
    return pattern
