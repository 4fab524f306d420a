from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from infra.connection import Endpoints
from infra.errors import StackError
from modelyard.pages.servers import Servers
from registry import tracking
from registry.pipelines import pipeline_nodes
from tests.modelyard.pages.conftest import RUN

_ENDPOINTS = Endpoints("http://prefect/api", "http://mlflow", "none")
_FOUND = {
    "id": RUN, "name": "a run", "flow_id": "f1",
    "state": {"type": "FAILED", "name": "Failed", "message": "[Odd] no luck"},
    "created": "2026-01-02T03:04:00Z", "start_time": "2026-01-02T03:04:05Z",
    "end_time": "2026-01-02T03:04:15.500000Z", "estimated_run_time": 7.5,
    "parameters": {"pipeline": "x", "arguments": {"a": 1}},
    "labels": {tracking.MLFLOW_RUN_LABEL: "m1"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", _ENDPOINTS.prefect_api_url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _ENDPOINTS.mlflow_tracking_uri)


class Network:
    """Answers by path, and what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(
            (request.url.path, json.loads(request.content) if request.content else None)
        )
        for ending, answer in self.answers.items():
            if request.url.path.endswith(ending.replace("__", "/")):
                return (
                    answer
                    if isinstance(answer, httpx.Response)
                    else httpx.Response(200, json=answer)
                )
        return httpx.Response(404, json={"detail": "not found"})


def _waits(states: Mapping[str, str]) -> dict[str, str]:
    return {run: "for 8 GPUs" for run, state in states.items() if state == "PENDING"}


def servers(network: Any) -> Servers:
    return Servers(_ENDPOINTS, httpx.MockTransport(network), _waits)


def test_a_run_is_told_in_the_references_words() -> None:
    found = servers(Network(**{RUN: _FOUND, "flows__f1": {"name": "pipeline-run"}})).run(RUN)

    assert found is not None
    assert (found.flow, found.state, found.detail) == ("pipeline-run", "FAIL PIPELINE RUN", "Odd")
    assert (found.is_final, found.message, found.mlflow_run_id) == (True, "no luck", "m1")
    assert found.parameters == {"pipeline": "x", "arguments": {"a": 1}}
    assert found.seconds == 7.5  # without the time between two attempts, as in a list of runs


@pytest.mark.parametrize("state", [None, {"type": "SCHEDULED", "name": "Scheduled"}])
def test_a_run_that_has_not_begun_is_no_error(state: dict[str, str] | None) -> None:
    found = {"id": RUN, "name": "x", "flow_id": "f1", "state": state, "labels": None}
    run = servers(Network(**{RUN: found, "f1": {"name": "pipeline-run"}})).run(RUN)

    assert run is not None
    assert (run.state, run.is_final, run.started, run.parameters) == (
        "CREATE REQUESTED",
        False,
        None,
        {},
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [("", None), ("a:b", "Basic " + base64.b64encode(b"modelyard:a:b").decode())],
)
def test_the_servers_are_told_who_asks_where_they_want_to_know(
    monkeypatch: pytest.MonkeyPatch, said: str, told: str | None
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", said and f"modelyard:{said}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "modelyard")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", said)
    heard: list[httpx.Request] = []

    def network(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        return httpx.Response(404)

    servers(network).run(RUN)
    servers(network).mlflow_url("m1")

    assert [one.headers.get("authorization") for one in heard] == [told, told]


def test_there_may_be_no_such_run() -> None:
    assert servers(Network()).run(RUN) is None
    assert servers(Network()).run("no id") is None


def test_the_newest_runs_of_a_flow_are_asked_for() -> None:
    network = Network(flow_runs__filter=[_FOUND])
    found = servers(network).runs("pipeline-run", 7)

    assert [run.name for run in found] == ["a run"]
    ((_, asked),) = network.asked
    assert asked["flows"] == {"name": {"any_": ["pipeline-run"]}}
    assert asked["limit"] == 7


def test_the_task_run_of_a_node_is_found_by_its_path_whatever_it_is_called() -> None:
    own = str(pipeline_nodes.task_run_id(RUN, "loop/0/add"))
    asking = servers(Network(**{f"task_runs__{own}": {"id": own, "name": "loop/0/add (sum)"}}))

    assert asking.task_run(RUN, "loop/0/add") == own
    assert asking.task_run(RUN, "loop/1/add") is None


def test_flows_are_asked_for_once() -> None:
    network = Network(**{RUN: _FOUND, "flows__f1": {"name": "pipeline-run"}})
    asking = servers(network)
    asking.run(RUN)
    asking.run(RUN)

    assert [path for path, _ in network.asked].count("/api/flows/f1") == 1


@pytest.mark.parametrize(
    "answer", [httpx.Response(500), httpx.Response(200, text="no json"), httpx.Response(422)]
)
def test_a_server_that_does_not_answer_is_told(answer: httpx.Response) -> None:
    with pytest.raises(StackError, match="Prefect does not answer") as raised:
        servers(Network(flow_runs__filter=answer)).runs("pipeline-run", 1)
    assert raised.value.code == "StackSilent"


def test_the_page_of_an_mlflow_run_is_the_one_that_mlflow_tells() -> None:
    info = {"run": {"info": {"experiment_id": "7", "run_id": "m1"}}}

    assert servers(Network(runs__get=info)).mlflow_url("m1") == (
        "http://mlflow/#/experiments/7/runs/m1?workflowType=machine_learning"
    )
    assert servers(Network()).mlflow_url("m1") is None
    assert servers(Network(runs__get={})).mlflow_url("m1") is None


@pytest.mark.parametrize(("state", "told"), [("PENDING", "for 8 GPUs"), ("RUNNING", "")])
def test_what_a_run_waits_for(state: str, told: str) -> None:
    found = {**_FOUND, "state": {"type": state, "name": state.title()}}
    asking = servers(
        Network(
            **{RUN: found, "flows__f1": {"name": "pipeline-run"}, "flow_runs__filter": [found]}
        )
    )
    run = asking.run(RUN)

    assert run is not None
    assert run.waiting == told
    assert [one.waiting for one in asking.runs("pipeline-run", 1)] == [told]
