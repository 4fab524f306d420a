"""Scope of a script's credential: the script's own MLflow run.

A script is given a credential that is derived from the owner's and from the run's id, so nothing
has to be stored. With it MLflow's client may read and write that run, the runs nested in it, the
models that they log, and the artifacts of all of these. All rules are pure: a request makes claims
about objects, which ``run_scope_guard`` checks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from infra.door.credential import MLFLOW_PASSWORD, MLFLOW_USER, Credential

PARENT_TAG = "mlflow.parentRunId"

_PURPOSE = "mlflow run"
_USER = re.compile(r"run-([0-9a-f]{32})")
_API = re.compile(r"/(?:ajax-)?api/\d\.0/(mlflow(?:-artifacts)?/.+)")
_ARTIFACT = re.compile(
    r"(?P<experiment>\d+)/(?:(?P<run>[0-9a-f]{32})|models/(?P<model>m-[0-9a-f]{32}))/artifacts"
    r"(?:/.*)?"
)
# Tags by which the platform relates runs. Only the owner may set them.
_PLATFORM_TAGS = ("modelyard.", PARENT_TAG)


class NotInScopeError(Exception):
    """The request is outside the scope of a script's credential."""


class ClaimKind(Enum):
    """Kind of object of a claim."""

    RUN = "run"
    PARENT = "parent"  # a run that is to have a nested one
    EXPERIMENT = "experiment"
    EXPERIMENT_NAME = "experiment name"
    MODEL = "model"


class Claim(NamedTuple):
    """MLflow object that a request accesses, and that must belong to the run."""

    kind: ClaimKind
    id: str


@dataclass(frozen=True)
class MlflowRequest:
    """A request to MLflow's server.

    Attributes:
        method: Its HTTP method.
        path: Its path, decoded.
        query: The parameters of its query, in order.
        body: Its body; None if it was not read, because it is an artifact's content.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: bytes | None = None


def issue(credential: Credential, run_id: str) -> dict[str, str]:
    """Build the variables that give MLflow's client a run's credential."""
    return {MLFLOW_USER: f"run-{run_id}", MLFLOW_PASSWORD: _password(credential, run_id)}


def from_environment(environment: Mapping[str, str], run_id: str) -> dict[str, str]:
    """Derive a script's variables from this process's credential; none without one."""
    secret = environment.get(MLFLOW_PASSWORD, "")
    return issue(Credential(secret), run_id) if secret else {}


def verify(credential: Credential, user: str, password: str) -> str | None:
    """Return the id of the run that a credential belongs to; None for others."""
    match = _USER.fullmatch(user)
    if match is None:
        return None
    wanted = _password(credential, match[1])
    return match[1] if hmac.compare_digest(password.encode(), wanted.encode()) else None


def _password(credential: Credential, run_id: str) -> str:
    digest = hmac.digest(credential.key(_PURPOSE), run_id.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class _Rule(NamedTuple):
    """Fields that a request to an endpoint must name, of MLflow's REST API.

    Attributes:
        runs: Fields of which one or more hold the run's id.
        experiment: The field that holds the experiment's id; "" if there is none.
        fields: Further fields that may hold objects: see ``_FIELDS``.
    """

    runs: tuple[str, ...] = ()
    experiment: str = ""
    fields: tuple[str, ...] = ()


_OF_RUN = _Rule(runs=("run_id", "run_uuid"))
_OF_MODEL = _Rule()  # the id is in the path
_OPEN = _Rule()

_ENDPOINTS: Mapping[tuple[str, str], _Rule] = {
    ("GET", "mlflow/server-info"): _OPEN,
    ("GET", "mlflow/runs/get"): _OF_RUN,
    ("POST", "mlflow/runs/update"): _OF_RUN,
    ("POST", "mlflow/runs/create"): _Rule(experiment="experiment_id", fields=("nested",)),
    ("POST", "mlflow/runs/log-metric"): _OF_RUN._replace(fields=("model_id",)),
    ("POST", "mlflow/runs/log-parameter"): _OF_RUN,
    ("POST", "mlflow/runs/log-batch"): _OF_RUN._replace(fields=("tags", "metrics")),
    ("POST", "mlflow/runs/log-model"): _OF_RUN,
    ("POST", "mlflow/runs/log-inputs"): _OF_RUN,
    ("POST", "mlflow/runs/outputs"): _OF_RUN._replace(fields=("models",)),
    ("POST", "mlflow/runs/set-tag"): _OF_RUN._replace(fields=("key",)),
    ("POST", "mlflow/runs/delete-tag"): _OF_RUN._replace(fields=("key",)),
    ("GET", "mlflow/metrics/get-history"): _OF_RUN,
    ("GET", "mlflow/artifacts/list"): _OF_RUN,
    ("GET", "mlflow/experiments/get"): _Rule(experiment="experiment_id"),
    ("GET", "mlflow/experiments/get-by-name"): _Rule(fields=("experiment_name",)),
    ("POST", "mlflow/logged-models"): _Rule(("source_run_id",), "experiment_id"),
    ("POST", "mlflow/logged-models/search"): _Rule(fields=("experiment_ids",)),
    ("GET", "mlflow/logged-models/{model}"): _OF_MODEL,
    ("PATCH", "mlflow/logged-models/{model}"): _OF_MODEL,
    ("POST", "mlflow/logged-models/{model}/params"): _OF_MODEL,
    ("PATCH", "mlflow/logged-models/{model}/tags"): _OF_MODEL,
    ("GET", "mlflow/logged-models/{model}/artifacts/directories"): _OF_MODEL,
}
_ARTIFACT_ROUTES: Mapping[str, frozenset[str]] = {
    "artifacts/": frozenset({"GET", "PUT", "DELETE"}),
    "presigned/": frozenset({"GET"}),
    "mpu/create/": frozenset({"POST"}),
    "mpu/complete/": frozenset({"POST"}),
    "mpu/abort/": frozenset({"POST"}),
}
_PUBLIC = {("GET", "/health"), ("GET", "/version")}
_MODEL_PATH = re.compile(r"(mlflow/logged-models/)(m-[0-9a-f]{32})((?:/.*)?)")


def takes_content(method: str, path: str) -> bool:
    """Whether the body is an artifact's content, which is not inspected."""
    match = _API.fullmatch(path)
    return method == "PUT" and match is not None and match[1].startswith("mlflow-artifacts/")


