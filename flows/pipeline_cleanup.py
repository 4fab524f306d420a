"""The clean-up of old artifacts of pipeline runs, which a schedule starts every day."""

from __future__ import annotations

import time
from typing import Any

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows import lifecycle
from flows.lifecycle import Execution
from infra.errors import ModelyardError
from tasks.pipelines import cleanup
from tasks.pipelines.cleanup import Cleanup

FLOW = "pipeline-artifacts-cleanup"
_SETTLE_SECONDS = 5.0


def preflight(request: Cleanup, _: str) -> None:
    """Refuse a clean-up that nobody can mean.

    Raises:
        BadInputError: With the code ``DaysInvalid``.
    """
    cleanup.check(request)


def _clean_up(held: Execution, request: Cleanup) -> State[Any]:
    days = held.settings.pipeline_artifact_days if request.days is None else request.days
    removed = cleanup.clean_up(
        held.home, days, dry_run=request.dry_run, say=get_run_logger().info,
        settle=lambda: time.sleep(_SETTLE_SECONDS),
    )  # fmt: skip
    result = removed.as_result(days, dry_run=request.dry_run)
    create_table_artifact(
        key="removed",
        table=[{"what": name, "value": str(value)} for name, value in result.items()],
    )
    if removed.failed:
        error = ModelyardError(
            f"{len(removed.failed)} files could not be removed, such as {removed.failed[0]}",
            "Give this user the right to remove them; the next clean-up goes on.",
            code="ArtifactsNotRemoved",
        )
        return lifecycle.failed(error)
    verb = "would be" if request.dry_run else "were"
    told = (
        f"{result['files']} files of {result['runs']} runs {verb} removed "
        f"({result['bytes']:,} bytes), and {result['mlflow_files']} in MLflow."
    )
    return lifecycle.completed(result, told)


def _run_name() -> str:
    return str(flow_run.name)


@lifecycle.lifecycle_flow(name=FLOW, model=Cleanup, preflight=preflight, run_name=_run_name)
def pipeline_artifacts_cleanup(days: float | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Remove the artifacts of pipeline runs that ended long ago; the runs themselves stay.

    Args:
        days: How long artifacts are kept after a run's end; 0 is for ever. Without, as the setting
            MODELYARD_PIPELINE_ARTIFACT_DAYS says: 120.
        dry_run: Whether nothing is removed, only told.

    Returns:
        ``{"days", "dry_run", "runs", "files", "bytes", "mlflow_files", "mlflow_bytes", "in_use",
        "failed"}``: of how many runs how much was removed, and what stays because newer runs use
        it or because it could not be removed.
    """
    # Prefect ends the run in a state that is returned; a caller gets the state's data.
    return lifecycle.execute(Cleanup, preflight, _clean_up)  # type: ignore[return-value]
