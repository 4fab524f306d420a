"""What every lifecycle flow has in common: one executor, one way to refuse, one way to be called.

A lifecycle flow is a Prefect flow. On a worker, Prefect's engine runs its function. Called in
Python it runs in the caller's process, against the stack that is up or a private one for the
while, refuses bad input before anything exists, returns its result, and raises a
:class:`ModelyardError` where it ends in any other way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import httpx
import prefect.context
from mlflow.exceptions import MlflowException
from prefect import Flow
from prefect._internal.result_records import ResultRecord
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, CancelledRun, TerminationSignal
from prefect.logging import get_logger
from prefect.states import Cancelled, Completed, Failed
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

from flows import steps
from flows.steps import StopRequestedError
from infra import connection, identity, run_lock, settings, site, state_details
from infra import home as homes
from infra.connection import Endpoints
from infra.errors import ModelyardError, RunFailedError, StackError
from infra.home import Home
from infra.masking import MaskingFilter
from infra.settings import Settings
from infra.stack import client as stack
from registry import catalogue, runs, slots, statuses
from tasks import parameters

P = ParamSpec("P")
R = TypeVar("R")

_CANCEL_POLL_SECONDS = 2.0
_UNDER_WORKER_VARIABLE = "PREFECT__FLOW_RUN_ID"

# Parameters, and whether a form gave them, to the parameters with what they take from elsewhere.
Fill = Callable[[Mapping[str, Any], bool], dict[str, Any]]

# Names of parameters, and what refuses a request in which they are changed.
Changeable = tuple[tuple[str, ...], Callable[[Any], None]]

# What is raised where a part does not answer: which that is, and what may say where it is.
_SILENT: dict[type[Exception], tuple[str, str]] = {
    httpx.TransportError: ("Prefect", "PREFECT_API_URL"),
    OperationalError: ("The catalogue's database", "MODELYARD_DATABASE_URL"),
}
_NOT_LET_IN = (401, 403)

# Whether the run that begins in this process has been checked, and so filled, by its caller.
_checked: ContextVar[bool] = ContextVar("checked by the caller", default=False)

_logger = get_logger("modelyard.lifecycle")
for _name in ("prefect.flow_runs", "prefect.task_runs"):  # which tell how a run failed
    get_logger(_name).addFilter(MaskingFilter())


@dataclass
class Execution:
    """The run that this process executes.

    Attributes:
        flow_run_id: Prefect's id of it.
        name: Its name in Prefect.
        user: Who started it.
        attempt: 1 at first, more when it is retried.
        labels: What else is known of it, such as the tuning that it is a trial of.
        home: Where it works.
        settings: The settings.
        created: When it was created; retries do not change that.
        began: ``time.monotonic()`` at its start.
        cancelled: Set when somebody stops it. A worker does so by a signal instead.
    """

    flow_run_id: str
    name: str
    user: str
    attempt: int
    labels: Mapping[str, Any]
    home: Home
    settings: Settings
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)


def _current() -> tuple[Execution, dict[str, Any]]:
    context = prefect.context.FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run = context.flow_run
    labels = run.labels or {}
    execution = Execution(
        flow_run_id=str(run.id),
        name=run.name,
        user=str(labels.get(runs.USER_LABEL) or identity.caller()),
        attempt=run.run_count,
        labels=labels,
        home=homes.current(),
        settings=settings.load(),
        created=run.created or datetime.now(UTC),
    )
    return execution, dict(context.parameters or {})


class _NotTwice(logging.Filter):
    """Drops Prefect's traceback of an error that the run's final state tells already."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not isinstance(error, ModelyardError | CancelledRun)


_not_twice = _NotTwice()


def _filled(fill: Fill | None, parameters: dict[str, Any]) -> dict[str, Any]:
    """The run's parameters with what they take from elsewhere in them, also in Prefect."""
    if fill is None or _checked.get():
        return parameters
    run = prefect.context.FlowRunContext.get().flow_run  # type: ignore[union-attr]
    assert run is not None
    if (run.labels or {}).get(runs.CHECKED_LABEL):
        return parameters
    filled = fill(parameters, True)
    with get_client(sync_client=True) as client:
        if filled != parameters:
            client.update_flow_run(run.id, parameters=filled)
        client.update_flow_run_labels(run.id, {runs.CHECKED_LABEL: "true"})
    return filled


def execute(
    model: type[BaseModel],
    check: Callable[[Any, str], None],
    body: Callable[[Execution, Any], State[Any]],
    fill: Fill | None = None,
) -> State[Any]:
    """Execute the flow run that this process is in; what a lifecycle flow's function returns.

    Args:
        model: What the run's parameters are read as. Prefect leaves that to us, so that a form
            whose validation was switched off is refused as a command is.
        check: Refuses a request; told the flow run's id.
        body: Does it.
        fill: Completes the parameters of a run that a form or a schedule has made.

    Returns:
        The state that the run ends in. A request that is refused, and what cannot be prepared,
        ends in ``Failed`` with the detail ``CreateFailed``.

    Raises:
        Abort: If another process executes this run, or it is stopped in a pod; its state is left
            alone.
    """
    execution, given = _current()
    for logger in ("prefect.flow_runs", "prefect.engine"):
        logging.getLogger(logger).addFilter(_not_twice)
    try:
        run_lock.take(execution.home, execution.flow_run_id)
        if execution.attempt > 1 and runs.SCHEDULE_LABEL in execution.labels:
            slots.goes_on_again(execution.flow_run_id)
        with _watching(execution):
            request = parameters.read(model, _filled(fill, given))
            check(request, execution.flow_run_id)
            return body(execution, request)
    except run_lock.AlreadyExecutedError as error:
        raise Abort(f"Another process executes the run {execution.flow_run_id}.") from error
    except KeyboardInterrupt:
        return Cancelled(message="Stopped with Ctrl-C.")
    except StopRequestedError:
        return _stopped()
    except TerminationSignal:
        if not steps.stop_requested(execution.flow_run_id):
            raise
        return _stopped()
    except ModelyardError as error:
        return failed(error, state_details.CREATE_FAILED)


def _stopped() -> State[Any]:
    """The state of a run that its user has stopped.

    Raises:
        Abort: In a pod, whose run is Stopped when whoever watches it sees that the pod is gone.
    """
    if site.in_pod():
        raise Abort(steps.STOPPED)
    return Cancelled(message=steps.STOPPED)


def failed(error: ModelyardError, detail: str = "") -> State[Any]:
    """A failed state that carries the error: for people in its message, in this process whole.

    Args:
        error: The error.
        detail: The state's detail; see :mod:`infra.state_details`.
    """
    name, message = state_details.annotate("FAILED", detail, f"{error.code}: {error}")
    return Failed(name=name, message=message, data=error)


def completed(result: Any, message: str, detail: str = "") -> State[Any]:
    """A completed state with the run's result.

    Args:
        result: What the flow's caller gets.
        message: What people read.
        detail: The state's detail; see :mod:`infra.state_details`.
    """
    name, message = state_details.annotate("COMPLETED", detail, message)
    return Completed(name=name, message=message, data=result)


def concluding(execution: Execution, *, failed: bool) -> None:
    """Tell that the run's own work has ended, and what is left is to publish and clear away."""
    labels = statuses.concluding(execution.attempt, failed=failed)
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(UUID(execution.flow_run_id), {**labels})
    except httpx.HTTPError as error:  # it only shows
        _logger.debug("The run's labels could not be written: %s", error)


def data(state: State[Any]) -> Any:
    """What a state of this process carries; unlike ``state.result()`` in event loops as well."""
    found = state.data
    return found.result if isinstance(found, ResultRecord) else found


def failure(state: State[Any]) -> ModelyardError | None:
    """The error that a failed state of this process carries, if it is one of ours."""
    reason = data(state)
    return reason if isinstance(reason, ModelyardError) else None


@contextlib.contextmanager
def _watching(execution: Execution) -> Iterator[None]:
    """Notice a cancellation where no worker does: in a caller's own process."""
    if os.environ.get(_UNDER_WORKER_VARIABLE):
        yield
        return
    done = threading.Event()

    def watch() -> None:
        with get_client(sync_client=True) as client:
            while not done.wait(_CANCEL_POLL_SECONDS):
                try:
                    state = client.read_flow_run(execution.flow_run_id).state  # type: ignore[arg-type]
                except Exception as error:  # noqa: BLE001 (the edge of the loop; asked again)
                    _logger.debug("The run's state could not be read: %s", error)
                    continue
                if state and state.type in {StateType.CANCELLING, StateType.CANCELLED}:
                    execution.cancelled.set()

    thread = threading.Thread(target=watch, daemon=True, name="cancellation")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_CANCEL_POLL_SECONDS)


