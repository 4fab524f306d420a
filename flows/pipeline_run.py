"""Pipeline runs: a compiled pipeline of Kubeflow's, each of its tasks a task of Prefect's."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows import artifacts, lifecycle
from flows.lifecycle import Execution
from flows.pipeline_shown import Shown
from infra import connection, settings
from infra import home as homes
from infra.errors import ModelyardError
from infra.workloads.kubernetes.backend import RunAttempt
from pipelines import caching, execution, reading, remotes
from pipelines.arguments import arguments as arguments_of
from pipelines.artifacts import Artifact, Bundle
from pipelines.backends import choice
from pipelines.components import Components, time_text
from pipelines.execution import Leaf, Seen
from pipelines.pipeline import Pipeline
from pipelines.place import Place
from pipelines.placeholders import Facts
from pipelines.states import End, TaskState
from registry import pipeline_nodes, runs, slots, tracking
from registry.tracking import Tracked
from schedules import kfp_macros
from tasks.logs import Logs
from tasks.logs import publish as publish_log
from tasks.parameters import Text
from tasks.pipelines import request as requests
from tasks.pipelines.recording import Recorder
from tasks.pipelines.request import NasMount, PipelineRun
from tasks.resources import PipelineResources


def preflight(request: PipelineRun, flow_run_id: str) -> None:
    """Refuse a pipeline run that cannot work, before anything is started.

    Raises:
        ModelyardError: With a code of its own for each fault.
    """
    home = homes.current()
    kept = Place(home.runs / flow_run_id).compiled if flow_run_id else None
    requests.check(request, kept, home, settings.load())
    tracking.check_experiment(request.experiment, flow_run_id)
    if request.name:
        tracking.check_name(pipeline_nodes.FLOW, request.name, request.experiment, flow_run_id)


class _Work:
    """What the engine has done for it."""

    def __init__(
        self, pipeline: Pipeline, components: Components, recorder: Recorder, shown: Shown,
        *, cache: bool,
    ) -> None:  # fmt: skip
        self._pipeline = pipeline
        self._components = components
        self._recorder = recorder
        self._shown = shown
        self._cache = cache

    def submit(self, leaf: Leaf) -> Future[End]:
        """Begin a leaf."""
        return self._shown.submit(lambda: self.run(leaf))

    def seen(self, node: Seen) -> None:
        """Take notice of a node."""
        self._recorder.seen(node)
        self._shown.seen(node)

    def fill(self, path: str, value: Any, parameters: Mapping[str, Any]) -> Any:
        """A constant of a task with its placeholders filled."""
        return self._components.fill(path, value, parameters)

    def run(self, leaf: Leaf) -> End:
        """Run a leaf, unless what it hands on is known."""
        options = leaf.task.caching_options
        fingerprint = caching.fingerprint(
            self._pipeline, leaf.component, leaf.inputs, key=options.cache_key,
            settings=self._components.settings(leaf),
        )  # fmt: skip
        state = TaskState.SUCCEEDED
        anew = self._components.is_anew(leaf)
        with self._shown.leaf(leaf.path) as say:
            outputs = None
            if not self._components.is_action(leaf):
                outputs = self._recorder.kept(leaf, fingerprint)
            if outputs is not None:
                say("It had ended well before the retry; it is not run again.")
                self._shown.ended(leaf.path, outputs, kept=True)
                return End(state, outputs)
            if self._cache and options.enable_cache and not anew:
                outputs = self._recorder.cached(fingerprint)
                state = TaskState.SUCCEEDED if outputs is None else TaskState.CACHED
            if outputs is None:
                outputs = self._components.run(leaf)
            self._recorder.done(leaf, fingerprint, outputs, state)
            self._shown.ended(leaf.path, outputs, kept=False)
        return End(state, outputs)


def _run(held: Execution, request: PipelineRun) -> State[Any]:
    place = Place(held.home.runs / held.flow_run_id)
    pipeline = _begun(request, place)
    given = arguments_of(pipeline, _filled(request.arguments, held))
    tracked = _open(request, given, held)
    status = "KILLED"
    try:
        status, state = _concluded(
            _executed(pipeline, given, request, held, place, tracked), held, tracked
        )
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracking.close_run(tracked.run_id, status)
    return state


def _begun(request: PipelineRun, place: Place) -> Pipeline:
    """The pipeline that the run began with; a retry has it whatever became of the file."""
    compiled = place.compiled
    if not compiled.exists():
        place.root.mkdir(parents=True, exist_ok=True)
        partial = compiled.with_suffix(".partial")
        partial.write_bytes(requests.contents(request.pipeline)[0])
        partial.replace(compiled)
    return reading.read(compiled)


def _filled(given: Mapping[str, Any], held: Execution) -> dict[str, Any]:
    """The arguments with Kubeflow's macros filled in; a retry has what the first attempt had."""
    slot = held.labels.get(runs.SLOT_LABEL)
    at = datetime.fromisoformat(str(slot)) if slot else None
    schedule = str(held.labels.get(runs.SCHEDULE_LABEL, ""))
    facts = kfp_macros.RunFacts(
        held.flow_run_id,
        held.created,
        at,
        slots.number(schedule, int(at.timestamp())) if at and schedule else None,
    )
    return {name: kfp_macros.fill_all(value, facts) for name, value in given.items()}


def _open(request: PipelineRun, given: Mapping[str, Any], held: Execution) -> Tracked:
    """Open the MLflow run and tie both runs to each other."""
    tracked = tracking.open_run(
        tracking.Opening(
            flow_run_id=held.flow_run_id,
            kind=pipeline_nodes.FLOW,
            name=request.name or held.name,
            experiment=request.experiment,
            description=request.description,
            user=held.user,
            parameters=given,
        ),
        retried=held.attempt > 1,
    )
    artifacts.tie_to_mlflow(held.flow_run_id, tracked, "Arguments and metrics in MLflow")
    if graph := connection.page(f"/runs/{held.flow_run_id}"):
        artifacts.link(held.flow_run_id, "pipeline-graph", graph, "The graph of the run")
    return tracked


def _executed(
    pipeline: Pipeline,
    given: Mapping[str, Any],
    request: PipelineRun,
    held: Execution,
    place: Place,
    tracked: Tracked,
) -> End:
    """Run the pipeline to its end."""
    shown = Shown(
        held, pipeline, tracked, place, parallel=request.parallel, stream=request.logs.stream,
        root=choice.artifacts(held.settings),
    )  # fmt: skip
    recorder = Recorder(held.flow_run_id)
    launcher = choice.backend(
        held.settings, RunAttempt(held.flow_run_id, _attempt(held)),
        allow_cpu=request.resources.allow_cpu,
    )  # fmt: skip
    root = _root(pipeline, held)
    components = Components(
        pipeline, launcher, place, _facts(pipeline, held, place, root), shown.line,
        held.cancelled, claims=choice.claims(launcher, held.home), root=root,
        folders=requests.folders(request),
    )  # fmt: skip
    components.check()
    work = _Work(pipeline, components, recorder, shown, cache=request.cache)
    allowed = int(pipeline.config.get("activeDeadlineSeconds", 0))
    engine = execution.Execution(
        pipeline, work, parallel=request.parallel, cancelled=held.cancelled
    )
    try:
        with (
            closing(launcher), tracking.system_metrics(tracked), recorder.writing(),
            shown.going_on(), _deadline(allowed, held.cancelled) as late,
        ):  # fmt: skip
            end = engine.run(_bundle(pipeline, given))
            if late.is_set() and end.state != TaskState.SUCCEEDED:
                reason = f"It took longer than the {allowed} s that its pipeline allows."
                end = End(TaskState.FAILED, reason=reason)
            elif held.cancelled.is_set() and not late.is_set():
                end = End(TaskState.CANCELLED, reason="Stopped.")
            if end.state != TaskState.CANCELLED:
                lifecycle.concluding(held, failed=end.state != TaskState.SUCCEEDED)
            shown.over(end)
            recorder.seen(Seen(pipeline_nodes.ROOT, pipeline.name, "pipeline", end.state,
                               end.reason, outputs=end.outputs))  # fmt: skip
            return end
    finally:
        publish_log(place.log, request.logs, held.flow_run_id, get_run_logger().warning)


