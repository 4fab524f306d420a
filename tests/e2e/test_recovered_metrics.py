"""Metrics of scripts whose run's process is killed, on the real stack."""

import random
import time

import psutil
import pytest

from tests.e2e.disturbing import executor
from tests.e2e.stack import wait_for

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("seed", range(2))
def test_no_metric_that_was_printed_is_lost_with_the_process_of_the_run(stack, seed):
    run = stack.start("prints", metrics=[{"name": "value"}])
    noted = stack.home / "runs" / run / "tensorboard" / "printed"
    wait_for(lambda: noted.exists() and noted.stat().st_size, 30, "the script")
    time.sleep(random.Random(seed).uniform(0, 2))

    psutil.Process(executor(stack, run)).kill()

    found = stack.wait_for_state(run, "FAIL TRAIN", timeout=40)
    mlflow_run = found["result"]["mlflow_run_id"]
    wait_for(lambda: status(stack, mlflow_run) == "KILLED", 30, "MLflow knows it")
    history = stack.mlflow(
        "metrics/get-history", run_id=mlflow_run, metric_key="value", max_results="20000"
    )["metrics"]
    printed = len(noted.read_text().splitlines())
    values = sorted((metric["step"], metric["value"]) for metric in history)
    assert len(values) >= printed > 0
    assert values == [(number - 1, number) for number in range(1, len(values) + 1)]


def status(stack, mlflow_run):
    return stack.mlflow(f"runs/get?run_id={mlflow_run}")["run"]["info"]["status"]
