"""Pipeline runs: a compiled Kubeflow pipeline, each task of which is a Prefect task run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

from flows import artifacts
from flows.flow_results import PipelineRunResult
from flows.lifecycle import FlowSpec, lifecycle_flow
from flows.pipeline_view import PipelineReporter
from flows.run_context import RunContext, RunResult
from flows.steps import StopRequestedError
from infra import connection, settings
from infra import home as homes
from infra.errors import ModelyardError
from infra.workloads.kubernetes.backend import RunAttempt
from pipelines import caching, execution, reading, remote_artifacts
from pipelines.arguments import arguments as arguments_of
from pipelines.artifacts import Artifact, Bundle
from pipelines.backends import choice
from pipelines.components import Components, time_text
from pipelines.execution import Leaf, NodeStatus
from pipelines.pipeline import Pipeline
from pipelines.placeholders import PlaceholderFacts
from pipelines.run_directory import PipelineRunDirectory
from pipelines.states import TaskResult, TaskState
from registry import flow_kinds
from registry.pipelines import pipeline_nodes, pipelines
from registry.runs import run_monitor, run_nodes, runs
from registry.schedules import slot_counts
from registry.tracking import Tracked
from schedules import kfp_macros
from tasks.logs import publish as publish_log
from tasks.pipelines import metric_names
from tasks.pipelines import request as requests
from tasks.pipelines.recording import Recorder
from tasks.pipelines.request import PipelineRun


def check(request: PipelineRun, flow_run_id: str) -> None:
    """Refuse a pipeline run that cannot work, before any resource is allocated.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    home = homes.current()
    kept = PipelineRunDirectory(home.runs / flow_run_id).compiled if flow_run_id else None
    requests.check(request, kept, home, settings.load())


class _Work:
    """Runs the leaves of a pipeline for the engine."""

    def __init__(
        self, pipeline: Pipeline, components: Components, recorder: Recorder,
        view: PipelineReporter, *, cache: bool,
    ) -> None:  # fmt: skip
        self._pipeline = pipeline
        self._components = components
        self._recorder = recorder
        self._view = view
        self._cache = cache

    def submit(self, leaf: Leaf) -> Future[TaskResult]:
        """Submit a leaf."""
        return self._view.submit(lambda: self.run(leaf))

    def on_node_changed(self, node: NodeStatus) -> None:
        """Record and show the state of a node."""
        self._recorder.on_node_changed(node)
        self._view.on_node_changed(node)

    def fill(self, path: str, value: Any, parameters: Mapping[str, Any]) -> Any:
        """Fill the placeholders of a task's constant."""
        return self._components.fill(path, value, parameters)

    def run(self, leaf: Leaf) -> TaskResult:
        """Run a leaf, unless its outputs can be reused."""
        options = leaf.task.caching_options
        fingerprint = caching.fingerprint(
            self._pipeline, leaf.component, leaf.inputs, key=options.cache_key,
            settings=self._components.settings(leaf),
        )  # fmt: skip
        state = TaskState.SUCCEEDED
        anew = self._components.is_anew(leaf)
        with self._view.leaf(leaf.path) as log:
            outputs = None
            if not self._components.is_action(leaf):
                outputs = self._recorder.kept(leaf, fingerprint)
            if outputs is not None:
                log("The task succeeded before the retry, and does not run again.")
                self._view.ended(leaf.path, outputs, kept=True)
                return TaskResult(state, outputs)
            if self._cache and options.enable_cache and not anew:
                outputs = self._recorder.cached(fingerprint)
                state = TaskState.SUCCEEDED if outputs is None else TaskState.CACHED
            if outputs is None:
                outputs = self._components.run(leaf)
            self._recorder.done(leaf, fingerprint, outputs, state)
            self._view.ended(leaf.path, outputs, kept=False)
        return TaskResult(state, outputs)


