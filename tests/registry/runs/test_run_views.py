"""Views of runs, made of Prefect's client's flow runs and of its REST API's JSON."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed, Pending, Running

from registry import tracking
from registry.runs import statuses
from registry.runs.run_views import RunView

THEN = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "state",
    [None, Pending(), Running(), Completed(), Failed(message="[Odd] no luck")],
    ids=lambda state: state.name if state else "none",
)
def test_prefects_client_and_its_rest_api_make_the_same_view(state: State[Any] | None) -> None:
    run = FlowRun(
        id=uuid4(), flow_id=uuid4(), name="r", state=state, run_count=2, created=THEN,
        start_time=THEN, estimated_run_time=timedelta(seconds=7.56), parameters={"a": [1]},
        labels={tracking.MLFLOW_RUN_LABEL: "m", **statuses.concluding(2, failed=False)},
    )  # fmt: skip
    view = RunView.from_flow_run(run, "train", "for 8 GPUs")
    # The client has durations as timedeltas, the API as seconds.
    found = {**run.model_dump(mode="json"), "estimated_run_time": 7.56}

    assert RunView.from_rest(found, "train", "for 8 GPUs") == view
    assert (view.seconds, view.mlflow_run_id, view.parameters) == (7.6, "m", {"a": [1]})


def test_the_views_import_neither_prefect_nor_mlflow() -> None:
    heavy = "{'prefect', 'mlflow'} & {name.partition('.')[0] for name in sys.modules}"
    code = f"import sys, registry.runs.run_views; print(sorted({heavy}))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "[]"


def test_a_view_is_read_as_its_json_as_well() -> None:
    view = RunView(id="i", name="n", flow="train", state="RUNNING", created=THEN)

    assert view["created"] == view.to_json()["created"] == "2026-01-02T03:04:05.000006+00:00"
    with pytest.raises(KeyError):
        view["waiting"]
