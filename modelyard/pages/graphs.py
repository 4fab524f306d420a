"""Graphs of runs and of uploaded pipelines, with the details of one node."""

from __future__ import annotations

import functools
import hashlib
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from markupsafe import Markup

from infra.errors import ModelyardError, NotFoundError, StackError
from infra.mlflow import RegisteredModel
from modelyard.pages import (
    details,
    downloads,
    evaluations,
    listing,
    logs,
    predictions,
    run_facts,
    schedule_facts,
    trials,
)
from modelyard.pages.comparison_thread import ComparisonThread
from modelyard.pages.details import Details, FullRow
from modelyard.pages.listing import Input, Ref
from modelyard.pages.run_facts import RunPageView
from modelyard.pages.servers import TrackedRun
from modelyard.tensorboards import TensorBoard
from pipelines import reading
from pipelines.drawing import building, model, svg, words
from pipelines.drawing.model import Box, NodeRow
from pipelines.drawing.style import STATES
from pipelines.pipeline import Pipeline
from pipelines.run_directory import PipelineRunDirectory
from pipelines.states import TaskState
from registry import flow_kinds
from registry.pipelines import pipeline_nodes, pipelines
from registry.pipelines.pipeline_views import PipelineSummaryView
from registry.runs import statuses
from registry.runs.run_views import RunView
from registry.schedules import schedules as schedule_rows
from registry.tunings import trial_results
from schedules import views as schedule_views
from schedules.views import ScheduleDetailView, ScheduleView


class RunSource(Protocol):
    """Prefect and MLflow, as the pages query them: see ``servers.Servers``."""

    @property
    def ui_urls(self) -> dict[str, str]:
        """Addresses of the UIs, by the server's name."""

    def runs(
        self, limit: int, flow: str = "", *, types: Collection[str] = (), after: int = 0,
        tag: str = "",
    ) -> list[RunView]:  # fmt: skip
        """The newest runs."""

    def active_count(self) -> int:
        """How many runs have not ended."""

    def models(self, limit: int) -> list[RegisteredModel]:
        """The registered models that were changed last."""

    def run(self, run_id: str) -> RunView | None:
        """A run."""

    def log(self, run_id: str, limit: int, *, after: int = 0, newest: bool = False) -> list[str]:
        """Lines of a run's log."""

    def task_run(self, run_id: str, path: str) -> str | None:
        """The id of the task run of a node."""

    def run_url(self, run_id: str) -> str:
        """A run's page."""

    def task_run_url(self, task_run_id: str) -> str:
        """A task run's page."""

    def tracked(self, mlflow_run_id: str) -> TrackedRun | None:
        """A run as MLflow has it."""

    def artifact(self, mlflow_run_id: str, path: str, most: int) -> bytes | None:
        """An artifact of a run, of at most so many bytes."""


@dataclass(frozen=True)
class Sources:
    """Sources of the pages' data.

    Attributes:
        runs: The folder of the runs' folders.
        servers: Prefect and MLflow.
        compiled: Returns the file of an uploaded pipeline and its name, for ``NAME`` or
            ``NAME:VERSION``. Raises NotFoundError if there is none.
        nodes: Returns the nodes of a run, without inputs and outputs.
        node: Returns one of them, with inputs and outputs.
        pipelines: Lists the uploaded pipelines that were changed last, at most so many.
        schedules: Lists the schedules that were changed last, at most so many.
        boards: Lists the TensorBoards that are running on this machine.
        overview: Returns the trials of a tuning, as ``trial_results.overview``.
        schedule: Returns a schedule by its name or id. Raises NotFoundError if there is none.
        schedule_name: Returns the name of the schedule with an id.
        comparing: Compares evaluations.
    """

    runs: Path
    servers: RunSource
    compiled: Callable[[str], tuple[bytes, str]]
    nodes: Callable[[str], Sequence[NodeRow]] = pipeline_nodes.in_brief
    node: Callable[[str, str], FullRow | None] = pipeline_nodes.one
    pipelines: Callable[[int], Sequence[PipelineSummaryView]] = pipelines.list_newest
    schedules: Callable[[int], Sequence[ScheduleView]] = schedule_views.list_newest
    boards: Callable[[], Sequence[TensorBoard]] = tuple
    overview: trials.Overview = trial_results.overview
    schedule: Callable[[str], ScheduleDetailView] = schedule_facts.show
    schedule_name: Callable[[str], str] = schedule_rows.name_of
    comparing: ComparisonThread = field(default_factory=ComparisonThread)


@dataclass(frozen=True)
class GraphView:
    """A page with a graph.

    Attributes:
        title: Name of the run or the pipeline.
        graph: The graph as SVG; empty before there is one.
        details: Details of the chosen node, or of the whole.
        states: Number of tasks in each state: state, word and number.
        going: Whether it may still change.
        tag: The page's entity tag.
        run: The run; None of a pipeline, or if Prefect does not answer.
        notice: What a user should know about it.
        arguments: The run's arguments.
        inputs: The uploaded pipeline's inputs.
        source: The run's pipeline.
        facts: The run's description and experiment, where its whole is shown: label and text.
        error: Why the run failed, where its whole is shown; empty otherwise.
        lines: The last lines of its log then.
        schedule: The schedule that made the run, where its whole is shown.
    """

    title: str
    graph: Markup
    details: Details | None
    states: list[tuple[str, str, int]]
    going: bool
    tag: str
    run: RunView | None = None
    notice: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Input, ...] = ()
    source: Ref | None = None
    facts: tuple[tuple[str, str], ...] = ()
    error: str = ""
    lines: tuple[str, ...] = ()
    schedule: Ref | None = None


class _ObservedRun:
    """State of a run when its page is requested."""

    def __init__(self, sources: Sources, run_id: str, chosen: str) -> None:
        """Read it from Prefect and the catalogue.

        Raises:
            NotFoundError: If there is no pipeline run of this id.
        """
        self.notice = ""
        self.run: RunView | None = None
        try:
            self.run = sources.servers.run(run_id)
        except StackError as error:
            self.notice = str(error)
        self.rows = sources.nodes(run_id)
        flow = self.run.flow if self.run else flow_kinds.PIPELINE_RUN.name
        if flow != flow_kinds.PIPELINE_RUN.name:
            raise NotFoundError(
                f"The run {run_id} is one of {flow}, which has no graph.",
                f"Its page in Prefect shows it: {sources.servers.run_url(run_id)}.",
            )
        if self.run is None and not self.rows:
            raise NotFoundError(
                f"There is no pipeline run {run_id}.",
                self.notice or "The first page lists those there are, and modelyard runs list.",
            )
        self.over = self.run.is_final if self.run else None
        self.tag = self._tag(chosen)

    def _tag(self, chosen: str) -> str:
        # Its seconds increase while it runs, and no page of it shows them.
        run = self.run and self.run.model_copy(update={"seconds": 0.0})
        digest = hashlib.sha256(repr((chosen, run, self.notice)).encode())
        for row in self.rows:
            shown = (row.path, row.state, row.attempt, row.began, row.ended, row.reason)
            digest.update(repr(shown).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:24]


def run_id(written: str) -> str:
    """Return a run's id in its canonical form.

    Raises:
        NotFoundError: If it is not a UUID.
    """
    try:
        return str(uuid.UUID(written))
    except ValueError:
        raise NotFoundError(
            f"{written!r} is not the id of a run.",
            "The first page lists the newest runs, and modelyard runs list all of them.",
        ) from None


def tag(sources: Sources, run_id: str, chosen: str) -> str:
    """Return the entity tag of a run's page.

    Raises:
        NotFoundError: If there is no such run.
    """
    return _ObservedRun(sources, run_id, chosen).tag


def of_run(sources: Sources, run_id: str, chosen: str) -> GraphView:
    """Return the graph of a run.

    Args:
        sources: The sources.
        run_id: The run.
        chosen: Path of the node to show details of; empty for none.

    Raises:
        NotFoundError: If there is no such run.
    """
    observed = _ObservedRun(sources, run_id, chosen)
    run = observed.run
    title = listing.title(run) if run else run_id
    arguments = run.parameters.get("arguments") if run else None
    given = arguments.items() if isinstance(arguments, dict) else ()
    shown = tuple((name, details.written(value)) for name, value in given)
    failed = run if run and not chosen and statuses.is_failure(run.state) else None
    error = failed.message if failed else ""
    lines = logs.tail(sources.servers, failed) if failed else ()
    made_by = schedule_facts.ref(run, sources.schedule_name) if run and not chosen else None
    pipeline = _pipeline_of(sources.runs / run_id) or _uploaded(sources, observed)
    if pipeline is None:
        notice = observed.notice or (
            "It has ended before it began." if observed.over else "It has not begun yet."
        )
        return GraphView(
            title, Markup(""), None, [], not observed.over, observed.tag, run, notice, shown,
            facts=tuple(run_facts.facts(run, None)) if run else (), error=error, lines=lines,
            schedule=made_by,
        )  # fmt: skip
    root = building.draw(pipeline, observed.rows, over=observed.over, keep=chosen)
    now = time.time()
    address = functools.partial(_address, f"/runs/{run_id}")
    tracked = None if chosen else _tracked(sources, run)
    node = _details(sources, observed, root, run_id, chosen, now, tracked)
    return GraphView(
        title=title,
        graph=Markup(svg.write(root, now=now, link=address, chosen=chosen or None)),  # noqa: S704
        details=node,
        states=_states(observed.rows, over=bool(observed.over)),
        going=not observed.over,
        tag=observed.tag,
        run=run,
        notice=observed.notice,
        arguments=shown,
        source=listing.run_ref(run) if run else None,
        facts=tuple(run_facts.facts(run, tracked)) if run and not chosen else (),
        error=error,
        lines=lines,
        schedule=made_by,
    )


def _tracked(sources: Sources, run: RunView | None) -> TrackedRun | None:
    return sources.servers.tracked(run.mlflow_run_id) if run and run.mlflow_run_id else None


def without_graph(sources: Sources, run_id: str, chosen: str = "") -> RunPageView | None:
    """Return the page of a run of a flow without graphs; None if it has a graph.

    Also None where Prefect does not answer, which knows the run's flow.

    Args:
        sources: The sources.
        run_id: The run.
        chosen: The class whose curves an evaluation shows; empty for the first ones.
    """
    try:
        run = sources.servers.run(run_id)
    except StackError:
        return None
    if run is None or run.flow == flow_kinds.PIPELINE_RUN.name:
        return None
    tracked = _tracked(sources, run)
    shown = run_facts.of(run, tracked, sources.servers.run_url(run_id))
    if run.flow == flow_kinds.TUNE.name:
        shown = replace(shown, trials=trials.of(run, tracked, sources.overview))
    elif run.flow == flow_kinds.BATCH_INFERENCE.name:
        shown = replace(shown, predictions=predictions.of(run, tracked))
    elif run.flow == flow_kinds.EVALUATE.name:
        found = evaluations.of(run, tracked, sources.servers, chosen)
        shown = replace(shown, evaluation=found, metrics=() if found.metrics else shown.metrics)
    return replace(
        shown,
        lines=logs.tail(sources.servers, run),
        schedule=schedule_facts.ref(run, sources.schedule_name),
        parents=run_facts.parents(run, sources.servers.run),
    )


def of_pipeline(sources: Sources, name: str, version: str | None, chosen: str) -> GraphView:
    """Return the graph of an uploaded pipeline.

    Raises:
        NotFoundError: If there is none.
    """
    reference = name if version is None else f"{name}:{version}"
    pipeline = reading.read_bytes(*sources.compiled(reference))
    root = building.draw(pipeline, keep=chosen)
    now = time.time()
    more = {"version": version} if version is not None else {}
    base = listing.page(name)
    box = _find(root, chosen)
    return GraphView(
        title=reference,
        graph=Markup(  # noqa: S704 (svg.write escapes all values)
            svg.write(
                root,
                now=now,
                link=functools.partial(_address, base, **more),
                chosen=chosen or None,
            )
        ),
        details=details.of(box, None, now) if box else None,
        states=[],
        going=False,
        tag="",
        inputs=tuple(listing.inputs(pipeline)),
    )


