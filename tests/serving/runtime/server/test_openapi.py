"""The server's description of itself: it is valid, and true of every answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelyard_runtime.models.base import Model
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.served_models import ServedModels
from openapi_spec_validator import validate

from tests.serving.runtime.server import served, test_fuzz
from tests.serving.runtime.server.test_fuzz import Ask, as_json, asker, fuzz, loop

__all__ = ["loop"]  # a fixture

NAMES = ["iris", "echo", "boom", "odd one/é"]


class Table(Model):
    """Two features, of which one is a text."""

    @property
    def inputs(self) -> Any:
        return [("a", "INT32", (-1,)), ("b", "BYTES", (-1,))]

    def infer(self, inputs: Any) -> Any:
        return {"prediction": inputs["a"]}


@pytest.fixture(scope="module")
def ask(loop: Any, iris: Any) -> Iterator[Ask]:
    models = [
        served.hosted("iris", iris), served.hosted("echo", dict),
        served.hosted("boom", served.boom), served.hosted("odd one/é", Table()),
    ]  # fmt: skip
    for one in models:
        loop.run_until_complete(one.load())
    yield asker(loop, Application(ServedModels(models)))
    for one in models:
        one.close()


@pytest.fixture(scope="module")
def description(ask: Ask) -> Any:
    status, _, body = ask("/openapi.json", b"", method="GET")
    assert status == 200
    return json.loads(body)


def check(description: Any, operation: Any, found: tuple[int, dict[str, str], bytes]) -> None:
    """An answer that is one of those of its operation."""
    status, headers, body = found
    responses = operation["responses"]
    response = responses.get(str(status)) or responses[f"{status // 100}XX"]
    if headers["content-type"] == "application/octet-stream":
        body = body[: int(headers["inference-header-content-length"])]
    schema = response["content"]["application/json"]["schema"]
    root = {"components": description["components"], **schema}
    jsonschema.Draft202012Validator(root).validate(json.loads(body))


def test_it_is_openapi_and_has_every_model(description: Any) -> None:
    validate(description)
    assert len(description["paths"]) == 4 + len(NAMES) * 8


def test_every_path_is_answered_as_it_says(ask: Ask, description: Any) -> None:
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {"content": {"application/json": {}}})
            example = body["content"]["application/json"].get("example", {"inputs": 1})
            found = ask(path, as_json(example), method=method.upper())
            check(description, operation, found)
            assert found[0] == 200 or method == "post", path
            other = ask(path, b"", method="POST" if method == "get" else "GET")
            assert other[0] == 405


@pytest.mark.parametrize("name", ["iris", "odd%20one%2F%C3%A9"])
def test_examples_are_answered(ask: Ask, description: Any, name: str) -> None:
    paths = [path for path in description["paths"] if name in path and path[-1] in "rt"]
    asked = 0
    for path in paths:
        content = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        if "example" in content:
            assert ask(path, as_json(content["example"]))[0] == 200, path
            asked += 1
    assert asked == (3 if name == "iris" else 2)


@fuzz
@given(
    request_=test_fuzz.requests | st.builds(dict, instances=test_fuzz.values),
    path=st.sampled_from(["/v2/models/iris/infer", "/v2/models/echo/versions/1/infer",
                          "/v2/models/boom/infer", "/v1/models/echo:predict",
                          "/v1/models/iris:predict"]),
)  # fmt: skip
def test_every_answer_is_as_it_says(ask: Ask, description: Any, request_: Any, path: str) -> None:
    found = ask(path, as_json(request_))
    check(description, description["paths"][path]["post"], found)
    assert found[0] < 500 or "boom" in path
