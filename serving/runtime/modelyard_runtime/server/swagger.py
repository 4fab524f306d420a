"""The description of a scoring script: ``swagger.json``, in the versions that Azure ML has."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard_runtime.server.refusals import RequestRefused
from modelyard_runtime.server.scoring_script import ScoringScript, is_schema_decorated

_ALIASES = {"2": "2", "2.0": "2", "3": "3", "3.0": "3", "3.1": "3.1"}
_WRITTEN = {"2": ("swagger2.json", "swagger.json"), "3": ("swagger3.json",),
            "3.1": ("swagger3.1.json",)}  # fmt: skip
_UNKNOWN = {"type": "object", "example": {}}
_JSON = "application/json"


@dataclass(frozen=True)
class ServiceInfo:
    """What is said of a service in its description.

    Attributes:
        name: Its name.
        version: Its version.
        prefix: The path below which it is reached, such as ``/iris``.
    """

    name: str = "ML service"
    version: str = "1.0"
    prefix: str = ""


def describe(script: ScoringScript, info: ServiceInfo, version: str) -> Any:
    """The description, written by the user beside the script or made of its schemas.

    Args:
        script: A script that is loaded.
        info: What is said of the service.
        version: The version of Swagger or OpenAPI: 2, 3 or 3.1.

    Raises:
        RequestRefused: 404 if there is none in this version.
    """
    if version not in _ALIASES:
        raise RequestRefused(404, f"There is no swagger version {version!r}, but 2, 3 and 3.1.")
    version = _ALIASES[version]
    for name in _WRITTEN[version]:
        file = script.folder / name
        if file.is_file():
            return json.loads(file.read_text("utf-8"))
    received, returned = _schemas(script, version)
    schemas = {
        "ServiceInput": received,
        "ServiceOutput": returned,
        "ErrorResponse": {"type": "object", "properties": {"message": {"type": "string"}}},
    }
    about = {
        "title": info.name,
        "description": f"API specification for the Azure Machine Learning service {info.name}",
        "version": info.version,
    }
    if version == "2":
        return _swagger(about, info.prefix, schemas)
    return _openapi(about, info.prefix, schemas, "3.1.0" if version == "3.1" else "3.0.3")


def _schemas(script: ScoringScript, version: str) -> tuple[Any, Any]:
    if not is_schema_decorated(script.run):
        return _UNKNOWN, _UNKNOWN
    schemas: Any = sys.modules["inference_schema.schema_util"]
    supported = schemas.get_supported_versions(script.run)
    if not {name for name, same in _ALIASES.items() if same == version} & set(supported):
        raise RequestRefused(
            404, f"The schemas of the script have no swagger version {version}, but "
            f"{', '.join(sorted(supported))}.",
        )  # fmt: skip
    return schemas.get_input_schema(script.run), schemas.get_output_schema(script.run)


# (path, method, operation, description)
_ROUTES = (
    ("/", "get", "ServiceHealthCheck", "Simple health check endpoint to ensure the service is up "
     "at any given point."),
    ("/score", "post", "RunMLService", "Run web service's model and get the prediction output"),
    ("/swagger.json", "get", "GetSwaggerSpec", "Get the Swagger specification."),
)  # fmt: skip


def _swagger(about: Any, prefix: str, schemas: Mapping[str, Any]) -> dict[str, Any]:
    def answer(text: str, schema: Any) -> dict[str, Any]:
        return {"description": text, "schema": schema}

    paths = _paths(prefix, "#/definitions/", answer)
    score = paths[f"{prefix}/score"]["post"]
    score["parameters"] = [{
        "name": "serviceInputPayload", "in": "body",
        "description": "The input payload for executing the real-time machine learning service.",
        "schema": {"$ref": "#/definitions/ServiceInput"},
    }]  # fmt: skip
    paths[f"{prefix}/swagger.json"]["get"]["parameters"] = [
        {"name": "version", "in": "query", "required": False, "type": "string"}
    ]
    bearer = {
        "type": "apiKey", "name": "Authorization", "in": "header",
        "description": "For example: Bearer abc123",
    }  # fmt: skip
    return {
        "swagger": "2.0", "info": about, "schemes": ["https"],
        "consumes": [_JSON], "produces": [_JSON],
        "securityDefinitions": {"Bearer": bearer}, "paths": paths, "definitions": schemas,
    }  # fmt: skip


def _openapi(about: Any, prefix: str, schemas: Mapping[str, Any], version: str) -> dict[str, Any]:
    def answer(text: str, schema: Any) -> dict[str, Any]:
        return {"description": text, "content": {_JSON: {"schema": schema}}}

    paths = _paths(prefix, "#/components/schemas/", answer)
    paths[f"{prefix}/score"]["post"]["requestBody"] = answer(
        "The input payload for executing the real-time machine learning service.",
        {"$ref": "#/components/schemas/ServiceInput"},
    )
    paths[f"{prefix}/swagger.json"]["get"]["parameters"] = [
        {"name": "version", "in": "query", "required": False, "schema": {"type": "string"}}
    ]
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": version, "info": about, "security": [{"Bearer": []}], "paths": paths,
        "components": {"securitySchemes": {"Bearer": bearer}, "schemas": schemas},
    }  # fmt: skip


def _paths(prefix: str, schemas: str, answer: Any) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for path, method, operation, text in _ROUTES:
        returned = {"$ref": f"{schemas}ServiceOutput"} if path == "/score" else {"type": "string"}
        failed = {"$ref": f"{schemas}ErrorResponse"}
        secured: dict[str, Any] = {"security": [{"Bearer": []}]} if path == "/score" else {}
        paths[prefix + path] = {method: {
            "operationId": operation, "description": text, **secured,
            "responses": {
                "200": answer("The service processed the request.", returned),
                "default": answer("The service failed to execute due to an error.", failed),
            },
        }}  # fmt: skip
    return paths
