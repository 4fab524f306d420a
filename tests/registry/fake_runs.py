"""Runs as Prefect would list them, and experiments as runs open them."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import Flow, FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from infra.mlflow import MlflowRun, ViewType
from registry import experiment_names, tracking
from registry.runs import (
    run_attempts,
    run_counts,
    run_nodes,
    run_retries,
    run_tagging,
    run_tags,
    runs,
)
from registry.runs.run_filters import RunGroup
from registry.runs.run_views import RunView
from registry.tracking import Opening
from tests.registry.fake_attempts import FakeAttempts

CREATED: dict[str, datetime] = {}


def new_id() -> str:
    """The id of a flow run that is created now."""
    run_id = str(uuid4())
    CREATED[run_id] = datetime.now(UTC)
    return run_id


class Prefect:
    """The runs that Prefect has."""

    def __init__(self) -> None:
        self.runs: dict[str, RunView] = {}
        self.tagged = True

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> Prefect:
        """One that the registry asks instead of the real one."""
        fake = cls()
        for verb in ("active", "ended_unopened", "with_ids", "list_all"):
            monkeypatch.setattr(runs, verb, getattr(fake, verb))
        monkeypatch.setattr(run_counts, "by_state", fake.by_state)
        monkeypatch.setattr(run_tagging, "is_done", lambda: fake.tagged)
        monkeypatch.setattr(experiment_names, "_created", CREATED.get)
        return fake

    def add(self, state: str = "RUNNING", opened: bool = False, **parameters: Any) -> str:
        run_id = new_id()
        self.put(run_id, state, opened, **parameters)
        return run_id

    def put(self, run_id: str, state: str, opened: bool = False, **parameters: Any) -> None:
        created = CREATED[run_id]
        self.runs[run_id] = RunView(
            id=run_id,
            name=f"run {len(self.runs)}",
            flow="train",
            state=state,
            created=created,
            parameters=parameters,
            is_final=state in {"COMPLETE", "STOPPED", "FAIL TRAIN", "CREATE FAILED"},
            mlflow_run_id="m" if opened else None,
        )

    def active(self) -> list[RunView]:
        return [run for run in self._views() if not run.is_final]

    def ended_unopened(self) -> list[RunView]:
        return [run for run in self._views() if run.is_final and not run.mlflow_run_id]

    def list_all(self, limit: int, groups: list[RunGroup]) -> list[RunView]:
        found = [run for run in self._views() if all(_is_in(run, group) for group in groups)]
        return sorted(found, key=lambda run: str(run.created), reverse=True)[:limit]

    def by_state(self, tag: str) -> dict[str, int]:
        return Counter(run.state for run in self._views() if tag in run.tags)

    def _views(self) -> Iterator[RunView]:
        """Every run; opened ones with the MLflow run, and the tag, that they have by now."""
        for run in self.runs.values():
            made = _mlflow_run(run.id) if run.mlflow_run_id else None
            if made is None:
                yield run
                continue
            experiment_id, trial = made.info.experiment_id, tracking.PARENT_TAG in made.data.tags
            tags = run_tags.opened(run.tags, experiment_id, trial=trial) if self.tagged else ()
            yield run.model_copy(update={"mlflow_run_id": made.info.run_id, "tags": tuple(tags)})

    def with_ids(self, ids: set[str]) -> list[RunView]:
        return [self.runs[run_id] for run_id in ids if run_id in self.runs]


def _is_in(run: RunView, group: RunGroup) -> bool:
    return run.id in group.ids or bool(set(group.tags) & set(run.tags))


def _mlflow_run(flow_run_id: str) -> MlflowRun | None:
    mlflow = tracking.client()
    everywhere = [str(each.experiment_id) for each in mlflow.search_experiments(ViewType.ALL)]
    no_trial = f"tags.`{tracking.KIND_TAG}` != 'trial'"
    own = f"tags.`{tracking.FLOW_RUN_TAG}` = '{flow_run_id}' AND {no_trial}"
    return next(iter(mlflow.search_runs(everywhere, own, ViewType.ALL)), None)


def _passes(run: FlowRun, wanted: FlowRunFilter) -> bool:
    """Whether Prefect would list a run."""
    name, kind = wanted.name, wanted.state and wanted.state.type
    named = wanted.state and wanted.state.name
    of_state = run.state.name if run.state else None
    return all([
        not (named and named.any_) or of_state in named.any_,
        not (named and named.not_any_) or of_state not in named.not_any_,
        wanted.id is None or run.id in (wanted.id.any_ or []),
        name is None or name.any_ is None or run.name in name.any_,
        name is None or name.like_ is None or _is_like(run.name, name.like_),
        kind is None or kind.any_ is None or bool(run.state and run.state.type in kind.any_),
        not (kind and kind.not_any_ and run.state and run.state.type in kind.not_any_),
        wanted.tags is None or set(wanted.tags.all_ or []) <= set(run.tags),
    ])  # fmt: skip


def _is_like(name: str, part: str) -> bool:
    """As PostgreSQL's ILIKE has it: % is any characters, and _ any one."""
    wild = re.escape(part).replace("%", ".*").replace("_", ".")
    return bool(re.search(wild, name, re.IGNORECASE))