@dataclass
class _Connection:
    """The connection that the threads of this process share while one of them needs it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    endpoints: Endpoints | None = None
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def open(self) -> Endpoints:
        with self.lock:
            if self.endpoints is None:
                with contextlib.ExitStack() as opening:
                    self.endpoints = opening.enter_context(_pointed())
                    self.closing = opening.pop_all()
            self.users += 1
            return self.endpoints

    def close(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.endpoints = None
                self.closing.close()


_shared = _Connection()


@contextlib.contextmanager
def connected(*, to_workers: bool = False) -> Iterator[Endpoints]:
    """Point this process at Prefect, MLflow and the catalogue, and back afterwards.

    They are those of the environment, else of the stack that is up, else of a private one that
    lives until the last such context ends.

    Args:
        to_workers: Whether workers are needed. A private stack has none.

    Raises:
        StackError: If a private one cannot be started, none with workers is up, or a part of it
            does not answer.
    """
    elsewhere = connection.from_environment() is not None
    if to_workers and not elsewhere and not (stack.status(homes.current()) or {}).get("lasting"):
        raise StackError(
            "The stack is not up, so no worker would start the run.",
            "Start it (modelyard up --detach), or run the flow here: modelyard call.",
        )
    endpoints = _shared.open()
    try:
        yield endpoints
    except tuple(_SILENT) as error:
        raise _silent(error, elsewhere=elsewhere) from error
    except (httpx.HTTPStatusError, MlflowException) as error:
        if refused := _not_let_in(error):
            raise refused from error
        raise
    finally:
        _shared.close()


def _silent(error: Exception, *, elsewhere: bool) -> StackError:
    found = (told for kind, told in _SILENT.items() if isinstance(error, kind))
    part, variable = next(found)
    hint = "See modelyard status; the logs are in the home's folder logs."
    if elsewhere:
        hint = f"Check that what {variable} names can be reached from here."
    return StackError(
        f"{part} does not answer ({type(error).__name__}).", hint, code="StackSilent"
    )


def _not_let_in(error: httpx.HTTPStatusError | MlflowException) -> StackError | None:
    """What is told of a server that asks who this is; None of one that has another reason."""
    if isinstance(error, MlflowException):
        status, part = error.get_http_status_code(), "MLflow"  # type: ignore[no-untyped-call]
        hint = "Check MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    else:
        status, part = error.response.status_code, "Prefect"
        hint = "Check PREFECT_API_AUTH_STRING: USER:PASSWORD, as its server was given it."
    if status not in _NOT_LET_IN:
        return None
    return StackError(f"{part} does not let this in (status {status}).", hint, code="StackRefused")


@contextlib.contextmanager
def _pointed() -> Iterator[Endpoints]:
    endpoints = connection.from_environment()
    if endpoints:
        yield endpoints
        return
    home = homes.current()
    with stack.held(home, settings.load()) as endpoints:
        ours = connection.environment(endpoints, home)
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        prefect.context.refresh_global_settings_context()
        try:
            catalogue.migrate()
            yield endpoints
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            prefect.context.refresh_global_settings_context()


class LifecycleFlow(Flow[P, R]):
    """A flow that can also be called as a plain function.

    Attributes:
        model: What its parameters are read as; its ``absolute()`` resolves relative paths.
        preflight: Refuses a request that cannot work; told the flow run's id, or "".
        fill: Completes what is given from elsewhere, such as a template; None for not at all.
        changeable: Parameters that a run heeds when they are changed while it goes on, and what
            refuses their changes.
    """

    model: type[Any]
    preflight: Callable[[Any, str], None]
    fill: Fill | None
    changeable: Changeable

    def checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """Parameters as Prefect is to get them: checked and independent of the caller.

        Raises:
            ModelyardError: If they are refused. Needs a connection.
        """
        complete = self.fill(given, False) if self.fill else given
        request = parameters.read(self.model, complete).absolute()
        self.preflight(request, "")
        dumped = request.model_dump(mode="json")
        return {name: dumped[name] for name in complete}

    def outcome(self, given: dict[str, Any]) -> State[Any]:
        """Run in this process with ``given`` parameters; the state that it ends in.

        Raises:
            ModelyardError: If the parameters are refused; no run exists then.
        """
        with connected(), run_lock.scope():
            checked = self.checked(given)
            token = _checked.set(True)
            try:
                state: State[Any] = super().__call__(return_state=True, **checked)
            finally:
                _checked.reset(token)
            return state

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # type: ignore[override]
        """Run in this process and return the result.

        Raises:
            ModelyardError: If the parameters are refused, or the run ends in another state than
                its good one; then it is a :class:`RunFailedError` that names the state.
        """
        names = list(self.model.model_fields)
        state = self.outcome({**dict(zip(names, args, strict=False)), **kwargs})
        if state.is_completed():
            result: R = data(state)
            return result
        error = failure(state)
        if error:
            raise error
        word = statuses.word(self.name, state)
        raise RunFailedError(
            f"{self.name} ended {word}: {statuses.message(state) or 'no reason'}", state=word
        )


def lifecycle_flow(
    *,
    name: str = "",
    model: type[Any],
    preflight: Callable[[Any, str], None],
    run_name: Callable[[], str],
    fill: Fill | None = None,
    changeable: Changeable = ((), lambda _: None),
) -> Callable[[Callable[P, R]], LifecycleFlow[P, R]]:
    """Make a lifecycle flow of a function; the flow is called as the function is.

    Args:
        name: What the flow is called; as the function if empty.
        model: What the function's parameters are read as, in their order.
        preflight: Refuses a request that cannot work.
        run_name: Names a run that begins.
        fill: Completes what is given from elsewhere; told whether a form gave it, in which every
            field has a value.
        changeable: What may be changed while a run goes on.
    """

    def decorate(function: Callable[P, R]) -> LifecycleFlow[P, R]:
        made = LifecycleFlow(
            function,
            name=name or function.__name__,
            flow_run_name=run_name,
            validate_parameters=False,
        )
        made.model = model
        made.preflight = preflight
        made.fill = fill
        made.changeable = changeable
        return made

    return decorate
