"""Clients of Prefect's and MLflow's REST APIs, for the pages.

Their own clients take seconds and hundreds of megabytes to import.
"""

from __future__ import annotations

import functools
import logging
import os
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from infra import connection, http_status
from infra.connection import Endpoints
from infra.door import credential
from infra.errors import StackError
from infra.mlflow import RegisteredModel, entities
from registry.pipelines import pipeline_nodes
from registry.runs import pending_reasons, statuses
from registry.runs.run_views import RunView

_TIMEOUT_SECONDS = 10.0
_logger = logging.getLogger(__name__)

# From the types of runs' states, by run, to what the waiting ones wait for.
WaitingOf = Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow has it.

    Attributes:
        url: Its page in MLflow's UI.
        description: Its description, which MLflow's UI may have changed.
        experiment: Name of its experiment now.
        experiment_id: The experiment's id.
        experiment_url: The experiment's page in MLflow's UI.
        metrics: The last value of each metric, by name; none of the machine's load.
        tags: Its tags.
    """

    url: str
    description: str
    experiment: str
    experiment_id: str
    experiment_url: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


class Servers:
    """Prefect and MLflow. Thread-safe."""

    def __init__(
        self,
        endpoints: Endpoints,
        transport: httpx.BaseTransport | None = None,
        waiting_of: WaitingOf = pending_reasons.of,
    ) -> None:
        """Connect to the servers.

        Args:
            endpoints: Their addresses.
            transport: The transport of requests; the network by default.
            waiting_of: Returns what runs wait for, as :func:`registry.runs.pending_reasons.of`.
        """
        self._waiting_of = waiting_of
        self._prefect = httpx.Client(
            base_url=endpoints.prefect_api_url, timeout=_TIMEOUT_SECONDS, transport=transport,
            auth=_prefect_auth(),
        )  # fmt: skip
        self._mlflow = httpx.Client(
            base_url=endpoints.mlflow_tracking_uri, timeout=_TIMEOUT_SECONDS, transport=transport,
            auth=_mlflow_auth(),
        )  # fmt: skip
        self._flow = functools.lru_cache(maxsize=256)(self._flow_name)
        self._flow_ids: dict[str, str] = {}

    def runs(
        self, limit: int, flow: str = "", *, types: Collection[str] = (), after: int = 0,
        tag: str = "",
    ) -> list[RunView]:  # fmt: skip
        """Return the newest runs, newest first.

        Args:
            limit: How many at most.
            flow: Only runs of this flow.
            types: Only runs in a state of one of these types; any by default.
            after: How many of the newest ones to leave out.
            tag: Only runs with this tag in Prefect; any by default.

        Raises:
            StackError: If Prefect does not answer.
        """
        body: dict[str, Any] = {
            "sort": "EXPECTED_START_TIME_DESC", "limit": limit, "offset": after,
        }  # fmt: skip
        if types:
            body.update(_in_state(types))
        if tag:
            body.setdefault("flow_runs", {})["tags"] = {"all_": [tag]}
        if flow:
            flow_id = self._flow_ids.get(flow) or self._find_flow(flow)
            if flow_id is None:
                return []
            body["flows"] = {"id": {"any_": [flow_id]}}
        found = self._ask("POST", "/flow_runs/filter", body)
        return self._views(found, self._flow)

    def active_count(self) -> int:
        """Return how many runs have not ended.

        Raises:
            StackError: If Prefect does not answer.
        """
        return int(self._ask("POST", "/flow_runs/count", _in_state(statuses.UNFINISHED)))

    def run(self, run_id: str) -> RunView | None:
        """Return a run; None if there is none with this id.

        Raises:
            StackError: If Prefect does not answer.
        """
        try:
            found = self._ask("GET", f"/flow_runs/{uuid.UUID(run_id)}")
        except ValueError:
            return None
        return self._views([found], self._flow)[0] if found else None

    def _views(self, found: list[dict[str, Any]], flow_of: Callable[[str], str]) -> list[RunView]:
        states = {run["id"]: run["state"]["type"] for run in found if run.get("state")}
        waiting = self._waiting_of(states)
        return [
            RunView.from_rest(run, flow_of(run["flow_id"]), waiting.get(run["id"], ""))
            for run in found
        ]

    def _flow_name(self, flow_id: str) -> str:
        found = self._ask("GET", f"/flows/{flow_id}")
        return str(found["name"]) if found else ""

    def _find_flow(self, name: str) -> str | None:
        """Return a flow's id, by which Prefect finds the runs of a rare flow by an index."""
        found = self._ask("GET", f"/flows/name/{quote(name, safe='')}")
        if found:
            self._flow_ids[name] = str(found["id"])
        return self._flow_ids.get(name)

    def log(self, run_id: str, limit: int, *, after: int = 0, newest: bool = False) -> list[str]:
        """Return lines of a run's log in their order.

        Args:
            run_id: The run.
            limit: How many at most; Prefect gives 200.
            after: How many to leave out.
            newest: The last lines instead of the first.

        Raises:
            StackError: If Prefect does not answer.
        """
        order = "TIMESTAMP_DESC" if newest else "TIMESTAMP_ASC"
        of_run = {"flow_run_id": {"any_": [run_id]}}
        body = {"logs": of_run, "sort": order, "limit": limit, "offset": after}
        found = [str(entry["message"]) for entry in self._ask("POST", "/logs/filter", body) or ()]
        return found[::-1] if newest else found

    def task_run(self, run_id: str, path: str) -> str | None:
        """Return the id of the task run of a run's node; None if Prefect does not have it.

        Raises:
            StackError: If Prefect does not answer.
        """
        found = self._ask("GET", f"/task_runs/{pipeline_nodes.task_run_id(run_id, path)}")
        return str(found["id"]) if found else None

    @property
    def ui_urls(self) -> dict[str, str]:
        """Addresses of the UIs for a browser, by the server's name."""
        return {"prefect": connection.prefect_page(""), "mlflow": connection.mlflow_page("")}

    def run_url(self, run_id: str) -> str:
        """Return a run's page in Prefect's UI."""
        return connection.prefect_page(f"/runs/flow-run/{run_id}")

    def task_run_url(self, task_run_id: str) -> str:
        """Return a task run's page in Prefect's UI, with its log."""
        return connection.prefect_page(f"/runs/task-run/{task_run_id}")

    def tracked(self, mlflow_run_id: str) -> TrackedRun | None:
        """Return a run as MLflow has it; None if MLflow lacks it, or does not answer."""
        try:
            run = entities.run(self._mlflow_answer("runs/get", run_id=mlflow_run_id)["run"])
            experiment_id = run.info.experiment_id
            asked = self._mlflow_answer("experiments/get", experiment_id=experiment_id)
            experiment = entities.experiment(asked["experiment"])
        except (StackError, KeyError) as error:
            _logger.info("MLflow has no answer about %s: %s", mlflow_run_id, error)
            return None
        return TrackedRun(
            url=connection.mlflow_run_page(experiment_id, run.info.run_id),
            description=run.data.tags.get(entities.NOTE_TAG, ""),
            experiment=experiment.name,
            experiment_id=experiment_id,
            experiment_url=connection.mlflow_experiment_page(experiment_id),
            metrics={
                name: value
                for name, value in sorted(run.data.metrics.items())
                if not name.startswith("system/")
            },
            tags=run.data.tags,
        )

    def artifact(self, mlflow_run_id: str, path: str, most: int) -> bytes | None:
        """Return an artifact of a run; None if MLflow has none there, or a larger one.

        Args:
            mlflow_run_id: The run.
            path: The artifact's path.
            most: How many bytes it has at most.

        Raises:
            StackError: If MLflow does not answer.
        """
        asked = {"run_uuid": mlflow_run_id, "path": path}
        found = bytearray()
        try:
            with self._mlflow.stream("GET", "/get-artifact", params=asked) as answer:
                if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise http_status.failed("MLflow", "GET", path, answer.status_code)
                if answer.is_error:
                    return None
                for piece in answer.iter_bytes():
                    found += piece
                    if len(found) > most:
                        return None
        except httpx.HTTPError as error:
            raise _silent("MLflow", error) from error
        return bytes(found)

    def models(self, limit: int) -> list[RegisteredModel]:
        """Return the registered models that were changed last, newest first.

        Raises:
            StackError: If MLflow does not answer.
        """
        found = self._mlflow_answer(
            "registered-models/search", filter=entities.NO_PROMPTS, max_results=limit,
            order_by="last_updated_timestamp DESC",
        )  # fmt: skip
        return [entities.registered_model(one) for one in found.get("registered_models", ())]

    def _mlflow_answer(self, path: str, **asked: Any) -> dict[str, Any]:
        found = self._answer(
            "MLflow", self._mlflow, "GET", f"/api/2.0/mlflow/{path}", params=asked
        )
        return found or {}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._answer("Prefect", self._prefect, method, path, json=body)

    def _answer(
        self, server: str, client: httpx.Client, method: str, path: str, **request: Any
    ) -> Any:
        """Return a server's JSON; None where it answers that there is no such thing."""
        try:
            answer = client.request(method, path, **request)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            if answer.is_error:
                asked = answer.request.url.path
                raise http_status.failed(server, method, asked, answer.status_code)
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise _silent(server, error) from error


def _silent(server: str, error: Exception) -> StackError:
    return StackError(
        f"{server} does not answer ({type(error).__name__}).",
        "It may be starting again: modelyard status.",
        code="StackSilent",
    )


def _in_state(types: Collection[str]) -> dict[str, Any]:
    """Prefect's filter of runs in a state of one of these types."""
    return {"flow_runs": {"state": {"type": {"any_": sorted(types)}}}}


def _prefect_auth() -> tuple[str, str] | None:
    """Return the credentials that Prefect's own client would send; None without a login."""
    user, colon, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return (user, password) if colon else None


def _mlflow_auth() -> tuple[str, str] | None:
    """Return the credentials that MLflow's client would send; None without a login."""
    password = os.environ.get(credential.MLFLOW_PASSWORD, "")
    return (os.environ.get(credential.MLFLOW_USER, ""), password) if password else None
