"""Models with the runs that made them, some of which may be gone."""

from __future__ import annotations

from registry.models import models
from registry.models.model_views import ModelView
from registry.runs import runs


def show(name: str) -> ModelView:
    """Return a model with its versions and its history, and a notice of each run that is gone.

    Raises:
        NotFoundError: If there is no such model.
    """
    found = models.show(name)
    made = {version.flow_run_id for version in found.versions if version.flow_run_id}
    there = {run.id for run in runs.with_ids(made)}
    notices = [
        f"Prefect no longer has the run {version.flow_run_id}, which made version "
        f"{version.version}."
        + (
            f" Its metrics and logs are in the MLflow run {version.mlflow_run_id}."
            if version.run_name is not None
            else ""
        )
        for version in found.versions
        if version.flow_run_id and version.flow_run_id not in there
    ]
    return found.model_copy(update={"notices": notices})
