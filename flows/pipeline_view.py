"""The view of a pipeline run: its task runs in Prefect, its metrics in MLflow, and its log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from prefect.logging import get_run_logger

from flows.pipeline_progress import PipelineProgress
from flows.pipeline_tasks import TaskRuns
from flows.run_context import RunContext
from pipelines.artifacts import Bundle
from pipelines.execution import NodeStatus
from pipelines.node_positions import NodePositions
from pipelines.pipeline import Pipeline
from pipelines.run_directory import PipelineRunDirectory
from pipelines.states import TaskResult
from registry.tracking import Tracked
from tasks.pipelines.logs import RunLog
from tasks.pipelines.publishing import LeafResult, Publisher

_MIB = 2**20


class PipelineReporter:
    """Shows a run; the engine's thread and those of the leaves report to it."""

    def __init__(
        self,
        context: RunContext,
        pipeline: Pipeline,
        tracked: Tracked,
        place: PipelineRunDirectory,
        *,
        parallel: int,
        stream: bool = True,
        root: str = "",
    ) -> None:
        """Prepare the view, in the thread of the flow.

        Args:
            context: The run.
            pipeline: The pipeline.
            tracked: Its MLflow run.
            place: Its folders.
            parallel: The most leaves that run at once.
            stream: Whether the output of components is shown in Prefect as well.
            root: The URI of the folder of its artifacts, if the platform keeps them in a storage.
        """
        places = NodePositions(pipeline)
        self._stream = stream
        self._outputs = Bundle()
        self._task_runs = TaskRuns(context.flow_run_id, places, parallel)
        self._log = RunLog(place.log, context.settings.log_lines_per_second)
        self._publisher = Publisher(
            tracked.run_id,
            places,
            place.root,
            largest=int(context.settings.pipeline_artifact_mib * _MIB),
            warn=get_run_logger().warning,
            root=root,
        )
        self._progress = PipelineProgress(
            context.flow_run_id,
            tracked.url,
            lambda: self._publisher.rows,
            again=context.attempt > 1,
        )

    def submit(self, do: Callable[[], TaskResult]) -> Future[TaskResult]:
        """Run a leaf in a thread."""
        return self._task_runs.submit(do)

    @contextmanager
    def leaf(self, path: str) -> Iterator[Callable[[str], object]]:
        """Show the output of a leaf; yields a callback for a line about it."""
        logger = self._task_runs.logger(path)
        try:
            with self._log.of(path, logger.info if self._stream else lambda _: None):
                yield lambda line: logger.info("%s | %s", path, line)
        except Exception as error:
            logger.error("%s | %s", path, error)
            raise

    def line(self, path: str, line: str) -> None:
        """Log a line of a leaf's output."""
        self._log.write(path, line)

    def on_node_changed(self, node: NodeStatus) -> None:
        """Show the state of a node."""
        self._task_runs.on_node_changed(node)
        self._progress.on_node_changed(node)

    def ended(self, path: str, outputs: Bundle, *, kept: bool) -> None:
        """Show the outputs of a leaf, of this attempt or an earlier one."""
        leaf = LeafResult(path, outputs, kept)
        self._publisher.publish(leaf)
        self._progress.add_outputs(leaf)

    def over(self, end: TaskResult) -> None:
        """Show the end of the pipeline."""
        self._outputs = end.outputs
        self._progress.over(end.outputs)

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Keep the view up to date; at the end of the context it is complete."""
        with self._progress.shown():
            try:
                yield
            finally:
                self._task_runs.close()
                self._log.close()
                self._publisher.close(self._outputs.parameters, self._log.file)
