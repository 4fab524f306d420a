"""Comparison of runs: the parameters that differ, and the metrics side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.errors import BadInputError
from infra.mlflow import MlflowException
from registry import tracking
from registry.runs import runs
from registry.runs.run_views import RunDetailView
from registry.views import Instant, View

_MOST_RUNS = 20
_OWN = {"name", "description"}  # what each run has of its own


class ComparedRunView(View):
    """A run that is compared."""

    id: str
    name: str
    flow: str
    state: str
    started: Instant | None
    seconds: float
    mlflow_run_id: str | None


class RunComparisonView(View):
    """A comparison; each list has a value for each run, in the order of the runs.

    Attributes:
        runs: The runs.
        parameters: Values of the parameters that differ, by their dotted names; None where a run
            does not have one. Name and description of a run are none.
        metrics: The last value of each metric that any of them has in MLflow; None where a run
            does not have it, or where it was not a finite number.
    """

    runs: list[ComparedRunView]
    parameters: dict[str, list[Any]]
    metrics: dict[str, list[float | None]]


def compare(keys: Sequence[str]) -> RunComparisonView:
    """Compare runs.

    Args:
        keys: The id or the name of each.

    Raises:
        BadInputError: If there are fewer than two or too many, or one is given twice; with the
            code ``RunsNotComparable``.
        NotFoundError: If there is no such run.
        ConflictError: If several have the name.
    """
    if not 2 <= len(keys) <= _MOST_RUNS:
        raise BadInputError(
            f"{len(keys)} runs cannot be compared.", f"Give 2 to {_MOST_RUNS} runs.",
            code="RunsNotComparable",
        )  # fmt: skip
    found = [runs.show(key) for key in keys]
    ids = [run.id for run in found]
    if twice := next((run for run in found if ids.count(run.id) > 1), None):
        raise BadInputError(
            f"The run {twice.name} ({twice.id}) is given twice.", "Give each run once.",
            code="RunsNotComparable",
        )  # fmt: skip
    parameters = _side_by_side([dict(_flat(run.parameters)) for run in found])
    return RunComparisonView(
        runs=[_compared(run) for run in found],
        parameters={
            name: values
            for name, values in parameters.items()
            if name not in _OWN and any(value != values[0] for value in values)
        },
        metrics=dict(sorted(_side_by_side([_metrics(run) for run in found]).items())),
    )


def _compared(run: RunDetailView) -> ComparedRunView:
    return ComparedRunView(**{name: getattr(run, name) for name in ComparedRunView.model_fields})


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of parameters with their dotted names; lists are values."""
    for name, value in given.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _side_by_side(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for one in found for name in one)
    return {name: [one.get(name) for one in found] for name in names}


def _metrics(run: RunDetailView) -> Mapping[str, float | None]:
    if run.mlflow_run_id is None:
        return {}
    try:
        return tracking.result(run.mlflow_run_id).metrics
    except MlflowException as error:
        if not error.is_missing:  # deleted in MLflow
            raise
        return {}


def curves(compared: RunComparisonView) -> dict[str, list[list[tuple[int, float]]]]:
    """Return every value of each metric with its step, for each run in order."""
    mlflow = tracking.client()

    def curve(run: ComparedRunView, name: str, last: float | None) -> list[tuple[int, float]]:
        if run.mlflow_run_id is None or last is None:
            return []
        return sorted(
            (one.step, one.value) for one in mlflow.get_metric_history(run.mlflow_run_id, name)
        )

    return {
        name: [curve(run, name, last) for run, last in zip(compared.runs, values, strict=True)]
        for name, values in compared.metrics.items()
    }
