from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from infra.connection import Endpoints
from infra.errors import StackError
from modelyard.pages.servers import Servers, TrackedRun
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
    "labels": {tracking.MLFLOW_RUN_LABEL: "m1", "modelyard.schedule": "s1",
               "modelyard.tuning": "t1"},
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
    assert (found.schedule_id, found.tuning_id) == ("s1", "t1")
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
    servers(network).tracked("m1")

    assert [one.headers.get("authorization") for one in heard] == [told, told]


def test_there_may_be_no_such_run() -> None:
    assert servers(Network()).run(RUN) is None
    assert servers(Network()).run("no id") is None


@pytest.mark.parametrize(
    ("types", "told"),
    [
        ((), {}),
        ({"RUNNING", "PAUSED"},
         {"flow_runs": {"state": {"type": {"any_": ["PAUSED", "RUNNING"]}}}}),
    ],
)  # fmt: skip
def test_the_newest_runs_are_asked_for(types: set[str], told: dict[str, Any]) -> None:
    network = Network(flow_runs__filter=[_FOUND, _FOUND], flows__f1={"name": "tune"})
    found = servers(network).runs(7, types=types, after=14)
    newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 7, "offset": 14}

    assert [run.state for run in found] == ["FAIL HYPERPARAMETER TUNING"] * 2
    assert network.asked == [
        ("/api/flow_runs/filter", {**newest, **told}),
        ("/api/flows/f1", None),
    ]


def test_runs_are_filtered_by_prefect_s_tags_and_states_together() -> None:
    network = Network(flow_runs__filter=[])

    assert servers(network).runs(1, tag="evaluation:e", types={"RUNNING"}) == []
    assert network.asked[0][1]["flow_runs"] == {
        "state": {"type": {"any_": ["RUNNING"]}}, "tags": {"all_": ["evaluation:e"]},
    }  # fmt: skip


def test_active_runs_are_counted_by_prefect() -> None:
    network = Network(flow_runs__count=3)

    assert servers(network).active_count() == 3
    types = network.asked[0][1]["flow_runs"]["state"]["type"]["any_"]
    assert types == ["CANCELLING", "PAUSED", "PENDING", "RUNNING", "SCHEDULED"]


def test_the_newest_runs_of_a_flow_are_asked_for_by_its_id() -> None:
    """With its name, the database reads every run to find those of a rare flow."""
    network = Network(
        flow_runs__filter=[_FOUND], flows__f1={"name": "pipeline-run"},
        **{"name__pipeline-run": {"id": "f1"}},
    )  # fmt: skip
    asking = servers(network)
    found = [asking.runs(7, "pipeline-run") for _ in range(2)]

    assert [[run.name for run in each] for each in found] == [["a run"]] * 2
    (first, _), *asked = [each for each in network.asked if each[0] != "/api/flows/f1"]
    assert first == "/api/flows/name/pipeline-run"
    assert [each["flows"] for _, each in asked] == [{"id": {"any_": ["f1"]}}] * 2


def test_a_flow_that_is_not_registered_has_no_runs() -> None:
    assert servers(Network(flow_runs__filter=[_FOUND])).runs(7, "pipeline-run") == []


def test_the_task_run_of_a_node_is_found_by_its_path_whatever_it_is_called() -> None:
    own = str(pipeline_nodes.task_run_id(RUN, "loop/0/add"))
    asking = servers(Network(**{f"task_runs__{own}": {"id": own, "name": "loop/0/add (sum)"}}))

    assert asking.task_run(RUN, "loop/0/add") == own
    assert asking.task_run(RUN, "loop/1/add") is None


@pytest.mark.parametrize(("newest", "lines"), [(True, ["b", "a"]), (False, ["a", "b"])])
def test_lines_of_a_log_are_in_their_order(newest: bool, lines: list[str]) -> None:
    network = Network(logs__filter=[{"message": "a"}, {"message": "b"}])

    assert servers(network).log(RUN, 2, after=4, newest=newest) == lines
    asked = network.asked[-1][1]
    assert asked["sort"] == ("TIMESTAMP_DESC" if newest else "TIMESTAMP_ASC")
    assert (asked["limit"], asked["offset"]) == (2, 4)
    assert asked["logs"] == {"flow_run_id": {"any_": [RUN]}}


