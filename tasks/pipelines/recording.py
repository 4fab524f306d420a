"""Recording of a run's nodes in the catalogue.

A node's success is written before it counts as done; other states are written with a delay.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager

from sqlalchemy.exc import DataError

from infra.errors import BadInputError
from pipelines import caching
from pipelines.artifacts import METADATA_ONLY, Bundle
from pipelines.execution import Leaf, NodeStatus
from pipelines.executor_io import local_path
from pipelines.states import DONE, TaskState
from registry import catalogue
from registry.pipelines import pipeline_nodes
from registry.pipelines.pipeline_nodes import PipelineNode

_FLUSH_SECONDS = 0.25

# States that are not written over an earlier attempt's success, which may still be reused.
_NOT_SAID = frozenset(
    {TaskState.WAITING, TaskState.RUNNING, TaskState.OMITTED, TaskState.CANCELLED}
)


class Recorder:
    """Writer of the nodes of one run, and reader of outputs that can be reused.

    One thread writes, so that states are written in order, and those of one moment together.
    """

    def __init__(self, flow_run_id: str) -> None:
        """Read the nodes that succeeded in earlier attempts of the run."""
        self._run = flow_run_id
        self._kept = {
            node.path: node
            for node in pipeline_nodes.of(flow_run_id)
            if node.fingerprint and node.state in DONE
        }
        self._lock = threading.Lock()
        self._looking = threading.Lock()  # one connection instead of one per task
        self._changed: dict[str, PipelineNode] = {}
        self._passed_over: dict[str, PipelineNode] = {}
        self._waiting: dict[str, Future[None]] = {}
        self._fingerprints = {path: node.fingerprint for path, node in self._kept.items()}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._writes = False

    def kept(self, leaf: Leaf, fingerprint: str) -> Bundle | None:
        """Outputs of a node in an earlier attempt of the run; None if it must run."""
        node = self._kept.get(leaf.path)
        if node is None:
            return None
        outputs = _present(node) if node.fingerprint == fingerprint else None
        if outputs is None:
            with self._lock:
                del self._kept[leaf.path]
                if leaf.path in self._passed_over:
                    self._changed[leaf.path] = self._passed_over.pop(leaf.path)
        return outputs

    def cached(self, fingerprint: str) -> Bundle | None:
        """Outputs of an equal task of any run, if all of them still exist; else None."""
        with self._looking:
            node = pipeline_nodes.newest(fingerprint, DONE)
        return None if node is None else _present(node)

    def done(self, leaf: Leaf, fingerprint: str, outputs: Bundle, state: TaskState) -> None:
        """Write a node's success and outputs; it counts as done when this returns.

        Raises:
            BadInputError: With the code ``OutputMalformed`` if the outputs cannot be stored.
            sqlalchemy.exc.OperationalError: If the database stays unavailable.
        """
        node = PipelineNode(
            self._run, leaf.path, leaf.path.rpartition("/")[2], "task", str(state),
            attempt=leaf.attempt, fingerprint=fingerprint, inputs=caching.as_data(leaf.inputs),
            outputs=caching.as_data(outputs),
        )  # fmt: skip
        written: Future[None] = Future()
        with self._lock:
            self._fingerprints[leaf.path] = fingerprint
            self._changed[leaf.path] = node
            self._waiting[leaf.path] = written
            writes = self._writes
        if writes:
            self._wake.set()
        else:
            self._flush()
        written.result()

    def on_node_changed(self, node: NodeStatus) -> None:
        """Queue a node's state for writing.

        The success of an earlier attempt is not overwritten until the task must run again:
        another kill before that would lose it.
        """
        fingerprint = self._fingerprints.get(node.path, "") if node.state in DONE else ""
        row = PipelineNode(
            self._run, node.path, node.name, node.kind, str(node.state), node.reason,
            node.attempt, fingerprint, caching.as_data(node.inputs),
            caching.as_data(node.outputs), node.began, node.ended,
        )  # fmt: skip
        with self._lock:
            believed = node.path in self._kept and node.state in _NOT_SAID
            (self._passed_over if believed else self._changed)[node.path] = row

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write queued states in a thread while the context is open, and the rest at its end."""
        thread = threading.Thread(target=self._write, daemon=True, name="nodes")
        self._writes = True
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._wake.set()
            thread.join()

    def _write(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait(_FLUSH_SECONDS)
                self._wake.clear()
                self._flush()
        finally:
            with self._lock:
                self._writes = False
            self._flush()

    def _flush(self) -> None:
        """Write the queued states, and set the result of the futures that wait for them."""
        with self._lock:
            nodes, self._changed = self._changed, {}
            waiting, self._waiting = self._waiting, {}
        self._put(nodes, waiting)

    def _put(self, nodes: Mapping[str, PipelineNode], waiting: Mapping[str, Future[None]]) -> None:
        try:
            catalogue.retry_transient(functools.partial(pipeline_nodes.put, list(nodes.values())))
        except DataError as error:
            if len(nodes) > 1:  # a node that cannot be stored must not block the others
                for path, node in nodes.items():
                    self._put({path: node}, {path: waiting[path]} if path in waiting else {})
                return
            refusal = BadInputError(
                f"The outputs of {', '.join(nodes)} cannot be stored: {error.orig}",
                "Fix the component: its outputs must be plain JSON.", code="OutputMalformed",
            )  # fmt: skip
            for one in waiting.values():
                one.set_exception(refusal)
        except Exception as error:  # raised to the waiting tasks; the nodes are written again
            with self._lock:
                self._changed = {**nodes, **self._changed}
            for one in waiting.values():
                one.set_exception(error)
            if not waiting:
                raise
        else:
            for one in waiting.values():
                one.set_result(None)


def _present(node: PipelineNode) -> Bundle | None:
    """Outputs of a node, if their local files still exist; else None."""
    outputs = caching.from_data(node.outputs)
    for value in outputs.artifacts.values():
        for one in value if isinstance(value, list) else [value]:
            path = local_path(one.uri)
            if path is not None and not path.exists() and one.schema not in METADATA_ONLY:
                return None
    return outputs
