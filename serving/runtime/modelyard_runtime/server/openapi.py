"""The description of a server of models: ``openapi.json``, made of the models' metadata.

It says what the protocols' requests and answers are, and of each model its own tensors. It is
OpenAPI 3.1: https://spec.openapis.org/oas/v3.1.1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from modelyard_runtime import __version__
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.tensors import BRAIN_FLOAT, NUMBERS, TEXT, TensorSpec

_JSON = "application/json"
Schema = Mapping[str, Any]


def describe(models: Iterable[HostedModel]) -> dict[str, Any]:
    """The description of a server of ``models``, as JSON has it."""
    paths: dict[str, Any] = {
        "/v2": {"get": _read("What the server is.", _ref("Server"))},
        "/v2/health/live": {"get": _read("Whether the server lives.", _flag("live"))},
        "/v2/health/ready": {"get": _read("Whether all models are ready.", _flag("ready"))},
        "/v1/models": {"get": _read("Names of the models.", _object({"models": _list(_TEXT)}))},
    }
    for model in models:
        paths |= _model_paths(model)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Modelyard inference server", "version": __version__},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _model_paths(model: HostedModel) -> dict[str, Any]:
    name = quote(model.name, safe="")
    ready = _read("Whether the model is ready.", _ref("ModelReady"))
    infer, predict = _infer(model), _predict(model)
    paths: dict[str, Any] = {
        f"/v1/models/{name}": {"get": ready},
        f"/v1/models/{name}:predict": {"post": predict},
    }
    for path in (
        f"/v2/models/{name}",
        f"/v2/models/{name}/versions/{quote(model.version, safe='')}",
    ):
        paths |= {
            path: {"get": _read("What the model takes and returns.", _ref("Model"))},
            f"{path}/ready": {"get": ready},
            f"{path}/infer": {"post": infer},
        }
    return paths


def _infer(model: HostedModel) -> dict[str, Any]:
    found = _asked(f"Ask {model.name} for tensors.", _ref("InferRequest"), _ref("InferResponse"))
    for one in (found["requestBody"], found["responses"]["200"]):
        one["content"] |= _BINARY
    if tensors := [_example(one) for one in model.inputs]:
        found["requestBody"]["content"][_JSON]["example"] = {"inputs": tensors}
    return found


def _predict(model: HostedModel) -> dict[str, Any]:
    asked = _object({"instances": _list({})})
    found = _asked(
        f"Ask {model.name} for predictions.", asked, _object({"predictions": _list({})})
    )
    examples = [_example(one) for one in model.inputs]
    if len(examples) == 1:
        (only,) = examples
        wide = only["shape"][1:]
        row = only["data"] if wide else only["data"][0]
        if len(wide) <= 1:
            found["requestBody"]["content"][_JSON]["example"] = {"instances": [row]}
    return found


def _example(spec: TensorSpec) -> dict[str, Any]:
    """A tensor of one row, as a request has it."""
    shape = [1 if one == -1 else one for one in spec.shape]
    count = 1
    for one in shape:
        count *= one
    value: Any = "text" if spec.datatype == TEXT else NUMBERS[spec.datatype].type(0).item()
    return {"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": [value] * count}


def _read(summary: str, schema: Schema) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _content("Its answer.", schema), **_REFUSED}}


def _asked(summary: str, request: Schema, response: Schema) -> dict[str, Any]:
    body = {**_content("In JSON.", request), "required": True}
    return {**_read(summary, response), "requestBody": body}


def _content(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    properties = {**required, **optional}
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _flag(name: str) -> Schema:
    return _object({name: {"type": "boolean"}})


_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "minLength": 1}
_REFUSED = {
    "4XX": _content("The request is refused: its mistake.", _ref("Error")),
    "5XX": _content("The server is not ready, or the model failed.", _ref("Error")),
}
_BINARY = {
    "application/octet-stream": {
        "schema": {
            "type": "string", "format": "binary",
            "description": "The JSON, whose length is Inference-Header-Content-Length, and behind "
            "it the bytes of the tensors that have binary_data_size instead of data. An input may "
            f"be {BRAIN_FLOAT} here, which is read as FP32.",
        }
    }
}  # fmt: skip


def _parameters(**known: Schema) -> Schema:
    found = {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "properties": known,
    }
    return {"anyOf": [found, {"type": "null"}]}


_SIZE: Schema = {"type": "integer", "minimum": 0}
_FLAG: Schema = {"type": "boolean"}
_TENSOR: Mapping[str, Schema] = {
    "name": _NAME,
    "shape": _list({"type": "integer", "minimum": 0}, maxItems=32),
    "datatype": {"enum": [*NUMBERS, TEXT]},
}
_METADATA = _list(_object({**_TENSOR, "shape": _list({"type": "integer", "minimum": -1})}))
_SCHEMAS: Mapping[str, Schema] = {
    "Error": _object({"error": _NAME}),
    "Server": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
    "ModelReady": _object({"name": _TEXT, "ready": {"type": "boolean"}}),
    "Model": _object({"name": _TEXT, "versions": _list(_TEXT), "platform": _TEXT,
                      "inputs": _METADATA, "outputs": _METADATA}),
    "InferRequest": _object(
        {"inputs": _list(_ref("InputTensor"), minItems=1)}, id=_or_null(_TEXT),
        parameters=_parameters(binary_data_output=_FLAG),
        outputs=_or_null(_list(_ref("RequestedOutput"))),
    ),
    "InputTensor": _object(
        {**_TENSOR, "data": _list({})}, parameters=_parameters(binary_data_size=_SIZE)
    ),
    "RequestedOutput": _object({"name": _NAME}, parameters=_parameters(binary_data=_FLAG)),
    "InferResponse": _object(
        {"model_name": _TEXT, "model_version": _TEXT, "outputs": _list(_ref("OutputTensor"))},
        id=_TEXT,
    ),
    "OutputTensor": _object(
        _TENSOR, data=_list({}), parameters=_parameters(binary_data_size=_SIZE)
    ),
}  # fmt: skip
