"""Prefect artifacts of a pipeline run, beside its task runs.

A table of the tasks, a progress bar and a page of the artifacts are updated in place; each task
run has a page of its outputs.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.logging import get_run_logger

from flows import artifacts
from flows.pipeline_tasks import has_whole_line, outputs_line
from infra.errors import ModelyardError
from infra.prefect_client import prefect_client
from infra.storage import store
from infra.texts import make_storable
from pipelines.artifacts import Artifact, Bundle
from pipelines.execution import NodeStatus
from pipelines.states import UNDONE, TaskState
from registry.pipelines import pipeline_nodes
from tasks.pipelines.publishing import LeafResult

TABLE, BAR, ARTIFACTS, OUTPUTS = "tasks", "progress", "artifacts", "outputs"

_REFRESH_SECONDS = 3.0
_LAST_SECONDS = 10.0
_SHOWN_TASKS = 500
_SHOWN_ARTIFACTS = 200
_MOST_OUTPUTS = 200  # task runs of a run that get an artifact of their own
_LONGEST_VALUE = 500
_LONGEST_OUTPUTS = 20_000
_LONGEST_REPORT = 200_000
_MARKDOWN = "system.Markdown"
_ORDER = {
    state: place
    for place, state in enumerate(
        (
            TaskState.FAILED, TaskState.RUNNING, TaskState.CANCELLED, TaskState.OMITTED,
            TaskState.WAITING, TaskState.SUCCEEDED, TaskState.CACHED, TaskState.SKIPPED,
        )
    )
}  # fmt: skip
_LEFT_OUT = frozenset({TaskState.SKIPPED, TaskState.OMITTED})


class PipelineProgress:
    """Progress of a pipeline run, which a thread renders at an interval."""

    def __init__(
        self,
        flow_run_id: str,
        mlflow_url: str,
        rows: Callable[[], list[dict[str, Any]]],
        *,
        again: bool = False,
    ) -> None:
        """Prepare the progress of a run.

        Args:
            flow_run_id: The run.
            mlflow_url: The page of its MLflow run.
            rows: Returns the rows of the table of artifacts known so far.
            again: Whether an earlier attempt may have created the artifacts.
        """
        self._again = again
        self._flow_run_id = flow_run_id
        self._mlflow_url = mlflow_url
        self._rows = rows
        self._logger = get_run_logger()
        self._lock = threading.Lock()
        self._nodes: dict[str, NodeStatus] = {}
        self._changed = threading.Event()
        self._changed.set()
        self._outputs: queue.SimpleQueue[LeafResult] = queue.SimpleQueue()
        self._outputs_left = _MOST_OUTPUTS
        self._made: dict[str, UUID] = {}
        self._result = Bundle()

    def on_node_changed(self, node: NodeStatus) -> None:
        """Update the state of a node."""
        with self._lock:
            self._nodes[node.path] = node
        self._changed.set()

    def add_outputs(self, leaf: LeafResult) -> None:
        """Add the outputs of a leaf; those of an earlier attempt are shown already."""
        if not leaf.kept and (leaf.outputs.artifacts or not has_whole_line(leaf.outputs)):
            self._outputs.put(leaf)

    def over(self, outputs: Bundle) -> None:
        """Add the outputs of the pipeline."""
        self._result = outputs

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Update the artifacts at an interval while the context is open, and at its end."""
        done = threading.Event()

        def refresh() -> None:
            self._attempt()  # at once, while the first tasks start and Prefect is idle
            while not done.wait(_REFRESH_SECONDS):
                self._attempt()

        thread = threading.Thread(target=refresh, daemon=True, name="progress")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(_LAST_SECONDS)
            self._changed.set()
            self._attempt(last=True)

    def _attempt(self, *, last: bool = False) -> None:
        try:
            with prefect_client() as client:
                if self._changed.is_set():
                    self._changed.clear()
                    self._refresh(client)
                self._show_outputs(client, time.monotonic() + _LAST_SECONDS)
        except Exception as error:  # noqa: BLE001 (no run fails because of a table; tried again)
            self._changed.set()
            log = self._logger.warning if last else self._logger.debug
            log("The progress could not be shown: %s", error)

    # The table, the bar and the page

    def _refresh(self, client: SyncPrefectClient) -> None:
        with self._lock:
            nodes = list(self._nodes.values())
        described = description(nodes)
        self._put(client, BAR, "progress", percent(nodes), described)
        self._put(client, TABLE, "table", json.dumps(table(nodes)), described)
        rows = self._rows()
        if rows:
            page = artifacts_page(rows, self._mlflow_url)
            self._put(client, ARTIFACTS, "markdown", page, f"{len(rows)} artifacts of tasks.")
        if self._result.parameters:
            outputs = [
                {"output": name, "value": _text(value)}
                for name, value in self._result.parameters.items()
            ]
            self._put(client, OUTPUTS, "table", json.dumps(outputs), "The pipeline's outputs.")

    def _put(
        self, client: SyncPrefectClient, key: str, kind: str, data: Any, described: str
    ) -> None:
        known = self._made.get(key)
        if known is None and self._again:
            known = artifacts.find(self._flow_run_id, key)
        content = {"data": data, "description": described}
        if known:
            self._made[key] = known
            client.request("PATCH", "/artifacts/{id}", path_params={"id": known}, json=content)
        else:
            new = {"key": key, "type": kind, "flow_run_id": self._flow_run_id, **content}
            made = client.request("POST", "/artifacts/", json=new).json()
            self._made[key] = UUID(made["id"])

    # Outputs of single tasks

    def _show_outputs(self, client: SyncPrefectClient, deadline: float) -> None:
        while not self._outputs.empty() and time.monotonic() < deadline:
            leaf = self._outputs.get()
            if self._outputs_left <= 0:
                continue
            self._outputs_left -= 1
            self._attach(client, leaf.path, outputs_page(leaf), f"The outputs of {leaf.path}.")
            for one in _all(leaf):
                report = _report(one)
                if report:
                    self._attach(client, leaf.path, report, f"The report {one.name}.")

    def _attach(self, client: SyncPrefectClient, path: str, markdown: str, described: str) -> None:
        new = {
            "type": "markdown", "data": markdown, "description": described,
            "flow_run_id": self._flow_run_id,
            "task_run_id": str(pipeline_nodes.task_run_id(self._flow_run_id, path)),
        }  # fmt: skip
        client.request("POST", "/artifacts/", json=new)


def _tasks(nodes: list[NodeStatus]) -> list[NodeStatus]:
    """Select the tasks, and the groups that were skipped or omitted as a whole."""
    return [node for node in nodes if node.kind == "task" or node.state in _LEFT_OUT]


def percent(nodes: list[NodeStatus]) -> float:
    """Percentage of the known tasks that are done; a loop's tasks are known once it starts."""
    tasks = _tasks(nodes)
    return 100.0 * sum(node.state not in UNDONE for node in tasks) / len(tasks) if tasks else 0.0


def description(nodes: list[NodeStatus]) -> str:
    """Counts of the tasks by state, in one line."""
    tasks = _tasks(nodes)
    done = sum(node.state not in UNDONE for node in tasks)
    counts = Counter(str(node.state) for node in tasks)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    again = sum(node.attempt > 1 for node in tasks)
    retried = f" {again} were retried." if again else ""
    left = len(tasks) - _SHOWN_TASKS
    more = f" The table shows {_SHOWN_TASKS} of them." if left > 0 else ""
    return f"{done} of {len(tasks)} tasks done: {states}.{retried}{more}" if tasks else "No tasks."


def table(nodes: list[NodeStatus]) -> list[dict[str, Any]]:
    """Rows of the tasks: failed ones first, then running ones, then by start time."""
    tasks = sorted(_tasks(nodes), key=lambda node: (_ORDER[node.state], node.began, node.path))
    return [_row(node) for node in tasks[:_SHOWN_TASKS]]


