"""What is recorded of the machine in a run's MLflow run."""

from __future__ import annotations

import time

import pytest

from registry import tracking
from registry.tracking import Tracked

pytestmark = pytest.mark.usefixtures("mlflow")
_CPU = "system/cpu_utilization_percentage"


@pytest.fixture
def tracked(name: str) -> Tracked:
    return tracking.reopen_run(
        tracking.client().create_run(tracking.ensure_experiment(name)).info.run_id
    )


def _steps(tracked: Tracked) -> list[int]:
    return [one.step for one in tracking.client().get_metric_history(tracked.run_id, _CPU)]


def test_a_run_that_is_shorter_than_an_interval_has_them(
    tracked: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_SYSTEM_METRICS_SECONDS", (60.0, 60.0))
    with tracking.system_metrics(tracked):
        time.sleep(0.5)  # the first sample is taken at once, by a thread

    assert _steps(tracked) == [0]


def test_those_of_a_run_that_is_deleted_meanwhile_end_nothing(tracked: Tracked) -> None:
    with tracking.system_metrics(tracked):
        tracking.client().delete_run(tracked.run_id)
