"""The credential of a script at the door of a server that knows runs and models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.types import Message, Receive, Scope, Send

from infra.door import run_scope
from infra.door.credential import Credential
from infra.door.door import RefusedError
from infra.door.run_scope_guard import RunScopes

OWN, CHILD, OTHER, GRANDCHILD = (letter * 32 for letter in "abcd")
MODEL, CHILDS_MODEL, OTHERS_MODEL = (f"m-{letter * 32}" for letter in "123")
API = "/api/2.0/mlflow"
CREDENTIAL = Credential("the-owners")


class Mlflow:
    """MLflow's server, as far as the door asks it."""

    PARENTS = {OWN: "", CHILD: OWN, OTHER: "", GRANDCHILD: CHILD}
    SOURCES = {MODEL: OWN, CHILDS_MODEL: CHILD, OTHERS_MODEL: OTHER}

    def __init__(self) -> None:
        self.asked: list[Scope] = []
        self.broken = False

    def answer(self, path: str, query: dict[str, list[str]]) -> Any:
        route = path.removeprefix(f"{API}/")
        if route == "runs/get" and (run := query["run_id"][0]) in self.PARENTS:
            parent = self.PARENTS[run]
            tags = [{"key": "mlflow.parentRunId", "value": parent}] if parent else []
            return {"run": {"info": {"experiment_id": "7"}, "data": {"tags": tags}}}
        if route == "experiments/get-by-name" and query["experiment_name"] == ["own"]:
            return {"experiment": {"experiment_id": "7"}}
        if route == "experiments/get-by-name" and query["experiment_name"] == ["other"]:
            return {"experiment": {"experiment_id": "8"}}
        if (model := route.removeprefix("logged-models/")) in self.SOURCES:
            return {"model": {"info": {"source_run_id": self.SOURCES[model]}}}
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        found = self.answer(scope["path"], parse_qs(scope["query_string"].decode()))
        status = 500 if self.broken else 200 if found else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        body = json.dumps(found).encode()
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})


class Script:
    """A script with the credential of a run."""

    def __init__(self, mlflow: Mlflow, run: str = OWN) -> None:
        self.guard = RunScopes(mlflow, CREDENTIAL)
        issued = run_scope.issue(CREDENTIAL, run)
        self.login = issued["MLFLOW_TRACKING_USERNAME"], issued["MLFLOW_TRACKING_PASSWORD"]

    def send(
        self, method: str, path: str, query: str = "", body: Sequence[bytes] = (b"",)
    ) -> Receive | None:
        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), (b"x-other", b"1")],
        }  # fmt: skip
        return asyncio.run(self.guard.admit(*self.login, scope, giving(*body)))

    def post(self, path: str, body: Any) -> Receive | None:
        return self.send("POST", path, body=[json.dumps(body).encode()])

    def is_let_in(self, *request: Any) -> bool:
        try:
            return self.send(*request) is not None
        except RefusedError as error:
            if error.refusal.status != 403:
                raise
            return False


def giving(*parts: bytes) -> Receive:
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


def content(receive: Receive | None) -> bytes:
    async def read() -> bytes:
        assert receive is not None
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body

    return asyncio.run(read())


@pytest.fixture
def mlflow() -> Mlflow:
    return Mlflow()


@pytest.fixture
def script(mlflow: Mlflow) -> Script:
    return Script(mlflow)


@pytest.mark.parametrize(
    ("run", "opened"), [(OWN, True), (CHILD, True), (OTHER, False), (GRANDCHILD, False),
                        ("e" * 32, False), ("nonsense&run_id=x", False)]
)  # fmt: skip
def test_a_script_reaches_its_run_and_those_nested_in_it(
    script: Script, run: str, opened: bool
) -> None:
    assert script.is_let_in("GET", f"{API}/runs/get", f"run_id={run}") == opened


@pytest.mark.parametrize(
    ("model", "opened"), [(MODEL, True), (CHILDS_MODEL, True), (OTHERS_MODEL, False),
                          (f"m-{'9' * 32}", False)]
)  # fmt: skip
def test_a_script_reaches_the_models_that_they_log(
    script: Script, model: str, opened: bool
) -> None:
    assert script.is_let_in("GET", f"{API}/logged-models/{model}") == opened
    path = f"/api/2.0/mlflow-artifacts/artifacts/7/models/{model}/artifacts/MLmodel"
    assert script.is_let_in("PUT", path) == opened


