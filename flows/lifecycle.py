"""Lifecycle flows: one declaration each, one executor, one way to call them.

A lifecycle flow is a Prefect flow that is made of a :class:`FlowSpec` and a function that does
the work. On a worker, Prefect's engine runs it. Called in Python it runs in the caller's process,
against the stack that is up or a temporary one, refuses a bad request before a run exists, returns
its result, and raises a :class:`ModelyardError` if it ends in another state than COMPLETE.
"""

from __future__ import annotations

import inspect
import logging
import pkgutil
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, cast
from uuid import UUID

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, CancelledRun
from prefect.flow_engine import run_flow_sync
from prefect.logging import get_logger
from prefect.runtime import flow_run
from typing_extensions import TypeVar

from flows import forms, results, run_context
from flows.connection import connected
from flows.flow_results import FlowResult
from flows.run_context import RunContext, RunResult
from infra import connection, run_lock
from infra.errors import ModelyardError, RunFailedError
from infra.masking import MaskingFilter
from infra.prefect_client import prefect_client
from registry import names, tracking
from registry.flow_kinds import FlowKind
from registry.runs import run_retries, runs, statuses
from registry.schedules import slots
from tasks import parameters
from tasks.parameters import FlowRequest

if TYPE_CHECKING:
    from flows.run_handle import Run

P = ParamSpec("P")
M = TypeVar("M", bound=FlowRequest)
R = TypeVar("R", bound=FlowResult, default=Any)

# Parameters, and whether a form gave them, to the parameters with those of a template.
FromTemplate = Callable[[Mapping[str, Any], bool], dict[str, Any]]
# Parameters to the same with names that may change their meaning replaced by ids or versions.
Pin = Callable[[Mapping[str, Any]], dict[str, Any]]

# Imported when a caller starts a run. A pod, which imports this module, never does.
_START = "flows.run_handle:start"
_TIME_LIMIT = "max_minutes"

# Whether the caller in this process has checked and filled the parameters of the run.
_checked: ContextVar[bool] = ContextVar("checked by the caller", default=False)

for _name in ("prefect.flow_runs", "prefect.task_runs"):  # they log the errors of runs
    get_logger(_name).addFilter(MaskingFilter())


@dataclass(frozen=True, kw_only=True)
class FlowSpec(Generic[P, M, R]):
    """The declaration of a flow: its form, deployment, statuses and checks.

    Attributes:
        kind: Its name and failure word, which lower layers read as well.
        request: The pydantic model of its parameters. Its fields are the form, their descriptions
            the help texts; its ``absolute()`` resolves relative paths.
        check: Refuses a request that cannot work; gets the flow run's id, or "".
        check_without_stack: Refuses what cannot work whatever a stack has.
        pool: The work pool that runs it.
        tags: Its tags in Prefect.
        result: The type of its results in Python.
        from_template: Completes the parameters from a template; gets whether a form gave them, in
            which fields may be empty. None for a flow without templates.
        templated: The parameters that a template may have.
        pin: Replaces names by what they mean when the run is created, such as the version of a
            pipeline. None for a flow without such names.
        changeable: The parameters that can be changed while it runs.
        changeable_at_retry: Those that can be changed once it has ended, for its retry; beside
            its time limit, which always can.
        check_changed: Refuses changes of those.
        deployment: Chooses among several deployments by a run's parameters; None if there is one.
        base_name: What its runs are numbered after, by their parameters, where they are given no
            name; None if Prefect names them.
        concurrency_limit: How many runs may be active at once; None for no limit.
        tracked: Whether its runs have an MLflow run; then the request has a name, an experiment
            and a description.
    """

    kind: FlowKind
    request: Callable[P, M]
    check: Callable[[M, str], None]
    check_without_stack: Callable[[M], None] = lambda _: None
    pool: Literal["cpu", "gpu"]
    tags: tuple[str, ...]
    result: type[R] = FlowResult  # type: ignore[assignment]
    from_template: FromTemplate | None = None
    templated: tuple[str, ...] = ()
    pin: Pin | None = None
    changeable: tuple[str, ...] = ()
    changeable_at_retry: tuple[str, ...] = ()
    check_changed: Callable[[M], None] = lambda _: None
    deployment: Callable[[Mapping[str, Any]], str] | None = None
    base_name: Callable[[Mapping[str, Any]], str] | None = None
    concurrency_limit: int | None = None
    tracked: bool = True

    @property
    def model(self) -> type[M]:
        """The request model."""
        return cast("type[M]", self.request)

    @property
    def changes_at_retry(self) -> tuple[str, ...]:
        """The parameters that can be changed for a retry only."""
        limit = (_TIME_LIMIT,) if _TIME_LIMIT in self.model.model_fields else ()
        return self.changeable_at_retry + limit

    @property
    def completes(self) -> bool:
        """Whether it completes parameters."""
        return bool(self.from_template or self.pin)

    def completed(self, given: Mapping[str, Any], *, form: bool) -> dict[str, Any]:
        """Parameters with those of a template, and with names pinned.

        Args:
            given: A run's parameters.
            form: Whether a form or a schedule gave them.
        """
        filled = self.from_template(given, form) if self.from_template else dict(given)
        return self.pin(filled) if self.pin else filled


