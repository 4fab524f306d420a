"""The nodes of a run in the catalogue: kept before a node counts as done, told soon otherwise."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines import caching
from pipelines.artifacts import METADATA_ONLY, Bundle
from pipelines.execution import Leaf, Seen
from pipelines.executor_io import local_path
from pipelines.states import DONE, TaskState
from registry import catalogue, pipeline_nodes
from registry.pipeline_nodes import Node

_FLUSH_SECONDS = 0.25


class Recorder:
    """What the catalogue knows of the nodes of one run."""

    def __init__(self, flow_run_id: str) -> None:
        """Go on from what was kept by earlier attempts of the run."""
        self._run = flow_run_id
        self._kept = {
            node.path: node
            for node in pipeline_nodes.of(flow_run_id)
            if node.fingerprint and node.state in DONE
        }
        self._lock = threading.Lock()
        self._changed: dict[str, Node] = {}
        self._fingerprints = {path: node.fingerprint for path, node in self._kept.items()}
        self._stop = threading.Event()

    def kept(self, leaf: Leaf, fingerprint: str) -> Bundle | None:
        """What a node has handed on in an earlier attempt of the run; None if it must run."""
        node = self._kept.get(leaf.path)
        if node is None or node.fingerprint != fingerprint:
            return None
        return _present(node)

    def cached(self, fingerprint: str) -> Bundle | None:
        """What an equal task of any run has handed on, if all of it is still there."""
        node = pipeline_nodes.newest(fingerprint, DONE)
        return None if node is None else _present(node)

    def done(self, leaf: Leaf, fingerprint: str, outputs: Bundle, state: TaskState) -> None:
        """Keep what a node hands on, for good, before it counts as done.

        Raises:
            sqlalchemy.exc.OperationalError: If the database cannot be reached for long.
        """
        with self._lock:
            self._fingerprints[leaf.path] = fingerprint
            self._changed.pop(leaf.path, None)
        node = Node(
            self._run, leaf.path, leaf.path.rpartition("/")[2], "task", str(state),
            attempt=leaf.attempt, fingerprint=fingerprint, inputs=caching.as_data(leaf.inputs),
            outputs=caching.as_data(outputs),
        )  # fmt: skip
        catalogue.patiently(functools.partial(pipeline_nodes.put, [node]))

    def seen(self, node: Seen) -> None:
        """Take notice of a node's state, to be written soon."""
        with self._lock:
            done = node.state in DONE and node.kind == "task"
            self._changed[node.path] = Node(
                self._run, node.path, node.name, node.kind, str(node.state), node.reason,
                node.attempt, self._fingerprints.get(node.path, "") if done else "",
                caching.as_data(node.inputs), caching.as_data(node.outputs), node.began,
                node.ended,
            )  # fmt: skip

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write what is taken notice of, now and then, and the last of it at the end."""
        thread = threading.Thread(target=self._write, daemon=True, name="nodes")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _write(self) -> None:
        over = False
        while not over:
            over = self._stop.wait(_FLUSH_SECONDS)
            with self._lock:
                nodes, self._changed = list(self._changed.values()), {}
            catalogue.patiently(functools.partial(pipeline_nodes.put, nodes))


def _present(node: Node) -> Bundle | None:
    """What a node has handed on, if what of it lies on this machine is still there."""
    outputs = caching.from_data(node.outputs)
    for value in outputs.artifacts.values():
        for one in value if isinstance(value, list) else [value]:
            path = local_path(one.uri)
            if path is not None and not path.exists() and one.schema not in METADATA_ONLY:
                return None
    return outputs