@pytest.mark.parametrize(
    ("query", "opened"), [("experiment_id=7", True), ("experiment_id=8", False)]
)
def test_a_script_reaches_its_experiment(script: Script, query: str, opened: bool) -> None:
    assert script.is_let_in("GET", f"{API}/experiments/get", query) == opened


@pytest.mark.parametrize(("name", "opened"), [("own", True), ("other", False), ("none", False)])
def test_a_script_finds_its_experiment_by_name(script: Script, name: str, opened: bool) -> None:
    query = f"experiment_name={name}"
    assert script.is_let_in("GET", f"{API}/experiments/get-by-name", query) == opened


@pytest.mark.parametrize(("parent", "opened"), [(OWN, True), (CHILD, False), (OTHER, False)])
def test_a_nested_run_is_one_of_its_own(script: Script, parent: str, opened: bool) -> None:
    told = {"experiment_id": "7", "tags": [{"key": "mlflow.parentRunId", "value": parent}]}
    body = json.dumps(told).encode()
    assert script.is_let_in("POST", f"{API}/runs/create", "", [body]) == opened


def test_artifacts_of_another_experiments_folder_are_not_the_runs(script: Script) -> None:
    path = "/api/2.0/mlflow-artifacts/artifacts"
    assert script.is_let_in("PUT", f"{path}/7/{OWN}/artifacts/x")
    assert not script.is_let_in("PUT", f"{path}/8/{OWN}/artifacts/x")
    assert not script.is_let_in("PUT", f"{path}/7/{OTHER}/artifacts/x")


def test_other_credentials_are_not_its_business(script: Script) -> None:
    script.login = ("modelyard", "the-owners")
    assert script.send("GET", f"{API}/experiments/search") is None
    script.login = (f"run-{OWN}", "guessed")
    assert script.send("GET", f"{API}/runs/get", f"run_id={OWN}") is None


def test_a_refusal_says_what_the_script_may_do(script: Script) -> None:
    with pytest.raises(RefusedError) as caught:
        script.post(f"{API}/registered-models/create", {"name": "mine"})

    assert caught.value.refusal.code == "PERMISSION_DENIED"
    assert OWN in caught.value.refusal.message
    assert f"POST {API}/registered-models/create" in caught.value.refusal.message
    assert "EM_MODEL_DIR" in caught.value.refusal.message


def test_the_server_gets_the_body_as_it_was_sent(script: Script) -> None:
    body = json.dumps({"run_id": OWN, "key": "loss", "value": "NaN"}).encode()
    received = script.send("POST", f"{API}/runs/log-metric", "", [body[:9], body[9:]])
    assert content(received) == body


def test_the_body_of_a_get_is_dropped(script: Script) -> None:
    received = script.send("GET", f"{API}/runs/get", f"run_id={OWN}", [b'{"run_id": "x"}'])
    assert content(received) == b""


def test_an_artifact_is_not_read_and_a_body_without_end_is_refused(script: Script) -> None:
    path = f"/api/2.0/mlflow-artifacts/artifacts/7/{OWN}/artifacts/big"
    parts = [b"x" * (1 << 20)] * 40
    assert content(script.send("PUT", path, "", parts)) == b"".join(parts)

    with pytest.raises(RefusedError) as caught:
        script.send("POST", f"{API}/runs/log-batch", "", parts)
    assert caught.value.refusal.status == 413


def test_what_never_changes_is_asked_once_and_as_nobody(mlflow: Mlflow, script: Script) -> None:
    for _ in range(3):
        assert script.is_let_in("GET", f"{API}/logged-models/{CHILDS_MODEL}")

    assert len(mlflow.asked) == 2  # the model, and the run that has logged it
    assert all(scope["headers"] == [(b"host", b"localhost")] for scope in mlflow.asked)


def test_a_server_that_fails_is_no_refusal(mlflow: Mlflow, script: Script) -> None:
    mlflow.broken = True
    with pytest.raises(RefusedError) as caught:
        script.send("GET", f"{API}/runs/get", f"run_id={CHILD}")
    assert caught.value.refusal.status == 503
    mlflow.broken = False
    assert script.is_let_in("GET", f"{API}/runs/get", f"run_id={CHILD}")


def test_a_search_for_models_is_narrowed_to_the_runs_own(script: Script) -> None:
    body = json.dumps({"experiment_ids": ["7"]}).encode()

    narrowed = json.loads(content(script.send("POST", f"{API}/logged-models/search", "", [body])))

    assert narrowed["filter"] == f"source_run_id = '{OWN}'"
    foreign = json.dumps({"experiment_ids": ["7", "8"]}).encode()
    assert not script.is_let_in("POST", f"{API}/logged-models/search", "", [foreign])
