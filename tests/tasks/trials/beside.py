"""What tests of trials beside their tuning look at, and how such a tuning is killed."""

from __future__ import annotations

from typing import Any

from infra.mlflow import ViewType
from registry import tracking
from registry.tracking import PARENT_TAG
from tasks.trials.inline import InlineLauncher
from tests.processes import with_variable
from tests.tasks.trials.scene import Scene


def processes(scene: Scene) -> list[Any]:
    return with_variable("MODELYARD_RUN", f"{scene.tuning}@{scene.home.root}")


def children(scene: Scene) -> dict[str, str]:
    """Names of the MLflow runs below the tuning's, and how they are."""
    mlflow = tracking.client()
    found = mlflow.search_runs(
        ["0"], f"tags.`{PARENT_TAG}` = '{scene.parent.run_id}'", ViewType.ACTIVE_ONLY
    )
    return {run.info.run_name: run.info.status for run in found}


def history(scene: Scene, number: int, metric: str = "loss") -> list[tuple[int, float]]:
    """Steps and values that MLflow has."""
    run_id = scene.run_of(number).info.run_id
    found = tracking.client().get_metric_history(run_id, metric)
    return [(one.step, one.value) for one in found]


def kill(launcher: InlineLauncher) -> None:
    """Leave a launcher as its process does that is killed: nothing more is told or written."""
    launcher._emit = lambda _: None
    launcher._writer._retry = lambda _: True  # type: ignore[method-assign]
    for process in with_variable("MODELYARD_RUN", str(launcher._context.home.root)):
        process.kill()
    for thread in launcher._threads.values():
        thread.join(30)
    launcher._closed.set()
    launcher._poller.join(30)
    launcher._backend.close()
    launcher._writer.close(30)
