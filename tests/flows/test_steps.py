from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Cancelling, Running

from flows import steps
from flows.steps import StopRequestedError, step
from infra.errors import RunFailedError

RUN = str(uuid.uuid4())


@pytest.fixture
def ended_as(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Prefect's task engine is given as a task's result."""
    found: list[Any] = []

    def task(**_: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                found.append(function(*args, **kwargs))
                return found[-1]

            return call

        return decorate

    monkeypatch.setattr(steps, "task", task)
    return found


def _signalled() -> None:
    raise TerminationSignal(15)


def test_a_step_is_called_as_its_function_is(ended_as: list[Any]) -> None:
    assert step("add")(lambda a, b: a + b)(1, b=2) == 3
    assert ended_as == [3]


def test_a_stop_ends_it_as_cancelled(ended_as: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "stop_requested", lambda: True)

    with pytest.raises(StopRequestedError):
        step("waits")(_signalled)()

    assert [state.type for state in ended_as] == ["CANCELLED"]


def test_work_that_sees_the_stop_itself_ends_it_as_cancelled(ended_as: list[Any]) -> None:
    def work() -> None:
        raise StopRequestedError

    with pytest.raises(StopRequestedError):
        step("computes")(work)()

    assert [state.type for state in ended_as] == ["CANCELLED"]


def test_an_error_fails_it_with_the_message_that_the_run_has(ended_as: list[Any]) -> None:
    error = RunFailedError("It printed \0.", "See it.", state="FAIL TRAIN", code="ScriptFailed")

    def work() -> None:
        raise error

    with pytest.raises(RunFailedError) as raised:
        step("computes")(work)()

    assert raised.value is error
    assert [(state.type, state.message) for state in ended_as] == [
        ("FAILED", f"ScriptFailed: {error}".replace("\0", "\ufffd"))
    ]


def test_a_signal_without_a_stop_is_a_crash(
    ended_as: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "stop_requested", lambda: False)

    with pytest.raises(TerminationSignal):
        step("waits")(_signalled)()

    assert ended_as == []


@pytest.mark.parametrize(
    ("state", "stopped"),
    [(Cancelling(), True), (Cancelled(), True), (Running(), False), (None, False)],
)
def test_prefect_knows_whether_it_is_a_stop(
    monkeypatch: pytest.MonkeyPatch, state: State[Any] | None, stopped: bool
) -> None:
    class Client:
        def read_flow_run(self, _: uuid.UUID) -> FlowRun:
            return FlowRun.model_construct(state=state)

    monkeypatch.setattr(steps, "prefect_client", lambda **_: contextlib.nullcontext(Client()))

    assert steps.stop_requested(RUN) is stopped


def test_where_prefect_does_not_answer_it_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: Any) -> Any:
        raise OSError("away")

    monkeypatch.setattr(steps, "prefect_client", away)

    assert steps.stop_requested(RUN) is False
