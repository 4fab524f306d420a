"""Tags of runs in Prefect by which it lists and counts the runs of an experiment.

Prefect filters by tags, not by labels. A run begins with the tag ``no-mlflow-run``, which its
deployment has; when it opens its MLflow run, the id of the experiment replaces it, which never
changes. So Prefect counts an experiment's runs itself, and the runs that ended before they were
opened, whose experiment only their parameters say, are found without reading the others.

Runs of earlier versions have neither tag: :mod:`registry.runs.run_tagging` adds them.
"""

from __future__ import annotations

from collections.abc import Iterable

NO_MLFLOW_RUN = "no-mlflow-run"  # the run's current attempt has not opened it yet

_EXPERIMENT = "mlflow-experiment:"
_TRIALS = "mlflow-experiment-trials:"  # trials in a pool, which count as a part of their tuning


def of_experiment(experiment_id: str) -> str:
    """Return the tag of the runs that have an MLflow run in the experiment, without trials."""
    return f"{_EXPERIMENT}{experiment_id}"


def of_trials(experiment_id: str) -> str:
    """Return the tag of the trials that have an MLflow run in the experiment."""
    return f"{_TRIALS}{experiment_id}"


def is_opened(tags: Iterable[str]) -> bool:
    """Whether a run with these tags has opened its MLflow run."""
    return any(tag.startswith((_EXPERIMENT, _TRIALS)) for tag in tags)


def opened(tags: Iterable[str], experiment_id: str, *, trial: bool) -> list[str]:
    """Return the tags of a run that has opened its MLflow run.

    Args:
        tags: Its tags until then.
        experiment_id: The experiment of its MLflow run.
        trial: Whether it is a trial of a tuning.
    """
    own = of_trials(experiment_id) if trial else of_experiment(experiment_id)
    # A client of Prefect's may have given the run the tags of another.
    others = (tag for tag in tags if tag != NO_MLFLOW_RUN and not is_opened([tag]))
    return [*others, own]


def not_opened(tags: Iterable[str]) -> list[str]:
    """Return the tags of a run whose attempt has not opened its MLflow run."""
    return [*(tag for tag in tags if tag != NO_MLFLOW_RUN), NO_MLFLOW_RUN]
