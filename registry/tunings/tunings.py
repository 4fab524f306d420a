"""What a tuning has to show: its trials, of the catalogue, and the best of them.

Which trials are best is the tuning's own decision. It writes it down as a tag of its MLflow run,
beside the names of its objectives; everybody else reads it there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from infra.mlflow import MlflowException, ViewType
from registry.tracking import MODEL_TAG, client, paged
from registry.tunings import trial_results, trials
from registry.tunings.tuning_views import (
    BestTrialView,
    TuningResultView,
    TuningSummaryView,
)

_LONGEST_TAG = 5000  # MLflow cuts longer ones, perhaps within a number
_IDS_AT_ONCE = 200


def lock(flow_run_id: str) -> str:
    """What becomes of a tuning's trials is made alone under it: see ``catalogue.advisory_lock``.

    It is taken before the locks of a model and of the run that it is made of.
    """
    return f"tuning:{flow_run_id}"


def mark_objectives(mlflow_run_id: str, metrics: Sequence[str]) -> None:
    """Write down what a tuning optimises, in the order of its trials' values."""
    client().set_tag(
        mlflow_run_id, trial_results.OBJECTIVES_TAG, json.dumps(list(metrics), ensure_ascii=False)
    )


def mark_best(mlflow_run_id: str, numbers: Iterable[int]) -> None:
    """Write down which trials are the best so far: one, or with several objectives the front."""
    text = ",".join(map(str, numbers))
    if len(text) > _LONGEST_TAG:
        text = text[: _LONGEST_TAG + 1].rpartition(",")[0]
    client().set_tag(mlflow_run_id, trial_results.BEST_TAG, text)


def result(flow_run_id: str, mlflow_run_id: str, over: bool = False) -> TuningResultView:
    """Return the result of a tuning, also while it runs.

    Args:
        flow_run_id: Its flow run.
        mlflow_run_id: Its MLflow run.
        over: Whether it has ended. Inline trials of a killed one are then shown as KILLED,
            although their rows say that they run.
    """
    tags = client().get_run(mlflow_run_id).data.tags
    single = len(trial_results.objectives(tags)) <= 1
    shown = [
        trial_results.view(row, single=single, over=over) for row in trials.outline(flow_run_id)
    ]
    by_number = {trial.number: trial for trial in shown}
    best = [
        by_number[number].as_best() for number in trial_results.best(tags) if number in by_number
    ]
    winner = next(iter(best), None) if single else None
    return TuningResultView(
        mlflow_run_id=mlflow_run_id,
        best=winner,
        front=None if single else best,
        model_uri=_model_uri(winner),
        trials=shown,
    )


def _model_uri(best: BestTrialView | None) -> str | None:
    if best is None or best.mlflow_run_id is None:
        return None
    try:
        return client().get_run(best.mlflow_run_id).data.tags.get(MODEL_TAG)
    except MlflowException as error:
        if not error.is_missing:
            raise
        return None


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
            trials=trial_results.grouped(counts.get(tuning, {}), over=tuning in over),
            best=best.get(tuning),
        )
        for tuning in tunings
    }


def _best_values(tunings: Mapping[str, str | None]) -> dict[str, float | None]:
    tags = _tags(run_id for run_id in tunings.values() if run_id)
    single = {
        tuning: best[0]
        for tuning, run_id in tunings.items()
        if run_id in tags
        and len(trial_results.objectives(tags[run_id])) <= 1
        and (best := trial_results.best(tags[run_id]))
    }
    values = trials.values(single.items()) if single else {}
    shown = {
        tuning: trial_results.shown_value(found, single=True)
        for (tuning, _), found in values.items()
    }
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
