"""Runs of every flow, as ``modelyard runs``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flows import submission
from modelyard.api.verbs import verb
from registry import deletion
from registry.runs import runs
from registry.runs.run_views import RunStatusView, RunView
from registry.views import JsonObject
from schedules import views


def _list(
    flow: str | None = None, *, schedule: str | None = None, limit: int = 50
) -> list[RunView]:
    """List the newest runs, newest first.

    Args:
        flow: Only runs of this flow.
        schedule: Only runs of this schedule.
        limit: How many at most.
    """
    ids = None if schedule is None else views.runs_of(schedule, limit)
    return runs.list_all(flow, limit, ids)


def _update(
    run: str,
    *,
    name: str | None = None,
    description: str | None = None,
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> RunStatusView:
    """Rename or describe a run, or change parameters such as a tuning's limits.

    Args:
        run: Its id, or its name.
        name: A new name.
        description: A new description.
        parameters: The changed ones.

    Raises:
        BadInputError: If the name cannot be used; with the code ``ParameterNotChangeable``.
        ConflictError: If the name is taken, or the run is complete.
    """
    return submission.update(run, name, description, dict(parameters))


def _copy(run: str, parameters: Mapping[str, Any] = MappingProxyType({})) -> RunStatusView:
    """Start a new run with the same parameters, some of them changed.

    Args:
        run: The id or the name of the run that is copied.
        parameters: The changed ones.
    """
    return runs.brief(submission.copy(run, dict(parameters)))


def _delete(run: str) -> JsonObject:
    """Delete a run that has ended, and that no model was made from.

    Raises:
        ConflictError: With a code of its own for what stands in the way.
    """
    return deletion.delete("run", run)


class RunVerbs:
    """Runs of every flow."""

    list = staticmethod(verb(_list))
    show = staticmethod(verb(runs.show))
    update = staticmethod(verb(_update))
    stop = staticmethod(verb(runs.stop))
    retry = staticmethod(verb(runs.retry, to_workers=True))
    copy = staticmethod(verb(_copy, to_workers=True))
    delete = staticmethod(verb(_delete))
