"""Runs pipelines of the tests' corpus with real processes, and no Prefect."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import NotFoundError
from infra.settings import Settings
from infra.workloads.claims import LocalClaims
from infra.workloads.environments import EnvironmentCache
from infra.workloads.local_objects import LocalObjects
from pipelines.artifacts import Bundle
from pipelines.backends.process import ComponentProcessBackend
from pipelines.components import Components
from pipelines.execution import Execution, Leaf, NodeStatus
from pipelines.pipeline import Pipeline
from pipelines.placeholders import PlaceholderFacts
from pipelines.run_directory import PipelineRunDirectory
from pipelines.states import TaskResult, TaskState


@dataclass
class Ran:
    """What became of a run.

    Attributes:
        end: How it ended.
        nodes: Each node as it was last seen, by path.
        lines: What its components have printed.
    """

    end: TaskResult
    nodes: dict[str, NodeStatus] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)

    @property
    def states(self) -> dict[str, str]:
        """How each node ended."""
        return {path: str(node.state) for path, node in self.nodes.items()}


class Threads:
    """The engine's work, done by threads."""

    def __init__(self, components: Components, parallel: int) -> None:
        self._components = components
        self._pool = ThreadPoolExecutor(parallel)
        self.nodes: dict[str, NodeStatus] = {}

    def submit(self, leaf: Leaf) -> Future[TaskResult]:
        return self._pool.submit(
            lambda: TaskResult(TaskState.SUCCEEDED, self._components.run(leaf))
        )

    def on_node_changed(self, node: NodeStatus) -> None:
        self.nodes[node.path] = node

    def fill(self, path: str, value: Any, parameters: Mapping[str, Any]) -> Any:
        return self._components.fill(path, value, parameters)


def run(
    pipeline: Pipeline,
    arguments: Mapping[str, Any] | Bundle,
    folder: Path,
    *,
    environments: Path,
    parallel: int = 4,
    root: str = "",
    secrets: Mapping[str, Mapping[str, str]] | None = None,
) -> Ran:
    """Run a pipeline to its end; ``folder`` is its home, and its run's folder."""

    def secret(name: str) -> Mapping[str, str]:
        if name not in (secrets or {}):
            raise NotFoundError(f"There is no secret {name}.", code="SecretMissing")
        return (secrets or {})[name]

    cancelled = threading.Event()
    launcher = ComponentProcessBackend(
        EnvironmentCache(environments), Settings(home=folder), objects=LocalObjects(folder, secret)
    )
    lines: list[tuple[str, str]] = []
    facts = PlaceholderFacts(
        job_name="a run", job_resource_name=f"{pipeline.name}-1", job_id="1", root=str(folder),
        created="2026-01-01T00:00:00Z",
        scheduled="2026-01-01T00:00:00Z", workspace=str(folder / "workspace"),
    )  # fmt: skip
    components = Components(
        pipeline, launcher, PipelineRunDirectory(folder), facts,
        lambda *line: lines.append(line), cancelled,
        claims=LocalClaims(folder / "claims"), root=root,
    )  # fmt: skip
    components.check()
    work = Threads(components, parallel)
    try:
        end = Execution(pipeline, work, parallel=parallel, cancelled=cancelled).run(
            arguments if isinstance(arguments, Bundle) else Bundle(dict(arguments))
        )
    finally:
        launcher.close()
    return Ran(end, work.nodes, lines)
