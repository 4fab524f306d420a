"""The page of a schedule, and the way there from its runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from modelyard.pages import listing, run_facts
from modelyard.pages.listing import Ref
from pipelines.drawing import text
from registry.runs.run_views import RunView
from schedules import views
from schedules.views import ScheduleDetailView

_LAST = 25  # slots on the page
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SchedulePageView:
    """The page of a schedule.

    Attributes:
        schedule: The schedule, with its next slots and its last ones.
        facts: What is said of it: label and text.
        parameters: The parameters of its runs, as a run's page has them.
    """

    schedule: ScheduleDetailView
    facts: Sequence[tuple[str, str]]
    parameters: Sequence[tuple[str, str]]


def show(key: str) -> ScheduleDetailView:
    """Return a schedule with its last slots, by its name or id.

    Raises:
        NotFoundError: With the code ``ScheduleUnknown``.
    """
    return views.show(key, last=_LAST)


def of(found: ScheduleDetailView) -> SchedulePageView:
    """Return the page of a schedule."""
    facts = [
        ("Description", found.description),
        ("Runs", found.deployment),
        ("When", found.when),
        ("Time zone", "" if found.when.startswith("every") else found.timezone),
        ("Created by", found.created_by),
        ("Applied from", found.source),
        ("Slots", ", ".join(f"{count} {fate}" for fate, count in found.fates.items())),
    ]
    return SchedulePageView(
        found,
        [(name, text.plain(value)) for name, value in facts if value],
        run_facts.sheet(found.parameters),
    )


def ref(run: RunView, name_of: Callable[[str], str]) -> Ref | None:
    """Return the schedule of a run; None if none made it.

    Args:
        run: The run.
        name_of: Returns the name of the schedule with an id.
    """
    if not run.schedule_id:
        return None
    try:
        name = name_of(run.schedule_id)
    except OperationalError as error:
        _logger.warning("The schedule of %s cannot be named: %s", run.id, error)
        name = run.schedule_id
    return Ref(text.plain(name), listing.schedule_page(run.schedule_id))
