"""The worker process of the local stack: ``python -m modelyard.worker POOL...``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from prefect.logging import get_logger

from infra import home as homes
from infra import settings, worker
from infra.mlflow import MlflowRun
from registry import flow_kinds, tracking
from registry.models import model_lineage
from registry.runs import run_tagging
from serving import hub_cache
from tasks import tensorboard
from tasks.run_directory import RunDirectory
from tasks.training import metrics_recovery

_HOUR_SECONDS = 3600.0

_logger = get_logger("modelyard.worker")


class _Cleanup:
    """Ends abandoned runs in MLflow in each round; hourly reports models whose runs are gone.

    Old TensorBoard logs and downloads from the hub are removed then as well.
    """

    def __init__(self) -> None:
        self._logs_at = 0.0

    def __call__(self, executed: Callable[[str], bool | None]) -> None:
        tracking.close_abandoned(executed, _recover_metrics)
        if time.monotonic() >= self._logs_at:
            self._logs_at = time.monotonic() + _HOUR_SECONDS
            model_lineage.report_gone()
            tensorboard.prune(homes.current(), settings.load().tensorboard_days)
            hub_cache.prune(homes.current().hub)


def _recover_metrics(run: MlflowRun) -> None:
    """Record what the script of an abandoned training has printed and nobody recorded."""
    if run.data.tags[tracking.KIND_TAG] == flow_kinds.TRAIN.name:
        run_dir = RunDirectory(homes.current().runs / run.data.tags[tracking.FLOW_RUN_TAG])
        metrics_recovery.recover(run_dir, run.info.run_id, _logger.warning)


if __name__ == "__main__":
    run_tagging.start()
    asyncio.run(worker.work(tuple(sys.argv[1:]), _Cleanup()))
