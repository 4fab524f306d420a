"""Event-driven process worker that knows which of its runs are being executed.

A run's process ends in one of three ways: with a final state in Prefect, which stays; after it
reported Running, which is a crash; or before it began, and then it is queued again a few times.
The runner's storage is in the home.
"""

from __future__ import annotations

import abc
import asyncio
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.flows import load_flow_from_flow_run
from prefect.runner import Runner
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.runner._state_proposer import StateProposer
from prefect.states import Cancelled
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from infra import home as homes
from infra import run_ends, run_lock, run_process
from infra.event_driven_worker import EventDrivenWorker

_LOCK_POLL_SECONDS = 0.1
_LONGEST_REASON = 2000

# Prefixes of variables that choose what is executed, or where credentials are sent.
_RESERVED = ("PATH=", "LD_", "DYLD_", "PYTHON", "MODELYARD_", "PREFECT_", "MLFLOW_")


class _HomeRunner(Runner):
    """Runner whose storage is in the home.

    Prefect's is in one folder of the shared temporary directory, which belongs to the first user
    of a machine who starts a worker and is closed to all others.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._tmp_dir = homes.current().runner / self._tmp_dir.name


class LocalJobConfiguration(ProcessJobConfiguration):
    """Configuration of one run. Its own variables name neither programs nor servers."""

    def prepare_for_flow_run(self, *given: Any, **named: Any) -> None:
        """Drop reserved variables, then complete it as Prefect does."""
        self.env = {
            name: value for name, value in self.env.items() if not f"{name}=".startswith(_RESERVED)
        }
        super().prepare_for_flow_run(*given, **named)


class _Proposer(StateProposer):
    """State proposer that leaves the state of an ended process's run to the worker.

    Attributes:
        reason: Why the process did not start, or how it ended.
    """

    reason = "The run's process did not start."

    async def propose_crashed(self, flow_run: FlowRun, message: str) -> State[Any] | None:
        """Propose nothing."""
        self.reason = message
        return None

    async def propose_cancelled(
        self, flow_run: FlowRun, state_updates: dict[str, Any] | None = None
    ) -> bool:
        """Mark the run Cancelled, unless its process did, or it has been retried since."""
        now = await self._client.read_flow_run(flow_run.id)
        if now.state is None or now.state.type != StateType.CANCELLING:
            return bool(now.state and now.state.is_cancelled())
        return await super().propose_cancelled(flow_run, {"message": "Stopped."})


class LocalWorker(
    EventDrivenWorker, ProcessWorker, abc.ABC
):  # as an "abstract" class it is not registered as a type
    """Worker of a pool of this machine."""

    job_configuration = LocalJobConfiguration

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._home = homes.current()
        self._attempts: Counter[UUID] = Counter()  # a retry may begin while one is concluded
        self._labelling: dict[UUID, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Start the runner, then the worker, as ``ProcessWorker`` does."""
        self._runner = await _HomeRunner(pause_on_shutdown=False, limit=None).__aenter__()
        try:
            await super(ProcessWorker, self).__aenter__()
        except BaseException as error:
            await self._runner.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    def executes(self, flow_run_id: UUID) -> bool:
        """Whether this worker is starting the run, waiting for its process, or concluding it."""
        return flow_run_id in self._submitting_flow_run_ids or self._attempts[flow_run_id] > 0

    async def _submit_run_and_capture_errors(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[Any] | None = None
    ) -> Any:
        self._attempts[flow_run.id] += 1
        try:
            return await super()._submit_run_and_capture_errors(flow_run, task_status)
        finally:
            self._attempts -= Counter([flow_run.id])

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Start the run's process, wait for its end, and ensure that the run has a final state.

        Raises:
            Exception: The cause why the process did not start, unwrapped from exception groups.
        """
        try:
            return await self._run(flow_run, configuration, task_status)
        except ExceptionGroup as group:
            raise _first_cause(group) from group

    async def _run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None,
    ) -> ProcessWorkerResult:
        reading = asyncio.create_task(self.client.read_flow_run(flow_run.id))
        labelling = self._labelling.pop(flow_run.id, None)
        started = task_status or anyio.TASK_STATUS_IGNORED
        async with FlowRunExecutorContext() as context:
            claimed = await reading
            if labelling:
                await labelling
            configuration.env |= {
                run_lock.PATH_VARIABLE: str(run_lock.path(self._home, str(flow_run.id))),
                run_process.ATTEMPT_VARIABLE: str(claimed.state_id),
            }
            with TemporaryDirectory(suffix="prefect") as scratch:
                folder = Path(configuration.working_dir or scratch).resolve()
                handle = await self._execute(context, claimed, configuration, folder, started)
        if handle.returncode == 0:  # with another status Prefect's worker proposes a crash
            await self._conclude(flow_run, "Its process ended with exit status 0.")
        return ProcessWorkerResult(
            status_code=-1 if handle.returncode is None else handle.returncode,
            identifier=str(handle.pid),
        )

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Propose nothing: the run is Pending, and its process begins in a moment."""

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Label the run while its start is prepared.

        The run's process labels it as well, and Prefect loses one of two labels that are written
        at a time, so :meth:`run` waits for these before it starts the process.
        """
        labelling = super()._give_worker_labels_to_flow_run(flow_run_id)
        self._labelling[flow_run_id] = asyncio.create_task(labelling)

    async def _execute(
        self,
        context: FlowRunExecutorContext,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        folder: Path,
        started: anyio.abc.TaskStatus[int],
    ) -> ProcessHandle:
        proposer = _Proposer(client=context.client)
        context._state_proposer = proposer
        context._cancellation_manager._state_proposer = proposer
        starter = EngineCommandStarter(
            command=configuration.command,
            cwd=folder,
            env=configuration.env,
            stream_output=configuration.stream_output,
            control_channel=context.control_channel,
        )
        executor = context.create_executor(
            flow_run, starter, resolve_flow=load_flow_from_flow_run, propose_submitting=False
        )
        async with anyio.create_task_group() as group:
            try:
                handle: ProcessHandle = await group.start(executor.submit)
            except RuntimeError as error:
                raise RuntimeError(proposer.reason) from error
            started.started(handle.pid or 0)
        return handle

    async def _propose_crashed_state(
        self, flow_run: FlowRun, message: str, *_: Any, **__: Any
    ) -> None:
        await self._conclude(flow_run, message)

    async def _conclude(self, flow_run: FlowRun, reason: str) -> None:
        """Set the state that follows from the end of the process, unless the run has one."""
        run_id = str(flow_run.id)
        while await asyncio.to_thread(run_lock.is_held, self._home, run_id):
            await asyncio.sleep(_LOCK_POLL_SECONDS)  # it is ending, and may have a last word
        now = await self.client.read_flow_run(flow_run.id)
        state = now.state
        becomes: State[Any] | None = None
        if state is None or state.is_final():
            return
        if state.type == StateType.RUNNING:
            becomes = run_ends.crashed_state(flow_run.id, reason)
        elif state.type == StateType.CANCELLING:
            becomes = Cancelled(message="Stopped.")
        elif state.type == StateType.PENDING and now.run_count == flow_run.run_count:
            # With another run count it belongs to a retry, which has a process of its own.
            history = await self.client.read_flow_run_states(flow_run.id)
            reason = " ".join([reason, await asyncio.to_thread(self._error, run_id)]).strip()
            becomes = run_ends.retry_state(history, reason, datetime.now(UTC))
        if becomes is not None:
            self.get_flow_run_logger(flow_run).warning("%s", becomes.message)
            force = becomes.type == StateType.SCHEDULED
            await self.client.set_flow_run_state(flow_run.id, becomes, force=force)

    def _error(self, run_id: str) -> str:
        """Read the error that the run's process saved; empty if none."""
        try:
            text = run_process.error_path(self._home, run_id).read_text("utf-8", "replace")
        except OSError:
            return ""
        return text[-_LONGEST_REASON:]


def _first_cause(error: Exception) -> Exception:
    """Return the first exception within nested groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
