"""What a server says of a model while it starts, loads, serves, or never will."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from serving.server_http import ServedModel, open_client
from serving.server_readiness import (
    ModelUnservedError,
    ServerProtocol,
    ServerReadiness,
    observe,
)
from tests.tasks.batch_inference.model_server import ModelServer

Answers = Mapping[str, tuple[int, Any]]

# As Triton 2.51 answers.
TRITON = (200, {"name": "triton", "extensions": ["model_repository", "binary_tensor_data"]})
UNKNOWN = (404, {"error": "Request for unknown model: 'm' is not found"})
NO_VERSION = (404, {"error": "Request for unknown model: 'm' has no available versions"})
NOT_READY = (400, {"error": "Model version not ready"})
DESCRIBED = (200, {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]})
OTHER = {"name": "other", "version": "1", "state": "READY"}


def _observe(answers: Answers, name: str = "") -> ServerReadiness:
    server = ModelServer({path: lambda _, found=found: found for path, found in answers.items()})
    with server.running():
        served = ServedModel(server.url, "m", name)
        with open_client(served) as client:
            return observe(client, served)


def _triton(index: list[dict[str, str]], **more: tuple[int, Any]) -> Answers:
    return {
        "GET /v2": TRITON, "GET /v2/models/m": NO_VERSION, "GET /v2/models/m/ready": NOT_READY,
        "GET /v2/health/ready": (400, b""), "POST /v2/repository/index": (200, index), **more,
    }  # fmt: skip


@pytest.mark.parametrize("state", ["LOADING", "UNLOADING", "READY"])
def test_a_model_that_triton_loads_is_awaited(state: str) -> None:
    found = _observe(_triton([OTHER, {"name": "m", "version": "1", "state": state}]))

    assert not found.is_ready
    assert found.reason == "it loads its model 'm'"


@pytest.mark.parametrize("status", [400, 404])
def test_a_model_that_triton_has_not_is_missing_at_once(status: int) -> None:
    answers = {**_triton([OTHER]), "GET /v2/models/m": (status, UNKNOWN[1])}
    with pytest.raises(ModelUnservedError, match="has no model 'm': give its name"):
        _observe(answers)


def test_a_model_that_triton_could_not_load_is_given_up() -> None:
    failed = {"name": "m", "version": "1", "state": "UNAVAILABLE", "reason": "no such backend"}
    with pytest.raises(ModelUnservedError, match="could not load its model 'm': no such backend"):
        _observe(_triton([failed]))


def test_a_model_that_nobody_has_asked_triton_to_load_is_given_up() -> None:
    answers = {**_triton([{"name": "m"}]), "GET /v2/health/ready": (200, b"")}
    with pytest.raises(ModelUnservedError, match="has not loaded its model 'm'"):
        _observe(answers)


def test_a_model_without_a_state_is_awaited_while_the_server_is_not_ready() -> None:
    assert _observe(_triton([{"name": "m"}])).reason == "it is not ready"


@pytest.mark.parametrize("status", [400, 503])
def test_without_an_index_the_server_s_readiness_tells(status: int) -> None:
    """As of MLServer and of KServe."""
    answers: dict[str, tuple[int, Any]] = {
        "GET /v2": (200, {"name": "m", "extensions": []}), "GET /v2/models/m": (404, {}),
        "GET /v2/health/ready": (status, {}),
    }  # fmt: skip
    assert _observe(answers).reason == "it is not ready"

    for ready in ((200, {}), (404, {})):
        with pytest.raises(ModelUnservedError, match="has no model 'm'"):
            _observe({**answers, "GET /v2/health/ready": ready})


@pytest.mark.parametrize("ready", [NOT_READY, (503, {"error": "Model version not ready"})])
def test_a_model_that_is_described_may_not_be_ready(ready: tuple[int, Any]) -> None:
    answers = {"GET /v2": TRITON, "GET /v2/models/m": DESCRIBED, "GET /v2/models/m/ready": ready}

    assert _observe(answers).reason == "its model 'm' is not ready: Model version not ready"


def test_a_model_that_is_ready() -> None:
    answers = {
        "GET /v2": TRITON, "GET /v2/models/m": DESCRIBED, "GET /v2/models/m/ready": (200, b"")
    }  # fmt: skip
    found = _observe(answers)

    assert (found.protocol, found.name) == (ServerProtocol.OPEN_INFERENCE, "m")
    assert found.description == DESCRIBED[1]
    assert found.extensions == {"model_repository", "binary_tensor_data"}


def test_a_model_of_openai_s_protocol() -> None:
    listed = {"GET /v1/models": (200, {"data": [{"id": "a"}, {"id": "b"}]})}

    assert _observe(listed).name == "a"
    assert _observe(listed, "b").name == "b"
    with pytest.raises(ModelUnservedError, match="has the models a, b: name one"):
        _observe(listed, "c")


def test_a_server_that_starts_is_awaited() -> None:
    assert _observe({"GET /v2": (503, {})}).reason == "it answers 503"
    served = ServedModel("http://127.0.0.1:9", "m")
    with open_client(served) as client:
        assert observe(client, served).reason.startswith("it cannot be reached")


@pytest.mark.parametrize(
    "answers",
    [
        {"GET /v2": (200, [])},
        {"GET /v2": TRITON, "GET /v2/models/m": (404, {}), "POST /v2/repository/index": (200, 1)},
        {"GET /v1/models": (200, {"data": [{}]})},
    ],
)
def test_what_is_no_answer_is_told(answers: Answers) -> None:
    with pytest.raises(ModelUnservedError, match="no answer"):
        _observe(answers)


def test_a_model_that_is_loaded_while_the_server_is_asked_is_not_missing() -> None:
    described = [(404, {"error": "unknown"}), DESCRIBED]
    server = ModelServer({
        "GET /v2": lambda _: (200, {}), "GET /v2/health/ready": lambda _: (200, b""),
        "GET /v2/models/m": lambda _: described.pop(0),
    })  # fmt: skip
    with server.running():
        served = ServedModel(server.url, "m")
        with open_client(served) as client:
            assert observe(client, served).reason == "it has only now loaded the model"
