"""Where runs have published to: a tag of their MLflow runs."""

from __future__ import annotations

from infra.mlflow import ViewType
from registry.tracking import client, paged

TAG = "modelyard.output_uri"


def record(run_id: str, place: str) -> None:
    """Say that the MLflow run ``run_id`` publishes to ``place``, before it does."""
    client().set_tag(run_id, TAG, place)


def is_known(place: str) -> bool:
    """Whether a run has published to ``place`` itself."""
    if "'" in place and '"' in place:  # MLflow's filters cannot say it
        return False
    quote = '"' if "'" in place else "'"
    mlflow = client()
    experiments = [
        str(found.experiment_id)
        for found in paged(lambda token: mlflow.search_experiments(ViewType.ALL, page_token=token))
    ]
    same = f"tags.`{TAG}` = {quote}{place}{quote}"
    return bool(mlflow.search_runs(experiments, same, ViewType.ALL, max_results=1))
