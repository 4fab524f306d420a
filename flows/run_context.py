"""The run of a lifecycle flow: its context, its MLflow run, and the state that it ends in.

A run is opened once and closed once, in the same way for every flow. Each possible end is a row of
:data:`OUTCOMES`.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from uuid import UUID

import httpx
import prefect.context
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, TerminationSignal
from prefect.logging import get_logger, get_run_logger
from prefect.logging.loggers import LoggingAdapter
from prefect.states import Cancelled, Completed, Failed

from flows import artifacts, results, steps
from flows.connection import unreachable_reported
from flows.steps import StopRequestedError
from infra import home as homes
from infra import identity, local_time, settings, site, state_details, storage
from infra.errors import DiskFullError, ModelyardError, RunFailedError
from infra.home import Home
from infra.prefect_client import prefect_client
from infra.run_ends import crashed_state
from infra.settings import Settings
from registry import tracking
from registry.flow_kinds import FlowKind
from registry.runs import run_tags, runs, statuses
from registry.tracking import Tracked
from tasks.run_directory import RunDirectory

_CANCEL_POLL_SECONDS = 2.0
_UNDER_WORKER_VARIABLE = "PREFECT__FLOW_RUN_ID"
_KILLED = "The run's process was ended before the run was, as by modelyard down."

_logger = get_logger("modelyard.run_context")


class RunEnd(enum.Enum):
    """Cause of a run's end."""

    COMPLETED = "the work returned its result"
    STOPPED = "a user stopped it"
    TIMED_OUT = "it exceeded its time limit"
    REFUSED = "an error before the run was opened"
    FAILED = "an error after the run was opened, a full disk included"
    CRASHED = "an unknown exception"
    KILLED = "a signal that no user asked for"


@dataclass(frozen=True)
class RunOutcome:
    """The statuses of a run that has ended.

    Attributes:
        mlflow_status: The status of its MLflow run, where one was opened.
        state_type: The type of its Prefect state; None where the exception is raised, and
            Prefect's engine chooses the state.
        detail: The state's detail; see :mod:`infra.state_details`.
    """

    mlflow_status: str
    state_type: StateType | None
    detail: str = ""


OUTCOMES: Mapping[RunEnd, RunOutcome] = MappingProxyType({
    RunEnd.COMPLETED: RunOutcome("FINISHED", StateType.COMPLETED),
    RunEnd.STOPPED: RunOutcome("KILLED", StateType.CANCELLED),
    RunEnd.TIMED_OUT: RunOutcome("FAILED", StateType.FAILED, state_details.TIMED_OUT),
    RunEnd.REFUSED: RunOutcome("FAILED", StateType.FAILED, state_details.CREATE_FAILED),
    RunEnd.FAILED: RunOutcome("FAILED", StateType.FAILED),
    RunEnd.CRASHED: RunOutcome("FAILED", None),
    RunEnd.KILLED: RunOutcome("KILLED", None),
})  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """Result of a run's work.

    Attributes:
        value: The value that a caller in Python gets.
        message: The message of the run's state.
        detail: The state's detail, such as ``GoalReached``.
    """

    value: Any
    message: str
    detail: str = ""


class TrackedRequest(Protocol):
    """A request whose run has an MLflow run."""

    @property
    def name(self) -> str:
        """The run's name; "" for the one that Prefect gives."""

    @property
    def experiment(self) -> str:
        """The name of its MLflow experiment."""

    @property
    def description(self) -> str:
        """Free text."""


@dataclass
class RunContext:
    """The flow run that this process executes, and its MLflow run once that is open.

    Attributes:
        kind: The kind of its flow.
        flow_run_id: Prefect's id of it.
        name: Its name in Prefect.
        user: The user who started it.
        attempt: 1 at first, more when it is retried.
        labels: Its labels in Prefect, such as the tuning that it is a trial of.
        tags: Its tags in Prefect when it began.
        home: The home that it works in.
        settings: The settings.
        sent: The names of the parameters that it was created with, to which Prefect adds the
            defaults of the others; None if all were given.
        created: When it was created; retries do not change that.
        began: ``time.monotonic()`` at its start in this process.
        deadline: ``time.monotonic()`` at its time limit; None without a limit.
        stop: Set when a user stops it. A worker sends a signal instead.
        closing: Callbacks that run when the work has ended, before the MLflow run is closed.
    """

    kind: FlowKind
    flow_run_id: str
    name: str
    user: str
    attempt: int
    labels: Mapping[str, Any]
    home: Home
    settings: Settings
    tags: Collection[str] = ()
    sent: Collection[str] | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    deadline: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _opened: bool = False
    _tracked: Tracked | None = None
    _concluding: bool | None = None

    @classmethod
    def current(cls, kind: FlowKind) -> RunContext:
        """The context of the flow run that Prefect's engine executes in this thread."""
        context = prefect.context.FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        run = context.flow_run
        labels = run.labels or {}
        return cls(
            kind=kind,
            flow_run_id=str(run.id),
            name=run.name,
            user=str(labels.get(runs.USER_LABEL) or identity.caller()),
            attempt=run.run_count,
            labels=labels,
            tags=tuple(run.tags),
            home=homes.current(),
            settings=settings.load(),
            sent=frozenset(run.parameters),
            created=run.created or datetime.now(UTC),
        )

    @property
    def logger(self) -> LoggingAdapter:
        """The logger of the flow run, or of the step that this thread executes."""
        return get_run_logger()  # type: ignore[return-value]

    @property
    def is_opened(self) -> bool:
        """Whether an error is the run's own failure, no longer a refusal."""
        return self._opened

    def separate_attempts(self) -> None:
        """Log where the lines of a later attempt begin, in the script's log as well."""
        if self.attempt == 1:
            return
        line = f"--- attempt {self.attempt}, {local_time.local(datetime.now(UTC))} ---"
        self.logger.info("%s", line)
        log = RunDirectory(self.home.runs / self.flow_run_id).log
        if log.exists():
            with log.open("a") as file:
                file.write(f"{line}\n")

    def open(
        self,
        request: TrackedRequest,
        parameters: Mapping[str, Any],
        link_text: str,
        *,
        parent: str = "",
        trial: int | None = None,
    ) -> Tracked:
        """Open the run: make its MLflow run, and tie the two to each other.

        A retry opens the MLflow run of the first attempt again.

        Args:
            request: The request.
            parameters: The parameters of the MLflow run.
            link_text: The text of the link to it in Prefect.
            parent: The MLflow run that it is nested in.
            trial: Its number among the trials of that run.

        Raises:
            ConflictError: If the experiment was deleted, with the code ``ExperimentDeleted``; if
                another run has the name, with the code ``NameTaken``.
        """
        opening = tracking.Opening(
            flow_run_id=self.flow_run_id,
            kind=self.kind.name,
            name=request.name or self.name,
            experiment=request.experiment,
            description=request.description,
            user=self.user,
            parameters=parameters,
            parent=parent,
            trial=trial,
            unique=bool(request.name) and not parent,
        )
        self._tracked = tracking.open_run(opening, retried=self.attempt > 1)
        self._opened = True
        tags = run_tags.opened(self.tags, self._tracked.experiment_id, trial=bool(parent))
        artifacts.tie_to_mlflow(self.flow_run_id, self._tracked, link_text, tags, self.attempt > 1)
        return self._tracked

    def open_untracked(self) -> None:
        """Open a run that has no MLflow run."""
        self._opened = True

    def close(self, mlflow_status: str) -> None:
        """Close the MLflow run, if there is one; tag the run as not opened if it was not."""
        if self._tracked is not None:
            tracking.close_run(self._tracked.run_id, mlflow_status)
        elif not self._opened and run_tags.NO_MLFLOW_RUN not in self.tags:  # has no deployment
            with self._updating() as client:
                tags = run_tags.not_opened(self.tags)
                client.update_flow_run(UUID(self.flow_run_id), tags=tags)

    def conclude(self, *, failed: bool) -> None:
        """Label the run as concluding: its work has ended, it publishes and cleans up."""
        if self._concluding is failed:
            return
        self._concluding = failed
        self._label(statuses.concluding(self.attempt, failed=failed))

    def report_error(self, error: ModelyardError) -> None:
        """Label the run with the code of the error that it failed with."""
        self._label(statuses.error_label(self.attempt, error.code))

    def is_late(self) -> bool:
        """Whether it has reached its time limit."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def is_over(self) -> bool:
        """Whether a user has stopped it, or it has reached its time limit."""
        return self.stop.is_set() or self.is_late()

    def raise_if_ended(self) -> None:
        """Raise if a user has stopped the run, or it has exceeded its time limit.

        Long work calls this often. ``tasks``, which know no flows, are given it as a callable.

        Raises:
            StopRequestedError: If a user has stopped it.
            RunFailedError: If it has exceeded its ``max_minutes``, with the code ``Timeout``.
        """
        if self.stop.is_set():
            raise StopRequestedError
        if self.deadline is not None and self.is_late():
            minutes = (self.deadline - self.began) / 60
            raise RunFailedError(
                f"The run exceeded its {minutes:g} minutes.",
                "Increase max_minutes, and retry: modelyard runs update RUN -p max_minutes=N, "
                "then modelyard runs retry RUN.",
                state=statuses.TIMED_OUT,
                code="Timeout",
            )

    def _label(self, labels: Mapping[str, str]) -> None:
        with self._updating() as client:  # the message of the run's state has the same facts
            client.update_flow_run_labels(UUID(self.flow_run_id), {**labels})

    @contextlib.contextmanager
    def _updating(self) -> Iterator[SyncPrefectClient]:
        """A client for what the run can do without, should Prefect not answer."""
        try:
            with prefect_client() as client:
                yield client
        except httpx.HTTPError as error:
            _logger.debug("The run's labels or tags could not be written: %s", error)

    @contextlib.contextmanager
    def watching_for_stop(self) -> Iterator[None]:
        """Set ``stop`` when the run is cancelled, where no worker sends a signal."""
        if os.environ.get(_UNDER_WORKER_VARIABLE):
            yield
            return
        done = threading.Event()

        def watch() -> None:
            with prefect_client() as client:
                while not done.wait(_CANCEL_POLL_SECONDS):
                    try:
                        state = client.read_flow_run(self.flow_run_id).state  # type: ignore[arg-type]
                    except Exception as error:  # noqa: BLE001 (the edge of the loop; tried again)
                        _logger.debug("The run's state could not be read: %s", error)
                        continue
                    if state and state.type in {StateType.CANCELLING, StateType.CANCELLED}:
                        self.stop.set()

        thread = threading.Thread(target=watch, daemon=True, name="cancellation")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(_CANCEL_POLL_SECONDS)


@contextlib.contextmanager
def disk_full_reported(folder: Path) -> Iterator[None]:
    """Raise a :class:`DiskFullError` that names the folder where its disk is full."""
    try:
        yield
    except OSError as error:
        if not storage.is_disk_full(error):
            raise
        raise DiskFullError(f"The disk of {folder} is full.", "Make room, and retry.") from error


def run_to_end(context: RunContext, work: Callable[[], RunResult]) -> State[Any]:
    """Do the work of a run and close it; the state that it ends in.

    Args:
        context: The run.
        work: Does the work, opens the run on the way, and returns its result or raises.

    Raises:
        Abort: If the run is stopped in a pod; its state is left to the cluster's worker.
        BaseException: In a pod or a caller's process, what ended it, such as a signal.
        Exception: What is neither a :class:`ModelyardError`, nor a full disk, nor a part of the
            stack that does not answer.
    """
    result, error = RunResult(None, ""), None
    try:
        with disk_full_reported(context.home.root), context.closing:
            result = _worked(context, work)
    except BaseException as raised:  # noqa: BLE001 (the edge of the run: mapped, or raised below)
        error = raised
    end = end_of(error, opened=context.is_opened, stop_requested=lambda: _is_stopped(context))
    outcome = OUTCOMES[end]
    context.close(outcome.mlflow_status)
    if outcome.state_type is StateType.COMPLETED:
        return completed(context, result)
    if outcome.state_type is StateType.CANCELLED:
        return _stopped(error)
    if outcome.state_type is StateType.FAILED:
        assert isinstance(error, ModelyardError)
        context.report_error(error)
        return failed(error, outcome.detail)
    assert error is not None
    if end is RunEnd.KILLED and os.environ.get(_UNDER_WORKER_VARIABLE) and not site.in_pod():
        # Prefect names the last exception, which may be that of a log whose reader has ended.
        return crashed_state(context.flow_run_id, _KILLED)
    raise error


def _worked(context: RunContext, work: Callable[[], RunResult]) -> RunResult:
    """Do the work; a failure is shown before the callbacks of ``closing`` run."""
    try:
        with disk_full_reported(context.home.root), unreachable_reported():
            return work()
    except ModelyardError:
        if context.is_opened:
            context.conclude(failed=True)
        raise


def end_of(
    error: BaseException | None, *, opened: bool, stop_requested: Callable[[], bool]
) -> RunEnd:
    """Derive the cause of a run's end from the exception that ended its work.

    Args:
        error: The exception; None if there was none.
        opened: Whether the run had been opened.
        stop_requested: Whether a user has stopped the run; asked only where a signal ended it.
    """
    if error is None:
        return RunEnd.COMPLETED
    if isinstance(error, StopRequestedError | KeyboardInterrupt):
        return RunEnd.STOPPED
    if isinstance(error, TerminationSignal) and stop_requested():
        return RunEnd.STOPPED
    if isinstance(error, ModelyardError):
        return _failure_end(error) if opened else RunEnd.REFUSED
    return RunEnd.CRASHED if isinstance(error, Exception) else RunEnd.KILLED


def _failure_end(error: ModelyardError) -> RunEnd:
    late = isinstance(error, RunFailedError) and error.state == statuses.TIMED_OUT
    return RunEnd.TIMED_OUT if late else RunEnd.FAILED


def _is_stopped(context: RunContext) -> bool:
    return steps.stop_requested(context.flow_run_id)


def _stopped(error: BaseException | None) -> State[Any]:
    """The state of a run that its user has stopped.

    Raises:
        Abort: In a pod, whose run the cluster's worker marks as stopped once the pod is gone.
    """
    if isinstance(error, KeyboardInterrupt):
        return Cancelled(message="Stopped with Ctrl-C.")
    if site.in_pod():
        raise Abort(steps.STOPPED)
    result = error.result if isinstance(error, StopRequestedError) else None
    return Cancelled(message=steps.STOPPED, data=result)


def failed(error: ModelyardError, detail: str = "") -> State[Any]:
    """A failed state that carries the error: in its message for people, as its data in Python.

    Args:
        error: The error.
        detail: The state's detail; see :mod:`infra.state_details`.
    """
    name, message = state_details.annotate("FAILED", detail, f"{error.code}: {error}")
    return Failed(name=name, message=message, data=error)


def completed(context: RunContext, result: RunResult) -> State[Any]:
    """A completed state that carries the run's result."""
    name, message = state_details.annotate("COMPLETED", result.detail, result.message)
    folder = context.home.runs / context.flow_run_id if context.settings.home_lasts else None
    data = results.stored(result.value, context.flow_run_id, folder)
    return Completed(name=name, message=message, data=data)
