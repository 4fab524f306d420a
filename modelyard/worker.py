"""The worker process of the local stack: ``python -m modelyard.worker POOL...``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from infra import home as homes
from infra import settings, worker
from registry import tracking
from registry.models import model_lineage
from registry.runs import run_tagging
from tasks import tensorboard

_HOUR_SECONDS = 3600.0


class _Cleanup:
    """Ends abandoned runs in MLflow in each round; hourly reports models whose runs are gone.

    Old TensorBoard logs are removed then as well.
    """

    def __init__(self) -> None:
        self._logs_at = 0.0

    def __call__(self, executed: Callable[[str], bool | None]) -> None:
        tracking.close_abandoned(executed)
        if time.monotonic() >= self._logs_at:
            self._logs_at = time.monotonic() + _HOUR_SECONDS
            model_lineage.report_gone()
            tensorboard.prune(homes.current(), settings.load().tensorboard_days)


if __name__ == "__main__":
    run_tagging.start()
    asyncio.run(worker.work(tuple(sys.argv[1:]), _Cleanup()))