class PrefectClient:
    """A client of a Prefect that has these runs, and nothing else."""

    def __init__(self) -> None:
        self.runs: dict[UUID, FlowRun] = {}
        self.flows: dict[UUID, Flow] = {}
        self.artifacts: dict[str, str] = {}
        self.variables: dict[str, object] = {"modelyard_runs_tagged": True}
        self.read = 0  # runs that were read
        self.attempts = FakeAttempts()

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
        """One that the registry asks instead of the real one."""
        fake = cls()
        monkeypatch.setattr(runs, "_prefect", lambda: contextlib.nullcontext(fake))
        for module in (run_retries, run_counts, run_tagging):
            monkeypatch.setattr(module, "prefect_client", lambda **_: contextlib.nullcontext(fake))
        monkeypatch.setattr(run_attempts, "newest", fake.attempts.newest)
        monkeypatch.setattr(run_attempts, "retried", lambda _: [])
        monkeypatch.setattr(run_nodes, "of_run", lambda _: [])
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
        return fake

    def add(self, flow: str, name: str, state: State[Any] | None = None) -> str:
        """A run of ``flow``, which is complete unless told; its id."""
        of = Flow(name=flow)
        run = FlowRun(flow_id=of.id, name=name, labels={}, state=state or Completed())
        self.runs[run.id], self.flows[of.id] = run, of
        return str(run.id)

    def label(self, run_id: str, mlflow_run_id: str) -> None:
        """Say which MLflow run it has."""
        self.runs[UUID(run_id)].labels = {tracking.MLFLOW_RUN_LABEL: mlflow_run_id}

    def read_flow_run(self, run_id: UUID) -> FlowRun:
        if run_id not in self.runs:
            raise ObjectNotFound(Exception())
        return self.runs[run_id]

    def read_flow(self, flow_id: UUID) -> Flow:
        return self.flows[flow_id]

    def read_flows(self, *, flow_filter: FlowFilter, limit: int) -> list[Flow]:
        assert flow_filter.name is not None
        wanted = flow_filter.name.any_ or []
        return [flow for flow in self.flows.values() if flow.name in wanted][:limit]

    def read_flow_runs(
        self,
        *,
        flow_run_filter: FlowRunFilter | None = None,
        flow_filter: FlowFilter | None = None,
        limit: int | None = None,
        offset: int = 0,
        sort: FlowRunSort | None = None,
        **_: Any,
    ) -> list[FlowRun]:
        wanted = flow_run_filter or FlowRunFilter()
        found = [
            run for run in self.runs.values()
            if _passes(run, wanted)
            and (flow_filter is None or self.flows[run.flow_id].name in flow_filter.name.any_)
        ]  # fmt: skip
        if sort is FlowRunSort.ID_DESC:
            found.sort(key=lambda run: run.id, reverse=True)
        page = found[offset:][:limit]
        self.read += len(page)
        return page

    def count_flow_runs(self, **filters: Any) -> int:
        read, count = self.read, len(self.read_flow_runs(**filters))
        self.read = read
        return count

    def read_variable_by_name(self, name: str) -> object:
        return self.variables.get(name)

    def create_variable(self, variable: VariableCreate) -> None:
        self.variables[variable.name] = variable.value

    def update_flow_run(self, run_id: UUID, *, tags: list[str]) -> None:
        self.runs[run_id].tags = tags

    def request(self, verb: str, path: str, **given: Any) -> httpx.Response:
        """Prefect's artifacts, by the ids of their runs."""
        if verb == "DELETE":
            self.artifacts.pop(given["path_params"]["id"])
            return httpx.Response(204)
        (wanted,) = given["json"]["artifacts"]["flow_run_id"]["any_"]
        limit = given["json"]["limit"]
        found = [{"id": one} for one, run_id in self.artifacts.items() if run_id == wanted]
        return httpx.Response(200, json=found[:limit])

    def delete_flow_run(self, run_id: UUID) -> None:
        del self.runs[run_id]


def opening(flow_run_id: str, experiment: str, kind: str = "train") -> Opening:
    return Opening(flow_run_id, kind, f"run {flow_run_id}", experiment, "", "me", {})


def experiment_of(flow_run_id: str, experiment: str, *, retried: bool = False) -> str:
    """The id of the experiment that a run opens which names ``experiment``."""
    run_id = tracking.open_run(opening(flow_run_id, experiment), retried=retried).run_id
    return str(tracking.client().get_run(run_id).info.experiment_id)


def exists(name: str) -> bool:
    return tracking.client().get_experiment_by_name(name) is not None


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt
