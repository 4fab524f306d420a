"""The nodes of a run in the catalogue: kept before a node counts as done, told soon otherwise."""

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
from registry.pipelines.pipeline_nodes import Node

_FLUSH_SECONDS = 0.25

# What is not said of a task that has ended well before: it may yet turn out to be so still.
_NOT_SAID = frozenset(
    {TaskState.WAITING, TaskState.RUNNING, TaskState.OMITTED, TaskState.CANCELLED}
)


class Recorder:
    """What the catalogue knows of the nodes of one run.

    One thread writes, so that nothing late overwrites what came after it, and nodes that end
    together are written together.
    """

    def __init__(self, flow_run_id: str) -> None:
        """Go on from what was kept by earlier attempts of the run."""
        self._run = flow_run_id
        self._kept = {
            node.path: node
            for node in pipeline_nodes.of(flow_run_id)
            if node.fingerprint and node.state in DONE
        }
        self._lock = threading.Lock()
        self._looking = threading.Lock()  # or each of many tasks had a connection of its own
        self._changed: dict[str, Node] = {}
        self._passed_over: dict[str, Node] = {}
        self._waiting: dict[str, Future[None]] = {}
        self._fingerprints = {path: node.fingerprint for path, node in self._kept.items()}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._writes = False

    def kept(self, leaf: Leaf, fingerprint: str) -> Bundle | None:
        """What a node has handed on in an earlier attempt of the run; None if it must run."""
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
        """What an equal task of any run has handed on, if all of it is still there."""
        with self._looking:
            node = pipeline_nodes.newest(fingerprint, DONE)
        return None if node is None else _present(node)

    def done(self, leaf: Leaf, fingerprint: str, outputs: Bundle, state: TaskState) -> None:
        """Keep what a node hands on, for good, before it counts as done.

        Raises:
            sqlalchemy.exc.OperationalError: If the database cannot be reached for long.
        """
        node = Node(
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
        """Take notice of a node's state, to be written soon.

        Of a task that has ended well in an earlier attempt nothing is written until it is known
        that it must run again: another kill meanwhile would have it forgotten.
        """
        fingerprint = self._fingerprints.get(node.path, "") if node.state in DONE else ""
        row = Node(
            self._run, node.path, node.name, node.kind, str(node.state), node.reason,
            node.attempt, fingerprint, caching.as_data(node.inputs),
            caching.as_data(node.outputs), node.began, node.ended,
        )  # fmt: skip
        with self._lock:
            believed = node.path in self._kept and node.state in _NOT_SAID
            (self._passed_over if believed else self._changed)[node.path] = row

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write what is taken notice of, now and then, and the last of it at the end."""
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
        """Write what there is; those who wait for it are told whether it could be."""
        with self._lock:
            nodes, self._changed = self._changed, {}
            waiting, self._waiting = self._waiting, {}
        self._put(nodes, waiting)

    def _put(self, nodes: Mapping[str, Node], waiting: Mapping[str, Future[None]]) -> None:
        try:
            catalogue.retry_transient(functools.partial(pipeline_nodes.put, list(nodes.values())))
        except DataError as error:
            if len(nodes) > 1:  # what cannot be written at all hinders no other
                for path, node in nodes.items():
                    self._put({path: node}, {path: waiting[path]} if path in waiting else {})
                return
            refusal = BadInputError(
                f"What {', '.join(nodes)} hands on cannot be stored: {error.orig}",
                "Mend the component: it is to hand on plain JSON.", code="OutputMalformed",
            )  # fmt: skip
            for one in waiting.values():
                one.set_exception(refusal)
        except Exception as error:  # whoever waits has it; the others' nodes are tried again
            with self._lock:
                self._changed = {**nodes, **self._changed}
            for one in waiting.values():
                one.set_exception(error)
            if not waiting:
                raise
        else:
            for one in waiting.values():
                one.set_result(None)


def _present(node: Node) -> Bundle | None:
    """What a node has handed on, if what of it lies on this machine is still there."""
    outputs = caching.from_data(node.outputs)
    for value in outputs.artifacts.values():
        for one in value if isinstance(value, list) else [value]:
            path = local_path(one.uri)
            if path is not None and not path.exists() and one.schema not in METADATA_ONLY:
                return None
    return outputs
