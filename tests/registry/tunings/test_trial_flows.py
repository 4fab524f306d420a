"""The flow runs of trials, with a Prefect that has these runs and nothing else."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
)

from registry import tracking
from registry.runs import run_requests, runs
from registry.tunings import trial_flows
from tests.registry.fake_runs import PrefectClient


class Client(PrefectClient):
    """Takes new states as well, and has a deployment."""

    pool: str | None = "gpu"

    def __init__(self) -> None:
        super().__init__()
        self.states: list[State[Any]] = []

    def set_flow_run_state(self, run_id: UUID, state: State[Any], *, force: bool = False) -> None:
        self.states.append(state)
        self.runs[run_id].state = state

    def read_flow_run_states(self, run_id: UUID) -> list[State[Any]]:
        return self.states

    def read_deployment_by_name(self, _: str) -> Any:
        if self.pool is None:
            raise ObjectNotFound(Exception())
        return SimpleNamespace(id=uuid4(), work_pool_name=self.pool)

    def read_work_pool(self, name: str) -> Any:
        if name != "gpu":
            raise ObjectNotFound(Exception())
        return SimpleNamespace(type="process")


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Client:
    fake = Client()
    monkeypatch.setattr(trial_flows, "prefect_client", lambda **_: contextlib.nullcontext(fake))
    monkeypatch.setattr(run_requests, "prefect_client", lambda **_: contextlib.nullcontext(fake))
    monkeypatch.setattr(runs, "_prefect", lambda: contextlib.nullcontext(fake))
    return fake


@pytest.mark.parametrize(
    ("state", "word", "begun", "final", "crashed"),
    [
        (Scheduled(), "CREATE REQUESTED", False, False, False),
        (Pending(), "CREATE IN PROGRESS", False, False, False),
        (Running(), "RUNNING", True, False, False),
        (Cancelling(), "STOP IN PROGRESS", True, False, False),
        (Cancelled(), "STOPPED", True, True, False),
        (Completed(), "COMPLETE", True, True, False),
        (Failed(message="Why."), "FAIL TRAIN", True, True, False),
        (Failed(name="TimedOut"), "TIMED OUT", True, True, False),
        (Crashed(), "FAIL TRAIN", True, True, True),
    ],
)  # fmt: skip
def test_what_a_run_has_come_to(
    prefect: Client, state: State[Any], word: str, begun: bool, final: bool, crashed: bool
) -> None:
    run_id = prefect.add("train", "t", state)
    prefect.label(run_id, "abc")

    found = trial_flows.read([run_id])[run_id]

    assert (found.word, found.begun, found.final, found.crashed) == (word, begun, final, crashed)
    assert found.message == (state.message or "")
    assert found.mlflow_run_id == "abc"


def test_they_are_read_page_by_page_and_those_that_are_gone_are_left_out(
    prefect: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_flows, "_PAGE", 2)
    ids = [prefect.add("train", f"t{number}") for number in range(5)]

    assert set(trial_flows.read([*ids, str(uuid4())])) == set(ids)
    assert trial_flows.read([]) == {}
    assert trial_flows.read(ids[:1])[ids[0]].mlflow_run_id == ""


class TestStop:
    @pytest.mark.parametrize("state", [Running(), Pending()])
    def test_one_that_goes_on_is_asked_to(self, prefect: Client, state: State[Any]) -> None:
        run_id = prefect.add("train", "t", state)

        run_requests.request_stop(run_id)

        assert trial_flows.read([run_id])[run_id].word == "STOP IN PROGRESS"

    def test_one_that_waits_has_ended(self, prefect: Client) -> None:
        run_id = prefect.add("train", "t", Scheduled())

        run_requests.request_stop(run_id)

        assert trial_flows.read([run_id])[run_id].word == "STOPPED"

    @pytest.mark.parametrize("state", [Completed(), Crashed(), Cancelled(), Cancelling()])
    def test_one_that_has_ended_or_ends_stays_so(self, prefect: Client, state: State[Any]) -> None:
        run_id = prefect.add("train", "t", state)

        run_requests.request_stop(run_id)

        assert prefect.runs[UUID(run_id)].state == state

    def test_one_that_is_gone_is_no_matter(self, prefect: Client) -> None:
        run_requests.request_stop(str(uuid4()))
        run_requests.resume(str(uuid4()))


class TestGoOn:
    @pytest.mark.parametrize("state", [Cancelled(), Crashed(), Failed()])
    def test_one_that_has_ended_otherwise_than_well_is_run_again(
        self, prefect: Client, state: State[Any]
    ) -> None:
        run_id = prefect.add("train", "t", state)

        run_requests.resume(run_id)

        assert prefect.runs[UUID(run_id)].state.name == AwaitingRetry().name  # type: ignore[union-attr]

    @pytest.mark.parametrize("state", [Completed(), Running(), Cancelling(), Scheduled()])
    def test_any_other_is_left_alone(self, prefect: Client, state: State[Any]) -> None:
        run_id = prefect.add("train", "t", state)

        run_requests.resume(run_id)

        assert prefect.runs[UUID(run_id)].state == state


@pytest.mark.parametrize(
    ("pool", "found"), [("gpu", "process"), ("gone", None), ("", None), (None, None)]
)
def test_the_pools_type(prefect: Client, pool: str | None, found: str | None) -> None:
    prefect.pool = pool

    assert trial_flows.pool_type() == found


def test_a_trials_number_is_a_label() -> None:
    assert trial_flows.number({trial_flows.TRIAL_LABEL: "7"}) == 7
    assert trial_flows.number({tracking.MLFLOW_RUN_LABEL: "7"}) is None