def _begun(request: PipelineRun, place: PipelineRunDirectory) -> Pipeline:
    """The pipeline of the first attempt, which a retry runs even if the file has changed."""
    compiled = place.compiled
    if not compiled.exists():
        place.root.mkdir(parents=True, exist_ok=True)
        partial = compiled.with_suffix(".partial")
        partial.write_bytes(requests.contents(request.pipeline)[0])
        partial.replace(compiled)
    return reading.read(compiled)


def _filled(given: Mapping[str, Any], context: RunContext) -> dict[str, Any]:
    """The arguments with Kubeflow's macros filled in, in a retry as in the first attempt."""
    slot = context.labels.get(runs.SLOT_LABEL)
    at = datetime.fromisoformat(str(slot)) if slot else None
    schedule = str(context.labels.get(runs.SCHEDULE_LABEL, ""))
    facts = kfp_macros.RunFacts(
        context.flow_run_id,
        context.created,
        at,
        slot_counts.number(schedule, int(at.timestamp())) if at and schedule else None,
    )
    return {name: kfp_macros.fill_all(value, facts) for name, value in given.items()}


def _open(context: RunContext, request: PipelineRun, given: Mapping[str, Any]) -> Tracked:
    """Open the MLflow run, and link the graph of the run."""
    tracked = context.open(request, given, "Arguments and metrics in MLflow")
    if graph := connection.page(f"/runs/{context.flow_run_id}"):
        artifacts.link(context.flow_run_id, "pipeline-graph", graph, "The graph of the run")
    return tracked


def _executed(
    context: RunContext,
    request: PipelineRun,
    pipeline: Pipeline,
    given: Mapping[str, Any],
    place: PipelineRunDirectory,
    tracked: Tracked,
) -> TaskResult:
    """Run the pipeline to its end."""
    view = PipelineReporter(
        context, pipeline, tracked, place, parallel=request.parallel, stream=request.logs.stream,
        root=choice.artifacts(context.settings),
    )  # fmt: skip
    recorder = Recorder(context.flow_run_id)
    launcher = choice.backend(
        context.settings, RunAttempt(context.flow_run_id, _attempt(context)),
        allow_cpu=request.resources.allow_cpu,
        instances=requests.instances(request, context.settings),
    )  # fmt: skip
    root = _root(pipeline, context)
    components = Components(
        pipeline, launcher, place, _facts(pipeline, context, place, root), view.line,
        context.stop, claims=choice.claims(launcher, context.home), root=root,
        folders=requests.folders(request),
    )  # fmt: skip
    components.check()
    work = _Work(pipeline, components, recorder, view, cache=request.cache)
    allowed = int(pipeline.config.get("activeDeadlineSeconds", 0))
    slot = run_nodes.own_slot(context.flow_run_id, context.attempt)
    monitored = run_monitor.monitored(tracked, slot, context.logger.warning)
    engine = execution.Execution(pipeline, work, parallel=request.parallel, cancelled=context.stop)
    try:
        with (
            closing(launcher), monitored as monitor, recorder.writing(), view.updating(),
            _deadline(allowed, context.stop) as late,
        ):  # fmt: skip
            launcher.observe = lambda path: monitor.component(metric_names.sanitize(path))
            end = engine.run(_bundle(pipeline, given))
            if late.is_set() and end.state != TaskState.SUCCEEDED:
                reason = f"The run exceeded the {allowed} s that its pipeline allows."
                end = TaskResult(TaskState.FAILED, reason=reason)
            elif context.stop.is_set() and not late.is_set():
                end = TaskResult(TaskState.CANCELLED, reason="Stopped.")
            if end.state != TaskState.CANCELLED:
                context.conclude(failed=end.state != TaskState.SUCCEEDED)
            view.over(end)
            recorder.on_node_changed(
                NodeStatus(
                    pipeline_nodes.ROOT,
                    pipeline.name,
                    "pipeline",
                    end.state,
                    end.reason,
                    outputs=end.outputs,
                )
            )
            return end
    finally:
        publish_log(place.log, request.logs, context.flow_run_id, context.logger.warning)


