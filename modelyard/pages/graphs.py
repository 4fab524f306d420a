"""The graph of a run, and of an uploaded pipeline, with what is told of one node."""

from __future__ import annotations

import functools
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from markupsafe import Markup

from infra.errors import ModelyardError, NotFoundError, StackError
from modelyard.pages import details, downloads, listing, servers
from modelyard.pages.details import Details, FullRow
from modelyard.pages.listing import Input, Ref
from pipelines import reading
from pipelines.drawing import building, model, svg, words
from pipelines.drawing.model import Box, Row
from pipelines.drawing.style import STATES
from pipelines.pipeline import Pipeline
from pipelines.place import Place
from pipelines.states import TaskState
from registry import flow_kinds
from registry.pipelines import pipeline_nodes, pipelines


class Servers(Protocol):
    """What is asked of Prefect and MLflow; ``servers.Servers`` answers it."""

    def runs(self, flow: str, limit: int) -> list[servers.Run]:
        """The newest runs of a flow."""

    def run(self, run_id: str) -> servers.Run | None:
        """A run."""

    def task_run(self, run_id: str, path: str) -> str | None:
        """The id of the task run of a node."""

    def run_url(self, run_id: str) -> str:
        """A run's page."""

    def task_run_url(self, task_run_id: str) -> str:
        """A task run's page."""

    def mlflow_url(self, mlflow_run_id: str) -> str | None:
        """A run's page in MLflow."""


@dataclass(frozen=True)
class Sources:
    """Where the pages have what they show from.

    Attributes:
        runs: The folder that the folders of runs lie in.
        servers: Prefect and MLflow.
        compiled: The file of an uploaded pipeline and what it is called, by ``NAME`` or
            ``NAME:VERSION``. Raises NotFoundError where there is none.
        nodes: The nodes of a run, without what goes in and comes out.
        node: One of them, with it.
        pipelines: The uploaded pipelines, as ``modelyard pipeline list`` has them.
    """

    runs: Path
    servers: Servers
    compiled: Callable[[str], tuple[bytes, str]]
    nodes: Callable[[str], Sequence[Row]] = pipeline_nodes.in_brief
    node: Callable[[str, str], FullRow | None] = pipeline_nodes.one
    pipelines: Callable[[], Sequence[Mapping[str, Any]]] = pipelines.list_all


@dataclass(frozen=True)
class Shown:
    """What a page shows.

    Attributes:
        title: What the graph is of.
        graph: The graph; empty where there is none yet.
        details: What is told of the node that is chosen; of the whole if none is.
        states: How many tasks stand how: state, word and number.
        going: Whether it may still change.
        tag: The same as long as nothing has changed.
        run: The run, as far as Prefect tells.
        notice: What a person should know of it.
        arguments: What the run was given.
        inputs: What the uploaded pipeline takes.
        source: The pipeline that the run runs.
    """

    title: str
    graph: Markup
    details: Details | None
    states: list[tuple[str, str, int]]
    going: bool
    tag: str
    run: servers.Run | None = None
    notice: str = ""
    arguments: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Input, ...] = ()
    source: Ref | None = None


class _Known:
    """What is known of a run when a page of it is asked for."""

    def __init__(self, sources: Sources, run_id: str, chosen: str) -> None:
        """Ask for it.

        Raises:
            NotFoundError: If there is no pipeline run of this id.
        """
        self.notice = ""
        self.run: servers.Run | None = None
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
        self.over = self.run.over if self.run else None
        self.tag = self._tag(chosen)

    def _tag(self, chosen: str) -> str:
        digest = hashlib.sha256(repr((chosen, self.run, self.notice)).encode())
        for row in self.rows:
            told = (row.path, row.state, row.attempt, row.began, row.ended, row.reason)
            digest.update(repr(told).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:24]


def run_id(written: str) -> str:
    """A run's id in its usual form.

    Raises:
        NotFoundError: If it is none, so there can be no such run.
    """
    try:
        return str(uuid.UUID(written))
    except ValueError:
        raise NotFoundError(
            f"{written!r} is no id of a run.",
            "The first page lists the newest runs, and modelyard runs list all of them.",
        ) from None


def tag(sources: Sources, run_id: str, chosen: str) -> str:
    """What changes when the page of a run changes.

    Raises:
        NotFoundError: If there is no such run.
    """
    return _Known(sources, run_id, chosen).tag