def _attempt(held: Execution) -> int:
    """The number that the cluster knows the attempt by, if it runs there; else Prefect's."""
    return int(os.environ.get("MODELYARD_ATTEMPT") or held.attempt)


def _root(pipeline: Pipeline, held: Execution) -> str:
    """The URI below which the run's artifacts go; "" if they stay with the run."""
    roots = (pipeline.spec.default_pipeline_root, choice.artifacts(held.settings))
    found = (remotes.root(root, pipeline.name, held.flow_run_id) for root in roots)
    return next(filter(None, found), "")


@contextmanager
def _deadline(seconds: int, cancelled: threading.Event) -> Iterator[threading.Event]:
    """Stop the run after so many seconds, unless they are 0; the event tells whether it was."""
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


def _concluded(end: End, held: Execution, tracked: Tracked) -> tuple[str, State[Any]]:
    """MLflow's status and Prefect's state."""
    if end.state == TaskState.CANCELLED:
        return "KILLED", Cancelled(message=end.reason)
    if end.state != TaskState.SUCCEEDED:
        error = ModelyardError(
            end.reason, "Mend what failed, and go on: modelyard runs retry.",
            code="PipelineFailed",
        )  # fmt: skip
        return "FAILED", lifecycle.failed(error)
    result = pipeline_nodes.result(held.flow_run_id, tracked.run_id, over=True)
    return "FINISHED", lifecycle.completed(result, "The pipeline has run.")


def _facts(pipeline: Pipeline, held: Execution, place: Place, root: str) -> Facts:
    created = time_text(held.created)
    return Facts(
        job_name=held.name,
        job_resource_name=f"{pipeline.name}-{held.flow_run_id}",
        job_id=held.flow_run_id,
        created=created,
        scheduled=str(held.labels.get(runs.SLOT_LABEL) or created),
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


def _run_name() -> str:
    return str(flow_run.parameters.get("name") or flow_run.name)


@lifecycle.lifecycle_flow(
    name=pipeline_nodes.FLOW,
    model=PipelineRun,
    preflight=preflight,
    run_name=_run_name,
    fill=requests.fill,
)
def pipeline_run(
    name: Text = "",
    description: Text = "",
    experiment: str = "Default",
    pipeline: Text = "",
    arguments: dict[str, Any] = {},  # noqa: B006
    resources: PipelineResources = PipelineResources(),  # noqa: B008
    mounts: list[NasMount] = [],  # noqa: B006
    parallel: int = 64,
    cache: bool = True,
    logs: Logs = Logs(),  # noqa: B008
) -> dict[str, Any]:
    """Run a pipeline that was compiled with the KFP SDK; Kubeflow is not needed.

    Args:
        name: The run's name; given by Prefect if empty.
        description: Free text.
        experiment: The experiment that the run belongs to.
        pipeline: An uploaded pipeline, NAME or NAME:VERSION; or the path of a compiled one: YAML,
            or a zip.
        arguments: The pipeline's own inputs.
        resources: The machines that its tasks share.
        mounts: Folders of a NAS, each of which its tasks find as /mnt/NAME.
        parallel: How many of its tasks run at once at most.
        cache: Whether tasks may take what an equal task has handed on before.
        logs: What becomes of what its tasks print.

    Returns:
        ``{"mlflow_run_id", "outputs", "tasks"}``: the pipeline's output parameters, and how each
        of its tasks ended.
    """
    # Prefect ends the run in a state that is returned; a caller gets the state's data.
    return lifecycle.execute(PipelineRun, preflight, _run, requests.fill)  # type: ignore[return-value]
