"""The steps of a flow: Prefect tasks that end as the run does, where they end it.

An error fails the task with the message that the run has. A stop reaches a run as SIGTERM, which
Prefect turns into an exception and logs as a crash of the task and the flow. Where Prefect has the
run as Cancelling, it is not a crash.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Failed

from flows import results
from infra.errors import ModelyardError
from infra.prefect_client import prefect_client

P = ParamSpec("P")
R = TypeVar("R")

STOPPED = "Stopped."
_logger = logging.getLogger("modelyard.steps")


class StopRequestedError(BaseException):
    """Raised when a user stops the run; not an Exception, so that no error handler catches it.

    Attributes:
        result: The result of the stopped run; None for none.
    """

    def __init__(self, result: Any = None) -> None:
        """Stop the run, which keeps ``result``."""
        super().__init__()
        self.result = result


def stop_requested(flow_run_id: str | None = None) -> bool:
    """Whether a user has stopped the run, as Prefect has it.

    Args:
        flow_run_id: The run; the one that this process executes by default.
    """
    run_id = flow_run_id or flow_run.id
    try:
        with prefect_client() as client:
            state = client.read_flow_run(UUID(str(run_id))).state
    except Exception as error:  # noqa: BLE001 (the process is ending; it counts as a crash)
        _logger.warning("The run's state could not be read: %s", error)
        return False
    return state is not None and state.type in {StateType.CANCELLING, StateType.CANCELLED}


class Step(Generic[P, R]):
    """A step of a flow, which is called like its function.

    Attributes:
        fn: The function.
    """

    def __init__(self, name: str, function: Callable[P, R]) -> None:
        """Make a task of ``function``, shown as ``name``."""
        self.fn = function

        @task(name=name, cache_policy=NO_CACHE, persist_result=False)
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R | State[None]:
            try:
                return function(*args, **kwargs)
            except ModelyardError as error:
                return Failed(message=f"{error.code}: {error}", data=error)
            except StopRequestedError:
                return Cancelled(message=STOPPED)
            except TerminationSignal:
                if not stop_requested():
                    raise
                return Cancelled(message=STOPPED)

        self._run: Callable[P, R | State[None]] = run

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step as a task of the flow.

        Raises:
            ModelyardError: If the function does.
            StopRequestedError: If the run is stopped.
        """
        result = self._run(*args, **kwargs)
        if isinstance(result, State):
            raise results.failure(result) or StopRequestedError
        return result


def step(name: str) -> Callable[[Callable[P, R]], Step[P, R]]:
    """Make a step of a function, shown as ``name``."""
    return functools.partial(Step, name)
