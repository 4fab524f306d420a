"""The page of a schedule, and the way there from its runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from infra.errors import StackError
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


def of(found: ScheduleDetailView, run_of: Callable[[str], RunView | None]) -> SchedulePageView:
    """Return the page of a schedule.

    Args:
        found: The schedule.
        run_of: Returns a run of Prefect by its id; None if there is none.
    """
    slots = views.with_states(found.slots, lambda runs: _states(runs, run_of))
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
        found.model_copy(update={"slots": slots}),
        [(name, text.plain(value)) for name, value in facts if value],
        run_facts.sheet(found.parameters),
    )


def _states(runs: Sequence[str], run_of: Callable[[str], RunView | None]) -> dict[str, str]:
    """Return the states of runs by id; none if Prefect does not answer."""
    try:
        found = {run: run_of(run) for run in runs}
    except StackError as error:
        _logger.warning("The states of a schedule's runs cannot be read: %s", error)
        return {}
    return {run: view.state for run, view in found.items() if view}


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
