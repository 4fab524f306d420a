"""Artifacts of a run in Prefect: one per key, also when the run is retried."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from prefect.artifacts import create_link_artifact

from infra.prefect_client import prefect_client
from registry import tracking
from registry.tracking import Tracked

_MLFLOW_RUN = "mlflow-run"


def find(flow_run_id: str, key: str) -> UUID | None:
    """The newest artifact of a run with this key; None if there is none yet."""
    wanted = {
        "artifacts": {"flow_run_id": {"any_": [flow_run_id]}, "key": {"any_": [key]}},
        "sort": "CREATED_DESC",
        "limit": 1,
    }
    with prefect_client() as client:
        # The client's own method asks with nulls, which the server refuses.
        found = client.request("POST", "/artifacts/filter", json=wanted).json()
    return UUID(found[0]["id"]) if found else None


def link(flow_run_id: str, key: str, url: str, text: str) -> None:
    """Add a link to a run, unless an earlier attempt has added it."""
    if find(flow_run_id, key) is None:
        create_link_artifact(key=key, link=url, link_text=text)


def tie_to_mlflow(
    flow_run_id: str, tracked: Tracked, text: str, tags: Iterable[str], retried: bool
) -> None:
    """Label and tag a run with its MLflow run and experiment, and link that run's page.

    Args:
        flow_run_id: The run.
        tracked: Its MLflow run.
        text: The text of the link.
        tags: What its tags become.
        retried: Whether an earlier attempt may have added the link.
    """
    with prefect_client() as client:
        # In this order: a run with neither is of the experiment that its parameters name.
        client.update_flow_run(UUID(flow_run_id), tags=list(tags))
        client.update_flow_run_labels(
            UUID(flow_run_id), {tracking.MLFLOW_RUN_LABEL: tracked.run_id}
        )
    if not retried or find(flow_run_id, _MLFLOW_RUN) is None:
        create_link_artifact(key=_MLFLOW_RUN, link=tracked.url, link_text=text)
