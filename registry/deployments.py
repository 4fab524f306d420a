"""Prefect's deployments: ours, and any other flow that a pool can run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from infra.errors import BadInputError, NotFoundError
from infra.parameter_faults import describe_value
from infra.prefect_client import prefect_client
from infra.suggestions import did_you_mean
from registry import flow_kinds
from registry.pipelines import pipelines

_MOST_NAMED = 5
_LONGEST = 200
_PAGE = 200
# JSON's types in words; a truth value is an int to Python.
_TYPES = {
    "boolean": "a boolean", "integer": "a whole number", "number": "a number",
    "string": "a string", "array": "a list", "object": "a mapping",
}  # fmt: skip

_PATH = re.compile(r"[^/%&<>?#]+/[^/%&<>?#]+")  # what Prefect can be asked for


def read(client: SyncPrefectClient, deployment: str) -> DeploymentResponse:
    """A deployment.

    Args:
        client: Prefect's.
        deployment: Its name, which is its flow's as well; or what an uploaded pipeline is referred
            to as; or else ``flow/deployment``.

    Raises:
        NotFoundError: If it is not registered, or nothing can be called so.
    """
    path = deployment if "/" in deployment else f"{deployment}/{deployment}"
    if not _PATH.fullmatch(path) or not path.isprintable():
        raise NotFoundError(
            f"There is no deployment {deployment[:60]!r}.",
            "Give a flow, such as train, the name of a pipeline, or flow/deployment.",
        )
    try:
        return client.read_deployment_by_name(path)
    except ObjectNotFound as error:
        if "/" not in deployment and (pipeline := _pipeline(deployment)):
            return read(client, pipeline)
        flows = sorted(kind.name for kind in flow_kinds.ALL)
        if deployment in flows:
            raise NotFoundError(
                f"The flow {deployment} is not registered.", "Register it: modelyard deploy."
            ) from error
        raise NotFoundError(
            f"There is no flow and no pipeline {deployment!r}.",
            f"{did_you_mean(deployment, flows)} Flows are: {', '.join(flows)}. See pipelines: "
            "modelyard pipeline list.".lstrip(),
        ) from error


def _pipeline(reference: str) -> str:
    """The deployment of an uploaded pipeline, as ``flow/deployment``; "" if there is none."""
    try:
        return pipelines.find(reference).deployment
    except NotFoundError:
        return ""


def active_runs(path: str) -> list[str]:
    """Return names of a deployment's active or waiting runs; none if it does not exist."""
    flow, _, name = path.partition("/")
    ended = FlowRunFilterStateType(not_any_=list(TERMINAL_STATES))
    with prefect_client() as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=ended)),
            sort=FlowRunSort.ID_DESC,
            limit=_PAGE,
        )
    return [run.name for run in found]


def remove(path: str) -> None:
    """Have Prefect forget a deployment, if it is there."""
    with prefect_client() as client, contextlib.suppress(ObjectNotFound):
        found = client.read_deployment_by_name(path)
        client.delete_deployment(found.id)


def check(deployment: str) -> None:
    """Refuse a deployment that is not there.

    Raises:
        NotFoundError: If it is not registered.
    """
    with prefect_client() as client:
        read(client, deployment)


def check_parameters(deployment: str, given: Mapping[str, Any]) -> None:
    """Refuse parameters that Prefect would refuse of a run.

    Args:
        deployment: As for :func:`read`.
        given: The parameters; those that are not named have the deployment's own values.

    Raises:
        NotFoundError: If the deployment is not registered.
        BadInputError: With the code ``ParameterInvalid``.
    """
    with prefect_client() as client:
        found = read(client, deployment)
    if not found.enforce_parameter_schema or not found.parameter_openapi_schema:
        return
    complete = {**found.parameters, **given}
    from prefect.utilities.schema_tools.validation import validate  # noqa: PLC0415 (takes long)

    errors = validate(complete, found.parameter_openapi_schema, allow_none_with_default=True)
    if errors:
        # Of a field only what is wrong with it, and never its value, which may be a secret.
        wrong = "; ".join(_told(error) for error in errors[:_MOST_NAMED])
        raise BadInputError(
            f"Invalid parameters of {deployment}: {wrong}.", "Fix the values: -p key=value.",
            code="ParameterInvalid",
        )  # fmt: skip


def _told(error: Any) -> str:
    if error.validator in {"required", "additionalProperties"}:
        return str(error.message)
    place = f"`{'.'.join(map(str, error.absolute_path))}`"
    if error.validator in {"type", "anyOf", "oneOf"}:
        kinds = [error.schema] if error.validator == "type" else error.validator_value
        expected = [_TYPES[one["type"]] for one in kinds if one.get("type") in _TYPES]
        wanted = f"expected {' or '.join(expected)}" if expected else "not of a type that it takes"
        return f"{place}: {wanted}, got {describe_value(error.instance)}"[:_LONGEST]
    rule = f"{error.validator} {error.validator_value}"
    return f"{place}: {describe_value(error.instance)} breaks the rule {rule}"[:_LONGEST]