def narrow(request: MlflowRequest, run_id: str) -> bytes | None:
    """Restrict a search for models to those of the run; None for other requests.

    The conditions of MLflow's filters are joined by AND alone, so none can widen it again.
    """
    match = _API.fullmatch(request.path)
    if (request.method, match and match[1]) != ("POST", "mlflow/logged-models/search"):
        return None
    body = dict(_parse(request.body))
    own = f"source_run_id = '{run_id}'"
    given = body.get("filter")
    return json.dumps({**body, "filter": f"{own} AND {given}" if given else own}).encode()


def claims(request: MlflowRequest) -> list[Claim]:
    """List the objects that a request accesses.

    Raises:
        NotInScopeError: If no script's credential opens this endpoint, or the request does not
            say plainly what it is about.
    """
    if (request.method, request.path) in _PUBLIC:
        return []
    match = _API.fullmatch(request.path)
    if match is None:
        raise NotInScopeError
    route = match[1]
    if route.startswith("mlflow-artifacts/"):
        return _of_artifacts(request, route.removeprefix("mlflow-artifacts/"))
    found: list[Claim] = []
    if model := _MODEL_PATH.fullmatch(route):
        route = f"{model[1]}{{model}}{model[3]}"
        found.append(Claim(ClaimKind.MODEL, model[2]))
    rule = _ENDPOINTS.get((request.method, route))
    if rule is None:
        raise NotInScopeError
    values = _Values(request)
    if rule.runs:
        found += [Claim(ClaimKind.RUN, one) for one in values.required(*rule.runs)]
    if rule.experiment:
        found += [Claim(ClaimKind.EXPERIMENT, one) for one in values.required(rule.experiment)]
    for field in rule.fields:
        found += _FIELDS[field](values)
    return found


def _of_artifacts(request: MlflowRequest, route: str) -> list[Claim]:
    """List the claims of a request to the artifact proxy: paths of a run or a model."""
    if (request.method, route) == ("GET", "artifacts"):
        paths = _Values(request).required("path")
    else:
        paths = [_artifact_path(request.method, route)]
    if route.startswith("mpu/"):  # the name of a file that is to be there
        names = _Values(request).required("path")
        paths = [f"{paths[0]}/{name.rpartition('/')[2]}" for name in names]
    return [claim for one in paths for claim in _of_path(one)]


