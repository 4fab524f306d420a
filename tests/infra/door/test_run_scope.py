"""What the credential of a script opens, as rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.door import run_scope
from infra.door.credential import Credential
from infra.door.run_scope import Claim, ClaimKind, MlflowRequest, NotInScopeError

OWN = "a" * 32
OTHER = "b" * 32
MODEL = f"m-{'c' * 32}"
FOREIGN_MODEL = f"m-{'d' * 32}"
API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts"
PARENT = {"key": "mlflow.parentRunId", "value": OWN}

_RUN = Claim(ClaimKind.RUN, OWN)
_OTHER = Claim(ClaimKind.RUN, OTHER)
_EXPERIMENT = Claim(ClaimKind.EXPERIMENT, "7")
_MODEL = Claim(ClaimKind.MODEL, MODEL)


def get(path: str, *query: tuple[str, str]) -> MlflowRequest:
    return MlflowRequest("GET", path, query)


def post(path: str, body: Any, method: str = "POST") -> MlflowRequest:
    return MlflowRequest(method, path, body=json.dumps(body).encode())


class TestCredentials:
    CREDENTIAL = Credential("the-owners")

    def test_a_credential_names_its_run(self) -> None:
        issued = run_scope.issue(self.CREDENTIAL, OWN)
        user, password = issued["MLFLOW_TRACKING_USERNAME"], issued["MLFLOW_TRACKING_PASSWORD"]

        assert run_scope.verify(self.CREDENTIAL, user, password) == OWN
        assert self.CREDENTIAL.secret not in "".join(issued.values())

    def test_it_is_good_for_no_other_run_and_no_other_stack(self) -> None:
        issued = run_scope.issue(self.CREDENTIAL, OWN)
        user, password = issued["MLFLOW_TRACKING_USERNAME"], issued["MLFLOW_TRACKING_PASSWORD"]

        assert run_scope.verify(self.CREDENTIAL, f"run-{OTHER}", password) is None
        assert run_scope.verify(Credential("another"), user, password) is None
        assert run_scope.verify(self.CREDENTIAL, user, "") is None
        assert run_scope.verify(self.CREDENTIAL, user, "\u00e4") is None
        assert run_scope.verify(self.CREDENTIAL, "modelyard", "the-owners") is None

    def test_a_process_without_a_credential_gives_none(self) -> None:
        assert run_scope.from_environment({}, OWN) == {}
        held = self.CREDENTIAL.environment()
        assert run_scope.from_environment(held, OWN) == run_scope.issue(self.CREDENTIAL, OWN)


@pytest.mark.parametrize(
    ("request_", "claims"),
    [
        (get(f"{API}/runs/get", ("run_id", OWN)), [_RUN]),
        (get(f"{API}/runs/get", ("run_uuid", OWN), ("run_id", OWN)), [_RUN, _RUN]),
        (get("/ajax-api/2.0/mlflow/runs/get", ("run_id", OWN)), [_RUN]),
        (get("/api/3.0/mlflow/server-info"), []),
        (get("/version"), []),
        (post(f"{API}/runs/update", {"run_id": OWN, "status": "FINISHED"}), [_RUN]),
        (post(f"{API}/runs/log-metric", {"run_uuid": OWN, "key": "loss"}), [_RUN]),
        (post(f"{API}/runs/log-metric", {"run_id": OWN, "model_id": MODEL}), [_RUN, _MODEL]),
        (post(f"{API}/runs/set-tag", {"run_id": OWN, "key": "colour"}), [_RUN]),
        (post(f"{API}/runs/log-batch",
              {"run_id": OWN, "metrics": [{"key": "a", "model_id": MODEL}], "params": [],
               "tags": [{"key": "colour", "value": "blue"}]}), [_RUN, _MODEL]),
        (post(f"{API}/runs/outputs", {"run_id": OWN, "models": [{"model_id": MODEL}]}),
         [_RUN, _MODEL]),
        (post(f"{API}/runs/create",
              {"experiment_id": "7", "tags": [PARENT, {"key": "mlflow.user", "value": "me"}]}),
         [_EXPERIMENT, Claim(ClaimKind.PARENT, OWN)]),
        (get(f"{API}/experiments/get", ("experiment_id", "7")), [_EXPERIMENT]),
        (get(f"{API}/experiments/get-by-name", ("experiment_name", "x")),
         [Claim(ClaimKind.EXPERIMENT_NAME, "x")]),
        (post(f"{API}/logged-models", {"experiment_id": "7", "source_run_id": OWN}),
         [_RUN, _EXPERIMENT]),
        (post(f"{API}/logged-models/search", {"experiment_ids": ["7"]}), [_EXPERIMENT]),
        (post(f"{API}/logged-models/search", {"experimentIds": ["7", "7"]}), [_EXPERIMENT] * 2),
        (get(f"{API}/logged-models/{MODEL}"), [_MODEL]),
        (post(f"{API}/logged-models/{MODEL}", {"model_id": MODEL}, "PATCH"), [_MODEL]),
        (post(f"{API}/logged-models/{MODEL}/tags", {"tags": []}, "PATCH"), [_MODEL]),
        (get(f"{ARTIFACTS}/artifacts", ("path", f"7/{OWN}/artifacts/plots")),
         [_EXPERIMENT, _RUN]),
        (MlflowRequest("PUT", f"{ARTIFACTS}/artifacts/7/{OWN}/artifacts/a/b.txt"),
         [_EXPERIMENT, _RUN]),
        (get(f"{ARTIFACTS}/artifacts/7/models/{MODEL}/artifacts/MLmodel"), [_EXPERIMENT, _MODEL]),
        (post(f"{ARTIFACTS}/mpu/create/7/{OWN}/artifacts/a", {"path": "/tmp/big", "num_parts": 2}),
         [_EXPERIMENT, _RUN]),
    ],
)  # fmt: skip
def test_a_request_claims_what_it_is_about(request_: MlflowRequest, claims: list[Claim]) -> None:
    assert run_scope.claims(request_) == claims


@pytest.mark.parametrize(
    "request_",
    [
        get(f"{API}/runs/get", ("run_id", OWN), ("run_id", OTHER)),
        get(f"{API}/runs/get", ("run_id", OWN), ("run_uuid", OTHER)),
        post(f"{API}/runs/update", {"run_id": OWN, "runId": OTHER}),
        post(f"{API}/runs/update", {"run_id": OWN, "run_uuid": OTHER}),
        post(f"{API}/runs/update", {"runUuid": OTHER}),
        post(f"{API}/runs/update", json.dumps({"run_id": OTHER})),
        post(f"{API}/runs/log-batch", {"run_id": OWN, "metrics": [{"key": "a", "runId": OTHER}]}),
    ],
)
def test_every_way_to_name_another_run_is_seen(request_: MlflowRequest) -> None:
    assert _OTHER in run_scope.claims(request_)


def test_every_way_to_name_another_model_is_seen() -> None:
    told = {"run_id": OWN, "metrics": [{"key": "a", "modelId": FOREIGN_MODEL}]}
    assert Claim(ClaimKind.MODEL, FOREIGN_MODEL) in run_scope.claims(
        post(f"{API}/runs/log-batch", told)
    )


@pytest.mark.parametrize(
    "request_",
    [
        post(f"{API}/runs/search", {"experiment_ids": ["7"]}),
        post(f"{API}/runs/delete", {"run_id": OWN}),
        post(f"{API}/runs/restore", {"run_id": OWN}),
        post(f"{API}/experiments/create", {"name": "x"}),
        post(f"{API}/experiments/delete", {"experiment_id": "7"}),
        get(f"{API}/experiments/search"),
        post(f"{API}/registered-models/create", {"name": "x"}),
        post(f"{API}/model-versions/create", {"name": "x", "run_id": OWN}),
        get(f"{API}/registered-models/alias", ("name", "x"), ("alias", "y")),
        post(f"{API}/logged-models/{MODEL}", {}, "DELETE"),
        post("/api/3.0/mlflow/traces", {}),
        post("/graphql", {"query": "{}"}),
        get("/get-artifact", ("run_id", OWN), ("path", "x")),
        get("/ajax-api/2.0/mlflow/metrics/get-history-bulk", ("run_id", OWN)),
        get("/"),
        get("/api/2.0/mlflow/runs/get/", ("run_id", OWN)),
        get("/api/2.0/mlflow//runs/get", ("run_id", OWN)),
        get("/api/2.0/mlflow/../mlflow/runs/get", ("run_id", OWN)),
        MlflowRequest("HEAD", f"{API}/runs/get", (("run_id", OWN),)),
        # nothing is named, or not plainly
        get(f"{API}/runs/get"),
        MlflowRequest("GET", f"{API}/runs/get", body=json.dumps({"run_id": OWN}).encode()),
        post(f"{API}/runs/update", {}),
        post(f"{API}/runs/update", {"run_id": [OWN]}),
        post(f"{API}/runs/update", [OWN]),
        MlflowRequest("POST", f"{API}/runs/update", (("run_id", OWN),), b""),
        MlflowRequest("POST", f"{API}/runs/update", body=b"{"),
        MlflowRequest("POST", f"{API}/runs/update", body=b"[" * 100_000),
        post(f"{API}/logged-models", {"experiment_id": "7"}),
        post(f"{API}/runs/create", {"experiment_id": "7"}),
        post(f"{API}/runs/create", {"experiment_id": "7", "tags": "none"}),
        post(f"{API}/runs/outputs",
             {"run_id": OWN, "models": [{"modelId": FOREIGN_MODEL, "model_id": MODEL}]}),
        # what belongs together is the platform's to say
        post(f"{API}/runs/set-tag", {"run_id": OWN, "key": "mlflow.parentRunId", "value": OTHER}),
        post(f"{API}/runs/set-tag", {"run_id": OWN, "key": "modelyard.flow_run_id"}),
        post(f"{API}/runs/delete-tag", {"run_id": OWN, "key": "modelyard.kind"}),
        post(f"{API}/runs/log-batch", {"run_id": OWN, "tags": [{"key": "modelyard.kind"}]}),
        post(f"{API}/runs/create",
             {"experiment_id": "7", "tags": [PARENT, {"key": "modelyard.trial"}]}),
        # paths
        get(f"{ARTIFACTS}/artifacts"),
        get(f"{ARTIFACTS}/artifacts/", ("path", f"7/{OWN}/artifacts")),
        get(f"{ARTIFACTS}/artifacts", ("path", "")),
        get(f"{ARTIFACTS}/artifacts", ("path", f"7/{OWN}")),
        get(f"{ARTIFACTS}/artifacts/7/{OWN}/artifacts/../../{OTHER}/artifacts/x"),
        get(f"{ARTIFACTS}/artifacts/7/{OWN}/artifacts/%2e%2e/x"),
        get(f"{ARTIFACTS}/artifacts/7/{OWN}/artifacts/..\\x"),
        get(f"{ARTIFACTS}/artifacts/7/{OWN}/artifactsx/y"),
        get(f"{ARTIFACTS}/artifacts//7/{OWN}/artifacts/y"),
        get(f"{ARTIFACTS}/artifacts/7/x/../{OWN}/artifacts/y"),
        post(f"{ARTIFACTS}/mpu/create/7/{OWN}/artifacts", {"path": "x/.."}),
        post(f"{ARTIFACTS}/mpu/create/7/{OWN}/artifacts", {}),
        MlflowRequest("POST", f"{ARTIFACTS}/artifacts/7/{OWN}/artifacts/y"),
    ],
)  # fmt: skip
def test_what_is_not_the_runs_is_not_in_its_scope(request_: MlflowRequest) -> None:
    with pytest.raises(NotInScopeError):
        run_scope.claims(request_)


def test_only_what_is_uploaded_is_not_looked_at() -> None:
    assert run_scope.takes_content("PUT", f"{ARTIFACTS}/artifacts/7/{OWN}/artifacts/x")
    assert not run_scope.takes_content("POST", f"{ARTIFACTS}/mpu/create/7/{OWN}/artifacts")
    assert not run_scope.takes_content("PUT", f"{API}/runs/update")


def test_a_search_for_models_finds_those_of_the_run() -> None:
    path, own = f"{API}/logged-models/search", f"source_run_id = '{OWN}'"
    whole = post(path, {"experiment_ids": ["7"], "max_results": 3})
    some = post(path, {"experiment_ids": ["7"], "filter": "name = 'm'"})

    narrowed = [json.loads(run_scope.narrow(one, OWN) or b"") for one in (whole, some)]

    assert narrowed[0] == {"experiment_ids": ["7"], "max_results": 3, "filter": own}
    assert narrowed[1]["filter"] == f"{own} AND name = 'm'"
    assert run_scope.narrow(post(f"{API}/runs/update", {"run_id": OWN}), OWN) is None
