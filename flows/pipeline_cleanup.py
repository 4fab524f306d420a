"""Clean-up of old artifacts of pipeline runs, which a schedule runs every day."""

from __future__ import annotations

import time

from prefect.artifacts import create_table_artifact

from flows.lifecycle import FlowSpec, lifecycle_flow
from flows.run_context import RunContext, RunResult
from infra.errors import ModelyardError
from registry import flow_kinds
from tasks.pipelines import cleanup
from tasks.pipelines.cleanup import Cleanup

_SETTLE_SECONDS = 5.0


@lifecycle_flow(
    FlowSpec(
        kind=flow_kinds.PIPELINE_CLEANUP,
        request=Cleanup,
        check=lambda request, _: cleanup.check(request),
        pool="cpu",
        tags=("modelyard", "pipeline"),
        concurrency_limit=1,
        tracked=False,
    )
)
def pipeline_artifacts_cleanup(context: RunContext, request: Cleanup) -> RunResult:
    """Remove the artifacts of pipeline runs that ended long ago; the runs themselves stay.

    Returns:
        ``{"days", "dry_run", "runs", "files", "bytes", "mlflow_files", "mlflow_bytes", "in_use",
        "failed"}``: of how many runs how much was removed, and what stays because newer runs use
        it or because it could not be removed.
    """
    context.open_untracked()
    days = context.settings.pipeline_artifact_days if request.days is None else request.days
    report = cleanup.clean_up(
        context.home, days, dry_run=request.dry_run, log=context.logger.info,
        settle=lambda: time.sleep(_SETTLE_SECONDS),
    )  # fmt: skip
    result = report.as_result(days, dry_run=request.dry_run)
    create_table_artifact(
        key="removed",
        table=[{"what": name, "value": str(value)} for name, value in result.items()],
    )
    if report.failed:
        raise ModelyardError(
            f"{len(report.failed)} files could not be removed, such as {report.failed[0]}",
            "Give this user the right to remove them; the next clean-up continues.",
            code="ArtifactsNotRemoved",
        )
    verb = "would be" if request.dry_run else "were"
    return RunResult(
        result,
        f"{result['files']} files of {result['runs']} runs {verb} removed "
        f"({result['bytes']:,} bytes), and {result['mlflow_files']} in MLflow.",
    )