def of_run(sources: Sources, run_id: str, chosen: str) -> Shown:
    """The graph of a run.

    Args:
        sources: Where to have it from.
        run_id: The run.
        chosen: The path of the node that is told of; empty for none.

    Raises:
        NotFoundError: If there is no such run.
    """
    known = _Known(sources, run_id, chosen)
    run = known.run
    title = run.name if run else run_id
    given = (
        tuple((name, details.shown(value)) for name, value in run.arguments.items()) if run else ()
    )
    pipeline = _pipeline_of(sources.runs / run_id) or _uploaded(sources, known)
    if pipeline is None:
        notice = known.notice or (
            "It has ended before it began." if known.over else "It has not begun yet."
        )
        return Shown(
            title, Markup(""), None, [], not known.over, known.tag, run, notice, given
        )  # fmt: skip
    root = building.draw(pipeline, known.rows, over=known.over, keep=chosen)
    now = time.time()
    address = functools.partial(_address, f"/runs/{run_id}")
    told = _told(sources, known, root, run_id, chosen, now)
    return Shown(
        title=title,
        graph=Markup(svg.write(root, now=now, link=address, chosen=chosen or None)),  # noqa: S704
        details=told,
        states=_states(known.rows, over=bool(known.over)),
        going=not known.over,
        tag=known.tag,
        run=run,
        notice=known.notice,
        arguments=given,
        source=listing.ref(run.pipeline) if run else None,
    )


def of_pipeline(sources: Sources, name: str, version: str | None, chosen: str) -> Shown:
    """The graph of an uploaded pipeline.

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
    return Shown(
        title=reference,
        graph=Markup(  # noqa: S704 (all that is of others is escaped in it)
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
    """The pipeline that a run began with; None if it has not."""
    compiled = Place(folder).compiled
    try:
        written = compiled.stat()
    except OSError:
        return None
    return _read(compiled, written.st_mtime_ns, written.st_ino)


def _uploaded(sources: Sources, known: _Known) -> Pipeline | None:
    """The pipeline of a run that has begun on another machine; None if it was not uploaded."""
    if not (known.rows and known.run and known.run.pipeline):
        return None
    try:
        return reading.read_bytes(*sources.compiled(known.run.pipeline))
    except ModelyardError:
        return None


@functools.lru_cache(maxsize=8)
def _read(compiled: Path, *_: int) -> Pipeline:
    return reading.read(compiled)


def _find(root: Box, path: str) -> Box | None:
    return next((box for box in root.walk() if box.path == path), None)


def _states(rows: Sequence[Row], *, over: bool) -> list[tuple[str, str, int]]:
    """How many tasks stand how."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.kind == model.TASK:
            state = building.standing(row, over=over)
            counts[state] = counts.get(state, 0) + 1
    return [(state, words.state(state), counts[state]) for state in STATES if state in counts]


def _told(
    sources: Sources, known: _Known, root: Box, run_id: str, chosen: str, now: float
) -> Details | None:
    box = _find(root, chosen)
    if box is None:
        return None
    row = sources.node(run_id, box.path)

    def download(name: str, number: int, uri: str) -> str:
        if not downloads.offered(uri, sources.runs):
            return ""
        asked = {"node": box.path, "output": name, "number": number}
        return f"/runs/{run_id}/artifact?{urlencode(asked, errors='replace')}"

    told = details.of(box, row, now, download)
    if box.kind == model.LOOP:
        listed = details.iterations(known.rows, box.path, over=bool(known.over))
        most = details.MOST_LISTED
        told = replace(told, iterations=listed[:most], unlisted=max(0, len(listed) - most))
    return replace(told, links=_links(sources, known, run_id, box))


def _links(sources: Sources, known: _Known, run_id: str, box: Box) -> list[tuple[str, str]]:
    """Pages of other UIs, as far as their servers answer."""
    links = []
    began = box.state not in {TaskState.WAITING, TaskState.SKIPPED, TaskState.OMITTED}
    if not box.path:
        links.append(("Run and log in Prefect", sources.servers.run_url(run_id)))
    elif not box.group and began and known.run is not None:
        task_run = sources.servers.task_run(run_id, box.path)
        if task_run:
            links.append(("Task and log in Prefect", sources.servers.task_run_url(task_run)))
    if known.run is not None and known.run.mlflow_run_id and not box.path:
        url = sources.servers.mlflow_url(known.run.mlflow_run_id)
        links += [("Metrics in MLflow", url)] if url else []
    return links


def artifact(sources: Sources, run_id: str, asked: dict[str, Any]) -> tuple[Any, str]:
    """The store of an artifact, and what its download is called.

    Raises:
        NotFoundError: If there is no such artifact.
        BadInputError: If it may not be handed out.
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
