"""The pages over a world that tests make: no server, no database, files in a folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.errors import NotFoundError, StackError
from infra.mlflow import RegisteredModel
from modelyard.pages.application import application
from modelyard.pages.comparison_thread import ComparisonThread
from modelyard.pages.graphs import Sources
from modelyard.pages.servers import TrackedRun
from modelyard.tensorboards import TensorBoard
from registry.pipelines.pipeline_nodes import PipelineNode
from registry.pipelines.pipeline_views import PipelineSummaryView
from registry.runs import statuses
from registry.runs.run_views import RunView
from registry.tunings.tuning_views import TrialCounts, TuningOverviewView
from schedules.views import ScheduleDetailView, ScheduleView
from tests.pipelines import corpus

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of another client than the one that is installed
    from starlette.testclient import TestClient

RUN = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_NO_TRIALS = TuningOverviewView(
    counts=TrialCounts(done=0, running=0, failed=0), metrics=[], best=[], trials=[]
)


@dataclass
class World:
    """What the pages ask, as a test has it."""

    home: Path
    known: dict[str, RunView] = field(default_factory=dict)
    rows: dict[str, list[PipelineNode]] = field(default_factory=dict)
    uploaded: dict[tuple[str, str | None], str] = field(default_factory=dict)
    silent: bool = False  # Prefect does not answer
    deaf: bool = False  # MLflow does not give artifacts
    listed: list[PipelineSummaryView] = field(default_factory=list)
    broken: Exception | None = None
    scheduled: list[ScheduleView] = field(default_factory=list)
    registered: list[RegisteredModel] = field(default_factory=list)
    boards: list[TensorBoard] = field(default_factory=list)
    tracked_as: dict[str, TrackedRun] = field(default_factory=dict)
    artifacts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    tried: TuningOverviewView = _NO_TRIALS
    logged: dict[str, list[str]] = field(default_factory=dict)
    shown_schedules: dict[str, ScheduleDetailView] = field(default_factory=dict)
    comparing: ComparisonThread = field(default_factory=lambda: ComparisonThread(wait_seconds=60))

    # Prefect and MLflow

    ui_urls = {"prefect": "http://prefect", "mlflow": "http://mlflow/#/"}

    def runs(
        self, limit: int, flow: str = "", *, types: Collection[str] = (), after: int = 0,
        tag: str = "",
    ) -> list[RunView]:  # fmt: skip
        self._answer()
        found = [run for run in self.known.values() if flow in {"", run.flow}]
        if tag:
            found = [run for run in found if tag in run.tags]
        if types:
            found = [run for run in found if statuses.types_of(run.state) & set(types)]
        return found[after : after + limit]

    def active_count(self) -> int:
        self._answer()
        return sum(not run.is_final for run in self.known.values())

    def models(self, limit: int) -> list[RegisteredModel]:
        self._answer()
        return self.registered[:limit]

    def run(self, run_id: str) -> RunView | None:
        self._answer()
        return self.known.get(run_id)

    def log(self, run_id: str, limit: int, *, after: int = 0, newest: bool = False) -> list[str]:
        self._answer()
        lines = self.logged.get(run_id, [])
        return lines[-limit:] if newest else lines[after : after + limit]

    def task_run(self, run_id: str, name: str) -> str | None:
        self._answer()
        return f"task-run-of-{name}"

    def run_url(self, run_id: str) -> str:
        return f"http://prefect/{run_id}"

    def task_run_url(self, task_run_id: str) -> str:
        return f"http://prefect/{task_run_id}"

    def tracked(self, mlflow_run_id: str) -> TrackedRun | None:
        return self.tracked_as.get(mlflow_run_id)

    def artifact(self, mlflow_run_id: str, path: str, most: int) -> bytes | None:
        if self.deaf:
            raise StackError("MLflow does not answer.", "modelyard status.")
        found = self.artifacts.get((mlflow_run_id, path))
        return found if found is not None and len(found) <= most else None

    def _answer(self) -> None:
        if self.silent:
            raise StackError("Prefect does not answer.", "modelyard status.")

    # The catalogue

    def nodes(self, run_id: str) -> list[PipelineNode]:
        return [replace(row, inputs={}, outputs={}) for row in self.rows.get(run_id, [])]

    def node(self, run_id: str, path: str) -> PipelineNode | None:
        return next((row for row in self.rows.get(run_id, []) if row.path == path), None)

    def pipelines(self, limit: int) -> list[PipelineSummaryView]:
        if self.broken is not None:
            raise self.broken
        return self.listed[:limit]

    def schedules(self, limit: int) -> list[ScheduleView]:
        if self.broken is not None:
            raise self.broken
        return self.scheduled[:limit]

    def overview(
        self, flow_run_id: str, tags: Mapping[str, str], newest: int, *, over: bool
    ) -> TuningOverviewView:
        if self.broken is not None:
            raise self.broken
        return self.tried

    def schedule(self, key: str) -> ScheduleDetailView:
        if key not in self.shown_schedules:
            raise NotFoundError(f"There is no schedule {key!r}.", "List them.")
        return self.shown_schedules[key]

    def schedule_name(self, key: str) -> str:
        if self.broken is not None:
            raise self.broken
        return self.shown_schedules[key].name

    def compiled(self, reference: str) -> tuple[bytes, str]:
        if reference not in self.uploaded:
            raise NotFoundError(f"There is no pipeline {reference!r}.", "List them.")
        return self.uploaded[reference], "p.yaml"

    # What a test says

    def begin(self, compiled: str, /, *rows: PipelineNode, run: str = RUN, **told: object) -> None:
        """A run of a pipeline of the corpus."""
        folder = self.home / "runs" / run
        folder.mkdir(parents=True)
        (folder / "pipeline.yaml").write_bytes(corpus.compiled(compiled))
        self.exist(*rows, run=run, **told)

    def begin_with(self, *rows: PipelineNode) -> None:
        """A run with these nodes, of whatever pipeline."""
        folder = self.home / "runs" / RUN
        folder.mkdir(exist_ok=True)
        (folder / "pipeline.yaml").write_text(flat_yaml(row.path for row in rows))
        self.exist(*rows)

    def exist(self, *rows: PipelineNode, run: str = RUN, **told: object) -> None:
        given = {"name": "a run", "flow": "pipeline-run", "state": "RUNNING", "started": BEGAN}
        self.known[run] = RunView(id=run, **{**given, **told})  # type: ignore[arg-type]
        self.rows[run] = list(rows)

    def file(self, written: str, content: str = "content", run: str = RUN) -> Path:
        """A file in a run's folder."""
        path = self.home / "runs" / run / written
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    (tmp_path / "runs").mkdir()
    return made