def test_flows_are_asked_for_once() -> None:
    network = Network(**{RUN: _FOUND, "flows__f1": {"name": "pipeline-run"}})
    asking = servers(network)
    asking.run(RUN)
    asking.run(RUN)

    assert [path for path, _ in network.asked].count("/api/flows/f1") == 1


def test_a_server_that_does_not_answer_is_told() -> None:
    answer = httpx.Response(200, text="no json")
    with pytest.raises(StackError, match="Prefect does not answer") as raised:
        servers(Network(flow_runs__filter=answer)).runs(1)
    assert raised.value.code == "StackSilent"
    with pytest.raises(StackError, match="MLflow does not answer"):
        servers(Network(**{"registered-models__search": answer})).models(1)


@pytest.mark.parametrize("status", [500, 422])
def test_a_server_that_fails_is_told_with_what_it_was_asked(status: int) -> None:
    answer = httpx.Response(status)
    asked = f"Prefect answered {status} to POST /api/flow_runs/filter"
    with pytest.raises(StackError, match=asked) as raised:
        servers(Network(flow_runs__filter=answer)).runs(1)
    assert raised.value.code == "StackFailed"
    assert "modelyard status --logs prefect" in raised.value.hint
    with pytest.raises(StackError, match=f"MLflow answered {status} to GET"):
        servers(Network(**{"registered-models__search": answer})).models(1)


def test_a_run_in_mlflow_is_told_with_its_experiment_as_it_is_called_now() -> None:
    said = {
        "tags": [{"key": "mlflow.note.content", "value": "why"}],
        "metrics": [{"key": "system/cpu", "value": 1}, {"key": "train/loss", "value": 0.5}],
    }
    info = {"run": {"info": {"experiment_id": "7", "run_id": "m1"}, "data": said}}
    experiment = {"experiment": {"experiment_id": "7", "name": "renamed"}}
    network = Network(runs__get=info, experiments__get=experiment)

    assert servers(network).tracked("m1") == TrackedRun(
        url="http://mlflow/#/experiments/7/runs/m1?workflowType=machine_learning",
        description="why",
        experiment="renamed",
        experiment_id="7",
        experiment_url="http://mlflow/#/experiments/7/runs?workflowType=machine_learning",
        metrics={"train/loss": 0.5},
        tags={"mlflow.note.content": "why"},
    )
    assert servers(Network()).tracked("m1") is None
    assert servers(Network(runs__get={})).tracked("m1") is None


def test_an_artifact_is_read_up_to_a_size() -> None:
    asked = servers(Network(**{"get-artifact": httpx.Response(200, content=b"image")}))
    assert asked.artifact("m1", "results/a.png", 5) == b"image"
    assert asked.artifact("m1", "results/a.png", 4) is None
    assert servers(Network()).artifact("m1", "results/a.png", 5) is None
    failing = servers(Network(**{"get-artifact": httpx.Response(500)}))
    with pytest.raises(StackError, match="MLflow answered 500 to GET"):
        failing.artifact("m1", "results/a.png", 5)


def test_the_models_that_were_changed_last_are_asked_for() -> None:
    heard: list[httpx.Request] = []

    def network(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        return httpx.Response(200, json={"registered_models": [{"name": "m"}]})

    assert [model.name for model in servers(network).models(7)] == ["m"]
    assert dict(heard[0].url.params) == {
        "filter": "tag.`mlflow.prompt.is_prompt` != 'true'", "max_results": "7",
        "order_by": "last_updated_timestamp DESC",
    }  # fmt: skip


@pytest.mark.parametrize(("state", "told"), [("PENDING", "for 8 GPUs"), ("RUNNING", "")])
def test_what_a_run_waits_for(state: str, told: str) -> None:
    found = {**_FOUND, "state": {"type": state, "name": state.title()}}
    asking = servers(
        Network(
            **{
                RUN: found,
                "flows__f1": {"name": "pipeline-run"},
                "flow_runs__filter": [found],
                "name__pipeline-run": {"id": "f1"},
            }
        )
    )
    run = asking.run(RUN)

    assert run is not None
    assert run.waiting == told
    assert [one.waiting for one in asking.runs(1)] == [told]