class LifecycleFlow(Flow[P, dict[str, Any]], Generic[P, M, R]):
    """A flow that can also be called as a plain function, and started in its pool.

    Attributes:
        spec: Its declaration.
        work: Does the work of a run: opens it, and returns its result or raises.
        entrypoint: Where a worker imports it from.
    """

    spec: FlowSpec[P, M, R]
    work: Callable[[RunContext, M], RunResult]
    entrypoint: str

    @property
    def model(self) -> type[M]:
        """The request model."""
        return self.spec.model

    @property
    def form(self) -> dict[str, Any]:
        """The JSON schema of its form."""
        return forms.schema(self.fn, self.spec.templated)

    def check_without_stack(self, given: Mapping[str, Any]) -> None:
        """Refuse parameters that cannot work, before a temporary stack is started for them.

        Raises:
            ModelyardError: With a code of its own for each fault.
        """
        if not given.get("template"):  # which only a stack has
            self.spec.check_without_stack(parameters.read(self.model, given).absolute())

    def check_limit(self, request: M) -> None:
        """Refuse a time limit that is none.

        Raises:
            BadInputError: With the code ``MaxMinutesInvalid``.
        """
        parameters.check_minutes(_TIME_LIMIT, getattr(request, _TIME_LIMIT, None))

    def preflight(self, request: M, flow_run_id: str) -> None:
        """Refuse a request that cannot work, before any resource is allocated.

        Args:
            request: The request.
            flow_run_id: The flow run; "" before there is one.

        Raises:
            ModelyardError: With a code of its own for each fault.
        """
        self.spec.check(request, flow_run_id)
        self.check_limit(request)
        if self.spec.tracked:
            tracked = cast("run_context.TrackedRequest", request)
            name, experiment = tracked.name, tracked.experiment
            names.check_run(name, experiment, tracked.description)
            tracking.check_experiment(experiment, flow_run_id)
            if name:
                tracking.check_name(self.spec.kind.name, name, experiment, flow_run_id)

    def deployment(self, given: Mapping[str, Any]) -> str:
        """The deployment of a run with these parameters."""
        return self.spec.deployment(given) if self.spec.deployment else self.name

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters for Prefect: filled, checked and independent of the caller's process.

        Raises:
            ModelyardError: If they are refused. Needs a connection.
        """
        complete = self.spec.completed(given, form=False)
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

        In a coroutine it blocks the event loop; ``await asyncio.to_thread(train, ...)`` does not.
        In a flow of the same Prefect server it is a subflow.

        Raises:
            ModelyardError: If the parameters are refused, or the run ends in another state than
                COMPLETE; then it is a :class:`RunFailedError` that names the state, or the error
                that the run failed with. Its ``flow_run_id`` is the run's.
        """
        with connected():
            return self._result(self.outcome(forms.bound(self.model, args, kwargs)))

    def retry(self, flow_run_id: str) -> R:
        """Run a call that failed or was stopped again in this process, and return its result.

        It keeps its id and its parameters, and resumes from its checkpoints.

        Args:
            flow_run_id: The run, such as the ``flow_run_id`` of the error that the call raised.

        Raises:
            NotFoundError: If there is no such run.
            ConflictError: If it is active or complete, or of another flow; or if its pool runs
                it, which then retries it as well: :meth:`flows.run_handle.Run.retry`.
            ModelyardError: As a call.
        """
        with connected(), run_lock.scope():
            run = run_retries.reopen(self.name, flow_run_id)
            token = _checked.set(True)
            try:
                state = run_flow_sync(
                    self, flow_run=run, parameters=run.parameters, return_type="state"
                )
            finally:
                _checked.reset(token)
            return self._result(cast("State[Any]", state))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run in the flow's pool, and return it at once.

        Raises:
            ModelyardError: If the parameters are refused; no run exists then.
            StackError: If no stack with workers is up.
        """
        given = forms.bound(self.model, args, kwargs)
        return cast("Run[R]", pkgutil.resolve_name(_START)(self, given))

    def _result(self, state: State[Any]) -> R:
        """The result of a run of this process.

        Raises:
            ModelyardError: If it ended in another state than COMPLETE.
        """
        run_id = str(state.state_details.flow_run_id)
        if state.is_completed():
            items = results.data(state)
            return self.spec.result(items, flow_run_id=run_id, url=connection.run_page(run_id))
        error = results.failure(state)
        if error is None:
            word = statuses.word(self.name, state)
            reason = statuses.message(state) or "no reason"
            error = RunFailedError(
                f"{self.name} ended {word}: {reason}",
                f"Its log has more: modelyard runs logs {run_id}.",
                state=word,
            )
        error.flow_run_id = run_id
        raise error

    def execute(self, given: Mapping[str, Any]) -> State[Any]:
        """Execute the flow run that Prefect's engine has begun in this thread.

        Args:
            given: The run's parameters. Prefect does not validate them, so that a form whose
                validation was switched off is refused as a command is.

        Returns:
            The state that the run ends in.

        Raises:
            Abort: If another process executes this run, or it is stopped in a pod; its state is
                not changed.
        """
        context = RunContext.current(self.spec.kind)
        for logger in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
            logging.getLogger(logger).addFilter(_reported_errors)
        try:
            run_lock.acquire(context.home, context.flow_run_id)
        except run_lock.AlreadyExecutedError as error:
            raise Abort(f"Another process executes the run {context.flow_run_id}.") from error
        with context.watching_for_stop():
            return run_context.run_to_end(context, lambda: self._work(context, given))

    def _work(self, context: RunContext, given: Mapping[str, Any]) -> RunResult:
        context.separate_attempts()
        if context.attempt > 1 and runs.SCHEDULE_LABEL in context.labels:
            slots.mark_resumed(context.flow_run_id)
        request = parameters.read(self.model, self._filled(context, given))
        self.preflight(request, context.flow_run_id)
        # A schedule's runs are named after it, and longer; its own name was checked.
        if not getattr(request, "name", "") and runs.SCHEDULE_LABEL not in context.labels:
            names.check(context.name, "the run's name in Prefect")
        minutes = getattr(request, _TIME_LIMIT, None)
        context.deadline = context.began + minutes * 60 if minutes else None
        return self.work(context, request)

    def _filled(self, context: RunContext, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters of a run that a form or a schedule has made, completed in Prefect too."""
        if not self.spec.completes or _checked.get() or context.labels.get(runs.CHECKED_LABEL):
            return given
        # A default that Prefect has added would win over a template's value.
        kept = given if context.sent is None else context.sent
        sent = {name: value for name, value in given.items() if name in kept}
        filled = self.spec.completed(sent, form=True)
        run_id = UUID(context.flow_run_id)
        with prefect_client() as client:
            if filled != sent:
                client.update_flow_run(run_id, parameters=filled)
            client.update_flow_run_labels(run_id, {runs.CHECKED_LABEL: "true"})
        return filled