@pytest.fixture
def client(world: World) -> TestClient:
    return connected(world)


def connected(world: World, **options: bool) -> TestClient:
    sources = Sources(
        world.home / "runs", world, world.compiled, world.nodes, world.node, world.pipelines,
        world.schedules, lambda: world.boards, world.overview, world.schedule, world.schedule_name,
        world.comparing,
    )  # fmt: skip
    return TestClient(application(sources), base_url="http://127.0.0.1:4300", **options)  # type: ignore[arg-type]


def tracked(**told: object) -> TrackedRun:
    """A run as MLflow has it."""
    given = {"url": "http://mlflow/m1", "description": "", "experiment": "Default",
             "experiment_id": "e1", "experiment_url": "http://mlflow/e1", "metrics": {},
             "tags": {}}  # fmt: skip
    return TrackedRun(**{**given, **told})  # type: ignore[arg-type]


def flat_yaml(tasks: Iterable[str]) -> str:
    """A compiled pipeline of tasks that have nothing to do with each other."""
    leaf = {"executorLabel": "leaf", "outputDefinitions": {}}
    return json.dumps(
        {
            "schemaVersion": "2.1.0",
            "pipelineInfo": {"name": "flat"},
            "root": {"dag": {"tasks": {one: {"componentRef": {"name": "leaf"}} for one in tasks}}},
            "components": {"leaf": leaf},
            "deploymentSpec": {"executors": {"leaf": {"container": {"image": "busybox"}}}},
        }
    )


def made(path: str, uri: str | list[str], name: str = "data", **told: object) -> PipelineNode:
    """A node that has handed on an artifact, or a list of them."""

    def artifact(where: str) -> dict[str, object]:
        return {"name": name, "uri": where, "schema": "system.Dataset", "metadata": {"rows": 3}}

    held = [artifact(one) for one in uri] if isinstance(uri, list) else artifact(uri)
    outputs = {"parameters": {}, "artifacts": {name: held}}
    last = path.rpartition("/")[2]
    return PipelineNode(RUN, path, last, "task", "SUCCEEDED", outputs=outputs, **told)  # type: ignore[arg-type]