def _artifact_path(method: str, route: str) -> str:
    for prefix, methods in _ARTIFACT_ROUTES.items():
        if method in methods and route.startswith(prefix):
            return route.removeprefix(prefix)
    raise NotInScopeError


def _of_path(path: str) -> list[Claim]:
    match = _ARTIFACT.fullmatch(path)
    plain = path.isprintable() and not set(path) & {"\\", "%"}
    if match is None or not plain or {".", ".."} & set(path.split("/")):
        raise NotInScopeError
    owner = (
        Claim(ClaimKind.RUN, match["run"])
        if match["run"]
        else Claim(ClaimKind.MODEL, match["model"])
    )
    return [Claim(ClaimKind.EXPERIMENT, match["experiment"]), owner]


class _Values:
    """Parameters of a request, as MLflow's server reads them.

    It takes a field by its name and by its name in JSON (``runId``), from the query of a GET or
    else from the body.
    """

    def __init__(self, request: MlflowRequest) -> None:
        if request.method == "GET":
            self._pairs: list[tuple[str, Any]] = [*request.query]
        else:
            self._pairs = [(_field(name), value) for name, value in _parse(request.body).items()]

    def all(self, name: str) -> list[Any]:
        """All values of a field."""
        return [value for key, value in self._pairs if key == name]

    def required(self, *names: str) -> list[str]:
        """The values of fields that mean the same, of which there is at least one."""
        found = [value for name in names for value in self.all(name)]
        if not found or not all(isinstance(one, str) for one in found):
            raise NotInScopeError
        return found

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """The objects of a repeated field."""
        found = [one for value in self.all(name) for one in _listed(value)]
        named: list[Mapping[str, Any]] = [
            {_field(key): value for key, value in one.items()} for one in found
        ]
        if any(len(one) < len(given) for one, given in zip(named, found, strict=True)):
            raise NotInScopeError
        return named


def _parse(body: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(body or b"{}")
        found = json.loads(found) if isinstance(found, str) else found  # older clients quote it
    except (ValueError, RecursionError):
        raise NotInScopeError from None
    if not isinstance(found, dict):
        raise NotInScopeError
    return found


def _listed(value: Any) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise NotInScopeError
    return value


def _field(name: str) -> str:
    """The field's own name of what may be its name in JSON."""
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _named(objects: Iterable[Mapping[str, Any]]) -> list[Claim]:
    """The models and runs that metrics and outputs name."""
    kinds = {"model_id": ClaimKind.MODEL, "run_id": ClaimKind.RUN}
    return [
        Claim(kind, str(one[field]))
        for one in objects
        for field, kind in kinds.items()
        if one.get(field)
    ]


def _own_tags(keys: Iterable[Any]) -> list[Claim]:
    """Nothing to check further.

    Raises:
        NotInScopeError: If a tag is the platform's.
    """
    if any(str(key).startswith(_PLATFORM_TAGS) for key in keys):
        raise NotInScopeError
    return []


def _nested(values: _Values) -> list[Claim]:
    """The parent of a run that is to be made: it has one, and no other tag of the platform."""
    tags = values.objects("tags")
    parents = [one.get("value") for one in tags if one.get("key") == PARENT_TAG]
    if not parents:
        raise NotInScopeError
    _own_tags(one.get("key") for one in tags if one.get("key") != PARENT_TAG)
    return [Claim(ClaimKind.PARENT, str(one)) for one in parents]


# Fields that may hold objects, and how they are found there.
_FIELDS: Mapping[str, Callable[[_Values], list[Claim]]] = {
    "key": lambda values: _own_tags(values.all("key")),
    "tags": lambda values: _own_tags(one.get("key") for one in values.objects("tags")),
    "nested": _nested,
    "metrics": lambda values: _named(values.objects("metrics")),
    "models": lambda values: _named(values.objects("models")),
    "model_id": lambda values: _named({"model_id": one} for one in values.all("model_id")),
    "experiment_ids": lambda values: [
        Claim(ClaimKind.EXPERIMENT, str(one))
        for each in values.all("experiment_ids")
        for one in each
    ],
    "experiment_name": lambda values: [
        Claim(ClaimKind.EXPERIMENT_NAME, one) for one in values.required("experiment_name")
    ],
}
