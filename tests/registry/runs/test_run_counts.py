"""How many runs of an experiment are in which state."""

from __future__ import annotations

from uuid import UUID

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed, Running

from registry.runs import run_counts, run_tags, runs
from tests.registry.fake_runs import PrefectClient

TAG = run_tags.of_experiment("7")
REFUSED = Failed(message="[CreateFailed] Odd: It is odd.")
TIMED_OUT = Failed(name="TimedOut", message="Timeout: It exceeded its 5 minutes.")


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    monkeypatch.setattr(runs.pending_reasons, "of", lambda _: {})
    return PrefectClient.installed(monkeypatch)


def add(prefect: PrefectClient, flow: str, state: State, *tags: str) -> None:
    run = prefect.add(flow, f"run {len(prefect.runs)}", state)
    prefect.runs[UUID(run)].tags = list(tags or (TAG,))


def test_each_word_is_counted(prefect: PrefectClient) -> None:
    for flow, state in (
        ("train", Completed()), ("train", Completed()), ("tune", Completed()),
        ("train", Failed()), ("train", Crashed()), ("pipeline-run", Failed()), ("odd", Failed()),
        ("tune", TIMED_OUT), ("train", Cancelled()), ("train", Running()),
    ):  # fmt: skip
        add(prefect, flow, state)
    add(prefect, "train", REFUSED, TAG, run_tags.NO_MLFLOW_RUN)  # opened once, and retried
    add(prefect, "train", Failed(), run_tags.of_experiment("77"))
    add(prefect, "train", Completed(), run_tags.of_trials("7"))

    assert run_counts.by_state(TAG) == {
        "COMPLETE": 3, "FAIL TRAIN": 2, "FAIL PIPELINE RUN": 1, "FAIL": 1, "TIMED OUT": 1,
        "STOPPED": 1, "RUNNING": 1, "CREATE FAILED": 1,
    }  # fmt: skip


def test_runs_that_have_ended_are_not_read(prefect: PrefectClient) -> None:
    for _ in range(300):
        add(prefect, "train", Completed())
        add(prefect, "train", Failed())
    add(prefect, "train", Running())

    assert run_counts.by_state(TAG) == {"COMPLETE": 300, "FAIL TRAIN": 300, "RUNNING": 1}
    assert prefect.read == 1
