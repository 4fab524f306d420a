"""All that a run leaves, and its removal."""

from __future__ import annotations

import shutil
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from infra import home as homes
from infra import settings
from infra.storage import store
from infra.workloads.kubernetes.staging import StagingArea
from registry import tracking
from registry.pipelines import pipeline_nodes
from registry.runs import run_attempts, run_nodes

_PAGE = 200


def remove(client: SyncPrefectClient, run_id: str, mlflow_run_id: str | None) -> None:
    """Remove a run: in MLflow with its artifacts, its files and rows, in Prefect with its own.

    Prefect's side goes last, so that a removal that was interrupted can be repeated.
    """
    if mlflow_run_id:
        tracking.delete_run(mlflow_run_id)
    _remove_staged(run_id)
    remove_files(run_id)
    pipeline_nodes.remove(run_id)
    run_nodes.remove(run_id)
    run_attempts.remove(run_id)
    _remove_artifacts(client, run_id)
    client.delete_flow_run(UUID(run_id))


def remove_files(run_id: str) -> None:
    """Remove a run's folder, if there is one."""
    shutil.rmtree(homes.current().runs / run_id, ignore_errors=True)


def _remove_staged(run_id: str) -> None:
    """Remove what the run's pods have staged, which a failed run keeps for its retry."""
    if uri := settings.load().pipeline_staging_uri:
        store(StagingArea(uri, run_id).uri).remove()


def _remove_artifacts(client: SyncPrefectClient, run_id: str) -> None:
    """Remove what Prefect shows of a run; the run's end does not take that along."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}}, "limit": _PAGE}
    while found := client.request("POST", "/artifacts/filter", json=wanted).json():
        for one in found:
            client.request("DELETE", "/artifacts/{id}", path_params={"id": one["id"]})
        if len(found) < _PAGE:
            return
