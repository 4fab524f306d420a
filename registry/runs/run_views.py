"""What is told of one flow run of Prefect's, wherever runs are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from mlflow.exceptions import MlflowException
from prefect.client.schemas.objects import FlowRun

from infra import connection
from registry import flow_kinds, tracking
from registry.runs import pending_reasons, statuses


def mlflow_run_id(run: FlowRun) -> str | None:
    """The run's MLflow run, once it has one."""
    value = (run.labels or {}).get(tracking.MLFLOW_RUN_LABEL)
    return str(value) if value else None


def links(run: FlowRun, flow: str) -> dict[str, str]:
    """The run's pages, by what shows them."""
    found = {"prefect": connection.prefect_page(f"/runs/flow-run/{run.id}")}
    if flow == flow_kinds.PIPELINE_RUN.name and (graph := connection.page(f"/runs/{run.id}")):
        found["graph"] = graph
    in_mlflow = mlflow_run_id(run)
    if in_mlflow:
        with contextlib.suppress(MlflowException):
            found["mlflow"] = tracking.run_url(in_mlflow)
    return found


def word(run: FlowRun, flow: str) -> str:
    """The reference's word for the run's state."""
    return statuses.word(flow, run.state, run.labels or {}, run.run_count)


def waits(runs: Iterable[FlowRun]) -> dict[str, str]:
    """What runs wait for, by id; without those that wait for nothing."""
    return pending_reasons.of({str(run.id): run.state.type.value for run in runs if run.state})


def row(run: FlowRun, flow: str, what: str | None = None) -> dict[str, Any]:
    """What a list shows of the run; what it waits for, one of :func:`waits`, only if it does."""
    return {
        "id": str(run.id),
        "name": run.name,
        "flow": flow,
        "state": word(run, flow),
        "detail": statuses.detail(run.state),
        "created": run.created.isoformat() if run.created else None,
        "started": run.start_time.isoformat() if run.start_time else None,
        "ended": run.end_time.isoformat() if run.end_time else None,
        "seconds": round(run.estimated_run_time.total_seconds(), 1),
        **({"waiting": what} if what else {}),
    }
