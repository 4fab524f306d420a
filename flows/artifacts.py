"""Artifacts of a run in Prefect: one of a key, also when the run is tried again."""

from __future__ import annotations

from uuid import UUID

from prefect.artifacts import create_link_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)


def find(flow_run_id: str, key: str) -> UUID | None:
    """The artifact of a run with this key; None if there is none yet."""
    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(flow_run_id)]),
        key=ArtifactFilterKey(any_=[key]),
    )
    with get_client(sync_client=True) as client:
        return next((one.id for one in client.read_artifacts(artifact_filter=wanted)), None)


def link_to_mlflow(flow_run_id: str, url: str, text: str) -> None:
    """Show the page of a run in MLflow beside the run, unless an earlier attempt has done so."""
    if find(flow_run_id, "mlflow-run") is None:
        create_link_artifact(key="mlflow-run", link=url, link_text=text)
