"""A pool of Prefect's whose worker does as the trials' hyperparameters say."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled

from infra.mlflow import Metric
from registry import tracking
from registry.runs import run_requests, runs, statuses
from registry.tunings import trial_flows
from registry.tunings.trial_flows import PARENT_LABEL, TRIAL_LABEL
from tests.processes import eventually
from tests.registry.tuned import opening


class FakePool:
    """Prefect as launchers see it.

    Attributes:
        down: Whether nobody answers.
        lost: How many answers to a run's creation will be lost.
        refuses: Whether it refuses every further run.
        idle: Whether no worker takes the runs.
        created: How often a run's creation was asked for.
        asked: How often it was asked what has become of runs.
    """

    def __init__(self) -> None:
        self.runs: dict[UUID, FlowRun] = {}
        self.down, self.idle, self.refuses = False, False, False
        self.lost, self.created, self.asked = 0, 0, 0
        self.states: dict[UUID, list[str]] = defaultdict(list)
        self._past: dict[UUID, list[State[Any]]] = defaultdict(list)
        self._keys: dict[str, UUID] = {}
        self._done: dict[UUID, int] = defaultdict(int)
        self._killed: set[UUID] = set()
        self._closed = threading.Event()
        self._lock = threading.RLock()
        self._threads = [threading.Thread(target=self._work, daemon=True, name="worker")]
        self._threads[0].start()

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> FakePool:
        """One that launchers ask instead of the real one."""
        fake = cls()
        monkeypatch.setattr(runs, "_prefect", lambda: contextlib.nullcontext(fake))
        for asking in (trial_flows, run_requests):
            monkeypatch.setattr(asking, "prefect_client", lambda **_: contextlib.nullcontext(fake))
        return fake

    def close(self) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join(30)

    def only(self) -> FlowRun:
        """The only run that there is."""
        (run,) = eventually(lambda: list(self.runs.values()), "there is a run")
        return run

    def lose(self, run: FlowRun) -> None:
        """Let the process of a run die, which the reconciler notices."""
        eventually(lambda: run.state and run.state.type == StateType.RUNNING, "it runs")
        self._killed.add(run.id)

    # What a client of Prefect's does.

    def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        self._answer()
        return SimpleNamespace(id=uuid4(), work_pool_name="gpu")

    def create_flow_run_from_deployment(
        self, _: UUID, *, parameters: Any, name: str, labels: Any, idempotency_key: str, tags: Any
    ) -> FlowRun:
        self._answer()
        if self.refuses:
            request = httpx.Request("POST", "http://prefect")
            response = httpx.Response(422, request=request)
            raise PrefectHTTPStatusError("refused", request=request, response=response)
        with self._lock:
            self.created += 1
            if idempotency_key not in self._keys:
                run = FlowRun(
                    flow_id=uuid4(), name=name, parameters=parameters, labels=dict(labels),
                    state=Scheduled(), run_count=0,
                )  # fmt: skip
                self.runs[run.id] = run
                self._keys[idempotency_key] = run.id
            if self.lost:
                self.lost -= 1
                raise httpx.ReadTimeout("no answer")
            return self.runs[self._keys[idempotency_key]]

    def read_flow_run(self, run_id: UUID) -> FlowRun:
        self._answer()
        if run_id not in self.runs:
            raise ObjectNotFound(Exception())
        return self.runs[run_id].model_copy()

    def read_flow_runs(self, *, flow_run_filter: Any, **_: Any) -> list[FlowRun]:
        self._answer()
        self.asked += 1
        found = [self.runs.get(run_id) for run_id in flow_run_filter.id.any_]
        return [run.model_copy() for run in found if run is not None]

    def set_flow_run_state(self, run_id: UUID, state: State[Any], *, force: bool = False) -> None:
        self._answer()
        with self._lock:
            self._set(self.runs[run_id], state)

    def read_flow_run_states(self, run_id: UUID) -> list[State[Any]]:
        self._answer()
        return list(self._past[run_id])

    def _answer(self) -> None:
        if self.down:
            raise httpx.ConnectError("nobody is there")

    def _set(self, run: FlowRun, state: State[Any]) -> None:
        run.state = state
        self.states[run.id].append(state.name or "")
        self._past[run.id].append(state)

    # What a worker does.

    def _work(self) -> None:
        while not self._closed.wait(0.02):
            with self._lock:
                waiting = [one for one in self.runs.values() if one.state.type == "SCHEDULED"]
                for run in [] if self.idle else waiting:
                    run.run_count += 1
                    self._set(run, Running())
                    self._threads.append(
                        threading.Thread(target=self._train, args=(run,), daemon=True)
                    )
                    self._threads[-1].start()

    def _train(self, run: FlowRun) -> None:
        asked = run.parameters["hyperparameters"]
        opened = opening(
            str(run.id), run.name, kind="train", parent=run.labels[PARENT_LABEL],
            trial=int(run.labels[TRIAL_LABEL]),
        )  # fmt: skip
        mlflow = tracking.client()
        tracked = tracking.open_run(opened, retried=run.run_count > 1)
        mlflow.log_batch(tracked.run_id, params=[("x", str(asked["x"]))])
        run.labels[tracking.MLFLOW_RUN_LABEL] = tracked.run_id
        reports = json.loads(asked.get("reports", "[]"))
        for step in range(self._done[run.id], len(reports)):
            now = int(time.time() * 1000) + step
            mlflow.log_batch(tracked.run_id, [Metric("loss", reports[step], now, step)])
            self._done[run.id] = step + 1
        ended = self._until_ended(run, asked)
        tracking.close_run(tracked.run_id, "FINISHED" if ended.is_completed() else "FAILED")
        with self._lock:
            self._set(run, ended)

    def _until_ended(self, run: FlowRun, asked: dict[str, Any]) -> State[Any]:
        until = asked.get("until")
        while not self._closed.wait(0.01):
            if run.state and run.state.type == StateType.CANCELLING:
                return Cancelled(message="Stopped.")
            if run.id in self._killed:
                self._killed.discard(run.id)
                return Crashed(message="Its process was killed.")
            if not until or Path(until).exists():
                break
        code = asked.get("code", 0)
        if code:
            run.labels |= statuses.error_label(run.run_count, "ScriptFailed")
        said = f"ScriptFailed: The script failed (exit code {code})."
        return Failed(message=said) if code else Completed()