def _address(base: str, path: str, **more: str) -> str:
    asked = {**more, **({"node": path} if path else {})}
    return f"{base}?{urlencode(asked, errors='replace')}" if asked else base


def _pipeline_of(folder: Path) -> Pipeline | None:
    """Return the pipeline that a run started with; None if it has not started here."""
    compiled = PipelineRunDirectory(folder).compiled
    try:
        written = compiled.stat()
    except OSError:
        return None
    return _read(compiled, written.st_mtime_ns, written.st_ino)


def _uploaded(sources: Sources, observed: _ObservedRun) -> Pipeline | None:
    """Return the pipeline of a run on another machine; None if it was not uploaded."""
    reference = listing.reference(observed.run) if observed.run else ""
    if not (observed.rows and reference):
        return None
    try:
        return reading.read_bytes(*sources.compiled(reference))
    except ModelyardError:
        return None


@functools.lru_cache(maxsize=8)
def _read(compiled: Path, *_: int) -> Pipeline:
    return reading.read(compiled)


def _find(root: Box, path: str) -> Box | None:
    return next((box for box in root.walk() if box.path == path), None)


def _states(rows: Sequence[NodeRow], *, over: bool) -> list[tuple[str, str, int]]:
    """Count tasks by state."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.kind == model.TASK:
            state = building.node_state(row, over=over)
            counts[state] = counts.get(state, 0) + 1
    return [(state, words.state(state), counts[state]) for state in STATES if state in counts]


def _details(
    sources: Sources, observed: _ObservedRun, root: Box, run_id: str, chosen: str, now: float,
    tracked: TrackedRun | None,
) -> Details | None:  # fmt: skip
    box = _find(root, chosen)
    if box is None:
        return None
    row = sources.node(run_id, box.path)

    def download(name: str, number: int, uri: str) -> str:
        if not downloads.offered(uri, sources.runs):
            return ""
        asked = {"node": box.path, "output": name, "number": number}
        return f"/runs/{run_id}/artifact?{urlencode(asked, errors='replace')}"

    found = details.of(box, row, now, download)
    if box.kind == model.LOOP:
        listed = details.iterations(observed.rows, box.path, over=bool(observed.over))
        most = details.MOST_LISTED
        found = replace(found, iterations=listed[:most], unlisted=max(0, len(listed) - most))
    return replace(found, links=_links(sources, observed, run_id, box, tracked))


def _links(
    sources: Sources, observed: _ObservedRun, run_id: str, box: Box, tracked: TrackedRun | None
) -> list[tuple[str, str]]:
    """Return pages of other UIs whose servers answer."""
    links = []
    began = box.state not in {TaskState.WAITING, TaskState.SKIPPED, TaskState.OMITTED}
    if not box.path:
        links.append(("Log", logs.address(run_id)))
        links.append(("Run and log in Prefect", sources.servers.run_url(run_id)))
    elif not box.group and began and observed.run is not None:
        task_run = sources.servers.task_run(run_id, box.path)
        if task_run:
            links.append(("Task and log in Prefect", sources.servers.task_run_url(task_run)))
    return links + (run_facts.links(tracked) if not box.path else [])


def artifact(sources: Sources, run_id: str, asked: Mapping[str, str]) -> tuple[Any, str]:
    """Return the store of an artifact, and the file name of its download.

    Raises:
        NotFoundError: If there is no such artifact.
        BadInputError: If it may not be downloaded.
    """
    row = sources.node(run_id, asked.get("node", ""))
    if row is None:
        raise NotFoundError(
            f"Nothing is known of the node {asked.get('node', '')!r} of the run {run_id}.",
            "The run's page shows its nodes.",
        )
    number = asked.get("number", "0")
    name = asked.get("output", "")
    found = downloads.one(row.outputs, name, int(number) if number.isdecimal() else -1)
    parts = [part for part in (*row.path.split("/"), name) if part]
    listed = isinstance(row.outputs["artifacts"][name], list)
    named = "-".join([*parts, number] if listed else parts)
    return downloads.place(str(found.get("uri", "")), sources.runs), named[-150:]