def _row(node: NodeStatus) -> dict[str, Any]:
    began = node.began and node.state not in {TaskState.SKIPPED, TaskState.OMITTED}
    seconds = round((node.ended or time.time()) - node.began, 1) if began else None
    title = pipeline_nodes.title(node.path, node.name, node.kind)
    return {
        "task": f"{node.path} ({title})" if title else node.path,
        "state": str(node.state), "seconds": seconds, "attempt": node.attempt,
        "told": node.reason[:_LONGEST_VALUE] or outputs_line(node.outputs),
    }  # fmt: skip


def artifacts_page(rows: list[dict[str, Any]], mlflow_url: str) -> str:
    """Page of the artifacts, with a link to MLflow or the URI of each."""
    page, _, query = mlflow_url.partition("?")
    lines = ["| task | artifact | type | bytes | where |", "|---|---|---|---|---|"]
    for row in rows[:_SHOWN_ARTIFACTS]:
        where = f"[{_cell(row['mlflow'])}]({page}/artifacts/{_link(row['mlflow'])}?{query})"
        shown = where if row["mlflow"] else _code(row["uri"])
        size = "" if row["size"] is None else f"{row['size']:,}"
        kind = row["type"].removeprefix("system.")
        lines.append(
            f"| {_cell(row['task'])} | {_cell(row['name'])} | {_cell(kind)} | {size} | {shown} |"
        )
    if rows[_SHOWN_ARTIFACTS:]:
        lines.append(f"\n{len(rows) - _SHOWN_ARTIFACTS} more are in `artifacts.json` in MLflow.")
    return "\n".join(lines)


def outputs_page(leaf: LeafResult) -> str:
    """Page of a task's outputs."""
    lines = []
    if leaf.outputs.parameters:
        lines += ["| parameter | value |", "|---|---|"]
        lines += [
            f"| {_cell(name)} | {_code(_text(value))} |"
            for name, value in leaf.outputs.parameters.items()
        ]
    if leaf.outputs.artifacts:
        lines += ["", "| artifact | type | uri | metadata |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(one.called)} | {_cell(one.schema)} "
            f"| {_code(one.uri)} | {_code(_text(dict(one.metadata)))} |"
            for one in _all(leaf)
        ]
    page = "\n".join(lines)
    return (
        page if len(page) <= _LONGEST_OUTPUTS else page[: page.rindex("\n", 0, _LONGEST_OUTPUTS)]
    )


def _all(leaf: LeafResult) -> list[Artifact]:
    return [
        one
        for value in leaf.outputs.artifacts.values()
        for one in (value if isinstance(value, list) else [value])
    ]


def _report(one: Artifact) -> str:
    """Text of a Markdown artifact; "" for another type, or if it cannot be read."""
    if one.schema != _MARKDOWN:
        return ""
    try:
        # A character has four bytes at most.
        data = store(one.uri).read(length=4 * (_LONGEST_REPORT + 1))
    except (ModelyardError, OSError):
        return ""
    text = make_storable(data.decode(errors="replace")[: _LONGEST_REPORT + 1])
    return text if len(text) <= _LONGEST_REPORT else f"{text[:_LONGEST_REPORT]}\n\n(cut here)"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = make_storable(text)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _plain(text: object) -> str:
    return make_storable(" ".join(str(text or "").split())).replace("`", "'").replace("<", "&lt;")


def _cell(text: object) -> str:
    """Escape a text for a cell of a table."""
    return re.sub(r"([\\|])", r"\\\1", _plain(text))


def _code(text: object) -> str:
    """Format a text as code in a cell; an odd number of backslashes escapes a bar there."""
    plain = re.sub(
        r"(\\*)\|", lambda bar: bar[1] + "\\" * (1 + len(bar[1]) % 2) + "|", _plain(text)
    )
    return f"`{plain}`"


def _link(path: str | None) -> str:
    return quote(path or "", safe="/-._~!$&'*+,;=:@")
