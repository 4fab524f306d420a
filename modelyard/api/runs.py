"""Runs of every flow, as ``modelyard runs``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from flows import submission
from modelyard.api.verbs import noun, verb
from registry import deletion, experiments
from registry.runs import run_comparison, run_retries, runs
from registry.runs.run_views import RunStatusView, RunView
from registry.schedules import scheduled_runs
from registry.views import JsonObject
from tasks import run_logs


def _list(
    flow: str | None = None,
    *,
    schedule: str | None = None,
    experiment: str | None = None,
    states: Collection[str] = (),
    name: str = "",
    tags: Collection[str] = (),
    since: datetime | None = None,
    limit: int = 50,
) -> list[RunView]:
    """List the newest runs that pass all filters, newest first.

    Args:
        flow: Only runs of this flow.
        schedule: Only runs of this schedule.
        experiment: Only runs of this experiment.
        states: Only runs in one of these states, such as ``FAIL TRAIN``, or Prefect's
            names, such as ``Failed``.
        name: Only runs whose name has this part, in capitals or not.
        tags: Only runs that have all of these tags in Prefect.
        since: Only runs that started, or are due, at this time or later.
        limit: How many at most.

    Raises:
        NotFoundError: If there is no such flow, schedule or experiment.
        BadInputError: With the code ``StateUnknown`` or ``LimitInvalid``.
    """
    groups = []
    if schedule is not None:
        groups.append(scheduled_runs.group(schedule))
    if experiment is not None:
        groups.append(experiments.group(experiment))
    return runs.list_all(flow, limit, groups, states=states, name=name, tags=tags, since=since)


def _logs(run: str) -> list[str]:
    """Return the lines of a run's log: the script's of a training, else those in Prefect."""
    return list(run_logs.read(runs.find(run)))


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


@noun("runs")
class RunVerbs:
    """Runs of every flow."""

    list = staticmethod(verb(_list))
    show = staticmethod(verb(runs.show))
    logs = staticmethod(verb(_logs))
    compare = staticmethod(verb(run_comparison.compare))
    update = staticmethod(verb(_update))
    stop = staticmethod(verb(runs.stop))
    retry = staticmethod(verb(run_retries.retry, to_workers=True))
    copy = staticmethod(verb(_copy, to_workers=True))
    delete = staticmethod(verb(_delete))