def _attempt(context: RunContext) -> int:
    """Number of the attempt on the cluster; Prefect's number of a local run."""
    return int(os.environ.get("MODELYARD_ATTEMPT") or context.attempt)


def _root(pipeline: Pipeline, context: RunContext) -> str:
    """The URI below which the run's artifacts go; "" if they stay with the run."""
    roots = (pipeline.spec.default_pipeline_root, choice.artifacts(context.settings))
    found = (remote_artifacts.root(root, pipeline.name, context.flow_run_id) for root in roots)
    return next(filter(None, found), "")


@contextmanager
def _deadline(seconds: int, cancelled: threading.Event) -> Iterator[threading.Event]:
    """Stop the run after so many seconds, unless they are 0; yields an event that is set then."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        cancelled.set()

    timer = threading.Timer(seconds, stop)
    if seconds:
        timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _concluded(
    context: RunContext, request: PipelineRun, end: TaskResult, tracked: Tracked
) -> RunResult:
    """The result of a pipeline that has ended.

    Raises:
        ModelyardError: If it failed.
        StopRequestedError: If it was stopped.
    """
    if end.state == TaskState.CANCELLED:
        raise StopRequestedError
    if end.state != TaskState.SUCCEEDED:
        raise ModelyardError(
            end.reason,
            f"Fix what failed, and resume: modelyard runs retry {context.flow_run_id}. A changed "
            f"pipeline file needs a new run: modelyard runs copy {context.flow_run_id}.",
            code="PipelineFailed",
        )  # fmt: skip
    result = pipeline_nodes.result(context.flow_run_id, tracked.run_id, over=True)
    notice = requests.unenforced(request, context.settings)
    return RunResult(result.to_json(), f"The pipeline has run. {notice}".rstrip())


def _facts(
    pipeline: Pipeline, context: RunContext, place: PipelineRunDirectory, root: str
) -> PlaceholderFacts:
    created = time_text(context.created)
    return PlaceholderFacts(
        job_name=context.name,
        job_resource_name=f"{pipeline.name}-{context.flow_run_id}",
        job_id=context.flow_run_id,
        created=created,
        scheduled=str(context.labels.get(runs.SLOT_LABEL) or created),
        root=root or str(place.artifacts),
        workspace=str(place.workspace),
    )


def _bundle(pipeline: Pipeline, given: Mapping[str, Any]) -> Bundle:
    """The arguments of a run as the engine takes them."""
    declared = pipeline.spec.root.input_definitions.artifacts
    handed: dict[str, Artifact | list[Artifact]] = {}
    for name in declared:
        if name in given:
            schema = declared[name].artifact_type.schema_title or "system.Artifact"
            found = given[name]
            many = found if isinstance(found, list) else [found]
            made = [Artifact(f"{name}[{n}]", str(uri), schema) for n, uri in enumerate(many)]
            handed[name] = made if isinstance(found, list) else made[0]
    return Bundle({key: value for key, value in given.items() if key not in declared}, handed)


@lifecycle_flow(
    FlowSpec(
        kind=flow_kinds.PIPELINE_RUN,
        request=PipelineRun,
        check=check,
        pin=requests.pin,
        deployment=lambda given: pipelines.deployment_of(str(given["pipeline"])),
        base_name=lambda given: requests.base_name(str(given["pipeline"])),
        pool="cpu",
        result=PipelineRunResult,
        tags=("modelyard", "pipeline"),
    )
)
def pipeline_run(context: RunContext, request: PipelineRun) -> RunResult:
    """Run a pipeline that was compiled with the KFP SDK; Kubeflow is not needed.

    Returns:
        ``{"mlflow_run_id", "outputs", "tasks"}``: the pipeline's output parameters, and how each
        of its tasks ended.
    """
    place = PipelineRunDirectory(context.home.runs / context.flow_run_id)
    pipeline = _begun(request, place)
    given = arguments_of(pipeline, _filled(request.arguments, context))
    tracked = _open(context, request, given)
    end = _executed(context, request, pipeline, given, place, tracked)
    return _concluded(context, request, end, tracked)