class _ReportedErrors(logging.Filter):
    """Drops what Prefect logs of an error that the run's final state has in its message.

    That is a traceback, and of a step, which returns the state that it fails with, the state.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        of_step = error is None and record.getMessage().startswith("Task run failed with state: ")
        return not (of_step or isinstance(error, ModelyardError | CancelledRun))


_reported_errors = _ReportedErrors()


def lifecycle_flow(
    spec: FlowSpec[P, M, R],
) -> Callable[[Callable[[RunContext, M], RunResult]], LifecycleFlow[P, M, R]]:
    """Decorate the function that does the work, to make a lifecycle flow of it.

    The flow is called with the fields of the request model. The first lines of the function's
    docstring are the flow's description.

    Args:
        spec: The flow's declaration.
    """

    def decorate(work: Callable[[RunContext, M], RunResult]) -> LifecycleFlow[P, M, R]:
        def run(*args: Any, **kwargs: Any) -> State[Any]:
            return flow.execute(forms.bound(spec.model, args, kwargs))

        run.__name__, run.__qualname__ = work.__name__, work.__qualname__
        run.__module__ = work.__module__
        run.__doc__ = forms.documentation(inspect.getdoc(work) or "", spec.model)
        run.__signature__ = forms.signature(spec.model)  # type: ignore[attr-defined]
        flow: LifecycleFlow[P, M, R] = LifecycleFlow(
            run,  # type: ignore[arg-type]
            name=spec.kind.name,
            flow_run_name=_run_name,
            validate_parameters=False,
        )
        flow.spec, flow.work = spec, work
        flow.entrypoint = f"{work.__module__}.{work.__name__}"
        return flow

    return decorate


def _run_name() -> str:
    """The name of a run that begins: its parameter ``name``, if it has one."""
    return str(flow_run.parameters.get("name") or flow_run.name)
