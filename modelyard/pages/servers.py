"""What the pages ask of Prefect and MLflow, by their REST interfaces.

Their own clients take seconds and hundreds of megabytes to import. What a run waits for is the
catalogue's to tell.
"""

from __future__ import annotations

import functools
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from infra import connection
from infra.connection import Endpoints
from infra.door import credential
from infra.errors import StackError
from registry.pipelines import pipeline_nodes
from registry.runs import labels, pending_reasons, statuses

_FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_TIMEOUT_SECONDS = 10.0
_logger = logging.getLogger(__name__)

# The types of runs' states, by run, to what those wait for that wait.
Waits = Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True)
class _State:
    """A state of Prefect's, as far as words need it."""

    type: str
    name: str | None
    message: str | None


@dataclass(frozen=True)
class Run:
    """A flow run.

    Attributes:
        id: Its id.
        name: What it is called.
        flow: The name of its flow.
        state: How it stands, in the reference's words.
        detail: The reference's bracketed word; empty where there is none.
        message: What its state says.
        over: Whether it has ended.
        created: When it was created.
        began: When it began; None if it has not.
        ended: When it ended; None if it has not.
        seconds: How long its attempts ran, without the time between them; None before its end.
        arguments: What it was given, where it runs a pipeline.
        mlflow_run_id: Its MLflow run; empty where there is none.
        pipeline: What it was told as its pipeline, where it runs one: a reference or a file.
        waiting: What it waits for; empty where it does not.
    """

    id: str
    name: str
    flow: str
    state: str
    detail: str = ""
    message: str = ""
    over: bool = False
    created: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None
    seconds: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    mlflow_run_id: str = ""
    pipeline: str = ""
    waiting: str = ""


class Servers:
    """Prefect and MLflow. Several threads may ask at once."""

    def __init__(
        self,
        endpoints: Endpoints,
        transport: httpx.BaseTransport | None = None,
        waits: Waits = pending_reasons.of,
    ) -> None:
        """Ask the servers at these addresses.

        Args:
            endpoints: Their addresses.
            transport: What carries the requests; the network by default.
            waits: Tells what runs wait for; see :func:`registry.runs.pending_reasons.of`.
        """
        self._waits = waits
        self._prefect = httpx.Client(
            base_url=endpoints.prefect_api_url, timeout=_TIMEOUT_SECONDS, transport=transport,
            auth=_prefect_auth(),
        )  # fmt: skip
        self._mlflow = httpx.Client(
            base_url=endpoints.mlflow_tracking_uri, timeout=_TIMEOUT_SECONDS, transport=transport,
            auth=_mlflow_auth(),
        )  # fmt: skip
        self._flow = functools.lru_cache(maxsize=256)(self._flow_name)

    def runs(self, flow: str, limit: int) -> list[Run]:
        """The newest runs of a flow, newest first.

        Raises:
            StackError: If Prefect does not answer.
        """
        asked = {
            "flows": {"name": {"any_": [flow]}},
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": limit,
        }
        found = self._ask("POST", "/flow_runs/filter", asked)
        waits = self._waits({one["id"]: one["state"]["type"] for one in found if one.get("state")})
        return [_run(one, flow, waits.get(one["id"], "")) for one in found]

    def run(self, run_id: str) -> Run | None:
        """A run; None if there is none of this id.

        Raises:
            StackError: If Prefect does not answer.
        """
        try:
            found = self._ask("GET", f"/flow_runs/{uuid.UUID(run_id)}")
        except ValueError:
            return None
        if found is None:
            return None
        told = found.get("state")
        waits = self._waits({found["id"]: told["type"]} if told else {})
        return _run(found, self._flow(found["flow_id"]), waits.get(found["id"], ""))

    def _flow_name(self, flow_id: str) -> str:
        found = self._ask("GET", f"/flows/{flow_id}")
        return str(found["name"]) if found else ""

    def task_run(self, run_id: str, path: str) -> str | None:
        """The id of the task run of a run's node; None if Prefect does not know it.

        Raises:
            StackError: If Prefect does not answer.
        """
        found = self._ask("GET", f"/task_runs/{pipeline_nodes.task_run_id(run_id, path)}")
        return str(found["id"]) if found else None

    def run_url(self, run_id: str) -> str:
        """A run's page in Prefect's UI."""
        return connection.prefect_page(f"/runs/flow-run/{run_id}")

    def task_run_url(self, task_run_id: str) -> str:
        """A task run's page in Prefect's UI, with its log."""
        return connection.prefect_page(f"/runs/task-run/{task_run_id}")

    def mlflow_url(self, mlflow_run_id: str) -> str | None:
        """A run's page in MLflow's UI; None if MLflow does not know it, or does not answer."""
        try:
            answer = self._mlflow.get("/api/2.0/mlflow/runs/get", params={"run_id": mlflow_run_id})
            info = answer.raise_for_status().json()["run"]["info"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            _logger.info("MLflow tells nothing of %s: %s", mlflow_run_id, error)
            return None
        return connection.mlflow_run_page(info["experiment_id"], info["run_id"])

    def _ask(self, method: str, path: str, asked: dict[str, Any] | None = None) -> Any:
        try:
            answer = self._prefect.request(method, path, json=asked)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            return answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise StackError(
                f"Prefect does not answer ({type(error).__name__}).",
                "It may be starting again: modelyard status.",
                code="StackSilent",
            ) from error


def _prefect_auth() -> tuple[str, str] | None:
    """What Prefect's own client would say who it is; nothing where Prefect does not ask."""
    user, colon, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return (user, password) if colon else None


def _mlflow_auth() -> tuple[str, str] | None:
    """The same for MLflow's client."""
    password = os.environ.get(credential.MLFLOW_PASSWORD, "")
    return (os.environ.get(credential.MLFLOW_USER, ""), password) if password else None


def _run(found: dict[str, Any], flow: str, waits: str) -> Run:
    told = found.get("state") or {}
    state = _State(told["type"], told.get("name"), told.get("message")) if told else None
    parameters = found.get("parameters") or {}
    own = found.get("labels") or {}
    given, pipeline = parameters.get("arguments"), parameters.get("pipeline")
    return Run(
        id=str(found["id"]),
        name=str(found["name"]),
        flow=flow,
        state=statuses.word(flow, state, own, int(found.get("run_count") or 0)),
        detail=statuses.detail(state),
        message=statuses.message(state),
        over=state is not None and state.type in _FINAL,
        created=_instant(found.get("created")),
        began=_instant(found.get("start_time")),
        ended=_instant(found.get("end_time")),
        # Prefect's own sum, which ``modelyard runs list`` shows as well.
        seconds=found.get("estimated_run_time") if found.get("end_time") else None,
        arguments=given if isinstance(given, dict) else {},
        mlflow_run_id=str(own.get(labels.MLFLOW_RUN) or ""),
        pipeline=pipeline if isinstance(pipeline, str) else "",
        waiting=waits,
    )


def _instant(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None
