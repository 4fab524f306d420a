"""Provided algorithms: each is a deployment of train whose form has its own hyperparameters."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import PrefectClient

from flows import catalogue
from flows.training import train
from tasks import provided
from tasks.provided import Hyperparameter, ProvidedAlgorithm

_TYPES = {"int": "integer", "double": "number", "bool": "boolean", "string": "string"}


async def register_all(client: PrefectClient) -> list[str]:
    """Register a deployment for each provided algorithm; the deployments."""
    return [await _register(client, provided.load(name)) for name in provided.names()]


async def _register(client: PrefectClient, algorithm: ProvidedAlgorithm) -> str:
    return await catalogue.register(
        client, train, algorithm.name, form(algorithm), description=algorithm.description,
        tags=("algorithm",), parameters={"algorithm": {"provided": algorithm.name}},
    )  # fmt: skip


def form(algorithm: ProvidedAlgorithm) -> dict[str, Any]:
    """The schema of an algorithm's form: that of train, with the algorithm's own fields."""
    schema = train.form
    fields, groups = schema["properties"], schema["definitions"]
    only = {"provided": {"type": "string", "enum": [algorithm.name], "default": algorithm.name}}
    fields["algorithm"] |= {
        "$ref": "#/definitions/Algorithm", "default": {"provided": algorithm.name},
        "description": f"{algorithm.title}. {algorithm.description}",
    }  # fmt: skip
    groups["Algorithm"] |= {"properties": _placed(only)}
    fields["hyperparameters"] = {
        **_hyperparameters(algorithm),
        "title": "hyperparameters",
        "position": fields["hyperparameters"]["position"],
        "description": "The algorithm's own settings.",
    }
    required = {
        "hyperparameters": bool(fields["hyperparameters"]["required"]),
        "datasets": any(slot.required for slot in algorithm.datasets),
    }
    schema["required"] = [*schema.get("required", []), *(one for one in required if required[one])]
    groups["Dataset"]["properties"]["name"]["enum"] = [slot.name for slot in algorithm.datasets]
    fields["datasets"]["description"] = " ".join(
        f"{slot.name} ({'required' if slot.required else 'optional'}): {slot.description}"
        for slot in algorithm.datasets
    )
    return schema


def _hyperparameters(algorithm: ProvidedAlgorithm) -> dict[str, Any]:
    """The group of hyperparameters, the required ones first; all of them begin empty.

    What is in a field was chosen, and wins over a template's value.
    """
    required = [one for one in algorithm.hyperparameters if one.default is None]
    others = [one for one in algorithm.hyperparameters if one.default is not None]
    return {
        "type": "object",
        "properties": _placed({
            one.name: {"title": one.name, **_field(one)} for one in (*required, *others)
        }),
        "required": [one.name for one in required],
        "additionalProperties": False,
    }  # fmt: skip


def _field(one: Hyperparameter) -> dict[str, Any]:
    default = "required" if one.default is None else f"{one.default} if empty"
    bounds = {
        "exclusiveMinimum" if one.min_excluded else "minimum": one.min,
        "exclusiveMaximum" if one.max_excluded else "maximum": one.max,
    }
    return {
        **({"enum": list(one.values)} if one.values else {"type": _TYPES[one.type]}),
        **{bound: value for bound, value in bounds.items() if value is not None},
        "description": f"{one.description} ({one.allowed}; {default})",
    }


def _placed(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {**field, "position": position}
        for position, (name, field) in enumerate(fields.items())
    }
