"""What a tuning has to show: its trials, of the catalogue, and the best of them.

Which trials are best is the tuning's own decision. It writes it down as a tag of its MLflow run,
beside the names of its objectives; everybody else reads it there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from infra.mlflow import ViewType
from registry.tracking import BEST_TAG, OBJECTIVES_TAG, client, paged
from registry.tunings import trials
from registry.tunings.trials import TrialOutline
from registry.tunings.tuning_views import (
    TrialCounts,
    TrialView,
    TuningResultView,
    TuningSummaryView,
    Value,
)

_LONGEST_TAG = 5000  # MLflow cuts longer ones, perhaps within a number
_IDS_AT_ONCE = 200

# What a list counts, in the reference's three groups.
_COUNTED = {"done": trials.OBSERVED, "running": trials.ACTIVE, "failed": trials.FAILURES}


def lock(flow_run_id: str) -> str:
    """What becomes of a tuning's trials is made alone under it: see ``catalogue.advisory_lock``.

    It is taken before the locks of a model and of the run that it is made of.
    """
    return f"tuning:{flow_run_id}"


def mark_objectives(mlflow_run_id: str, metrics: Sequence[str]) -> None:
    """Write down what a tuning optimises, in the order of its trials' values."""
    client().set_tag(mlflow_run_id, OBJECTIVES_TAG, json.dumps(list(metrics), ensure_ascii=False))


def mark_best(mlflow_run_id: str, numbers: Iterable[int]) -> None:
    """Write down which trials are the best so far: one, or with several objectives the front."""
    text = ",".join(map(str, numbers))
    if len(text) > _LONGEST_TAG:
        text = text[: _LONGEST_TAG + 1].rpartition(",")[0]
    client().set_tag(mlflow_run_id, BEST_TAG, text)


def _best(tags: Mapping[str, str]) -> list[int]:
    return [int(number) for number in tags.get(BEST_TAG, "").split(",") if number]


def _is_single(tags: Mapping[str, str]) -> bool:
    return len(json.loads(tags.get(OBJECTIVES_TAG, "[]"))) <= 1


def _value(values: Sequence[float] | None, *, single: bool) -> Value:
    """Return a trial's values as they are shown."""
    if values is None:
        return None
    finite = [value if math.isfinite(value) else None for value in values]
    return next(iter(finite), None) if single else finite


def result(flow_run_id: str, mlflow_run_id: str, over: bool = False) -> TuningResultView:
    """Return the result of a tuning, also while it runs.

    Args:
        flow_run_id: Its flow run.
        mlflow_run_id: Its MLflow run.
        over: Whether it has ended. Inline trials of a killed one are then shown as KILLED,
            although their rows say that they run.
    """
    tags = client().get_run(mlflow_run_id).data.tags
    single = _is_single(tags)
    shown = [_trial(row, single=single, over=over) for row in trials.outline(flow_run_id)]
    by_number = {trial.number: trial for trial in shown}
    best = [by_number[number].as_best() for number in _best(tags) if number in by_number]
    return TuningResultView(
        mlflow_run_id=mlflow_run_id,
        best=next(iter(best), None) if single else None,
        front=None if single else best,
        trials=shown,
    )


def _trial(row: TrialOutline, *, single: bool, over: bool) -> TrialView:
    ended = over and row["state"] in trials.ACTIVE and not row["flow_run_id"]
    return TrialView(
        number=row["number"],
        state=trials.KILLED if ended else row["state"],
        parameters=row["parameters"],
        value=_value(row["values"], single=single),
        mlflow_run_id=row["mlflow_run_id"],
        flow_run_id=row["flow_run_id"],
        reason=row["reason"],
        attempts=row["attempts"],
    )


def summaries(
    tunings: Mapping[str, str | None], over: Collection[str] = ()
) -> dict[str, TuningSummaryView]:
    """Return what a list shows of tunings, with as many queries for many as for one.

    Args:
        tunings: The MLflow run of each flow run, where it has one.
        over: Those that have ended, so that none of their trials runs.
    """
    if not tunings:
        return {}
    counts = trials.counts(tunings)
    best = _best_values(tunings)
    return {
        tuning: TuningSummaryView(
            trials=_grouped(counts.get(tuning, {}), over=tuning in over), best=best.get(tuning)
        )
        for tuning in tunings
    }


def _grouped(counts: Mapping[str, int], *, over: bool) -> TrialCounts:
    groups = {
        group: sum(counts.get(state, 0) for state in states) for group, states in _COUNTED.items()
    }
    stopped = counts.get(trials.KILLED, 0)
    if over:
        stopped, groups["running"] = stopped + groups["running"], 0
    return TrialCounts(**groups, stopped=stopped)


def _best_values(tunings: Mapping[str, str | None]) -> dict[str, float | None]:
    tags = _tags(run_id for run_id in tunings.values() if run_id)
    single = {
        tuning: _best(tags[run_id])[0]
        for tuning, run_id in tunings.items()
        if run_id in tags and _is_single(tags[run_id]) and _best(tags[run_id])
    }
    values = trials.values(single.items()) if single else {}
    shown = {tuning: _value(found, single=True) for (tuning, _), found in values.items()}
    return {tuning: best for tuning, best in shown.items() if not isinstance(best, list)}


def _tags(mlflow_run_ids: Iterable[str]) -> dict[str, Mapping[str, str]]:
    """The tags of MLflow runs, wherever they are."""
    wanted = list(mlflow_run_ids)
    if not wanted:
        return {}
    mlflow = client()
    everywhere = [
        str(found.experiment_id)
        for found in paged(lambda token: mlflow.search_experiments(ViewType.ALL, page_token=token))
    ]
    tags: dict[str, Mapping[str, str]] = {}
    for first in range(0, len(wanted), _IDS_AT_ONCE):
        some = ", ".join(f"'{run_id}'" for run_id in wanted[first : first + _IDS_AT_ONCE])
        found = mlflow.search_runs(
            everywhere, f"attributes.run_id IN ({some})", ViewType.ALL, _IDS_AT_ONCE
        )
        tags |= {run.info.run_id: run.data.tags for run in found}
    return tags
