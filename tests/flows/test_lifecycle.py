from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, UNAUTHENTICATED
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, TerminationSignal
from prefect.states import Cancelled, Completed, Crashed, Failed
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError

from flows import lifecycle, steps
from flows.lifecycle import Execution, LifecycleFlow
from infra import connection, run_lock, storage
from infra.connection import Endpoints
from infra.errors import BadInputError, ConflictError, ModelyardError, RunFailedError, StackError
from infra.home import Home
from infra.settings import Settings
from registry import statuses
from tests.locks import holding

_ENDPOINTS = Endpoints("http://127.0.0.1:1/api", "http://127.0.0.1:2", "sqlite://")


class Request(BaseModel):
    path: str
    count: int = 1

    def absolute(self) -> Request:
        return self.model_copy(update={"path": storage.absolute(self.path)})


def _preflight(request: Request, flow_run_id: str) -> None:
    if request.count > 5:
        raise BadInputError("Too many.", code="TooMany")


@pytest.fixture
def flow() -> LifecycleFlow[..., Any]:
    @lifecycle.lifecycle_flow(model=Request, preflight=_preflight, run_name=lambda: "x")
    def copying(path: str, count: int = 1) -> dict[str, Any]:
        """Copy a file."""
        return {}

    return copying


def test_a_flow_is_made_of_its_function(flow: LifecycleFlow[..., Any]) -> None:
    assert flow.name == "copying"
    assert flow.description == "Copy a file."


class TestChecked:
    def test_parameters_are_typed_and_independent_of_the_caller(
        self, flow: LifecycleFlow[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)

        assert flow.checked({"path": "a"}) == {"path": f"{tmp_path}/a"}
        assert flow.checked({"path": "/a", "count": "3"}) == {"path": "/a", "count": 3}

    @pytest.mark.parametrize(
        ("given", "code", "told"),
        [
            ({"path": "/a", "colour": "blue"}, "ParameterUnknown", "colour"),
            ({"path": "/a", "count": "many"}, "ParameterInvalid", "count"),
            ({}, "ParameterInvalid", "path"),
            ({"path": "/a", "count": 6}, "TooMany", "Too many"),
        ],
    )
    def test_what_is_wrong_is_refused(
        self, flow: LifecycleFlow[..., Any], given: dict[str, Any], code: str, told: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            flow.checked(given)

        assert raised.value.code == code
        assert told in str(raised.value)

    def test_an_unknown_parameter_is_told_the_known_ones(
        self, flow: LifecycleFlow[..., Any]
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            flow.checked({"colour": "blue"})

        assert "count, path" in raised.value.hint


class TestCall:
    @pytest.fixture
    def called(
        self, flow: LifecycleFlow[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[State[Any]], Any]:
        def call(state: State[Any]) -> Any:
            given: list[dict[str, Any]] = []

            def outcome(_self: Any, parameters: dict[str, Any]) -> State[Any]:
                given.append(parameters)
                return state

            monkeypatch.setattr(LifecycleFlow, "outcome", outcome)
            result = flow("/a", count=2)
            assert given == [{"path": "/a", "count": 2}]
            return result

        return call

    def test_a_good_end_is_the_result(self, called: Callable[[State[Any]], Any]) -> None:
        assert called(Completed(data={"a": 1})) == {"a": 1}

    def test_an_error_is_raised_as_it_was(self, called: Callable[[State[Any]], Any]) -> None:
        error = RunFailedError("It failed.", state="FAIL TRAIN", code="ScriptFailed")

        with pytest.raises(RunFailedError) as raised:
            called(lifecycle.failed(error))

        assert raised.value is error

    @pytest.mark.parametrize(
        ("state", "word"),
        [
            (Cancelled(message="Stopped."), "STOPPED"),
            (Crashed(message="Gone."), "FAIL"),
            (Failed(message="Odd."), "FAIL"),
            (Failed(name="TimedOut"), "TIMED OUT"),
        ],
    )
    def test_another_end_names_its_word(
        self, called: Callable[[State[Any]], Any], state: State[Any], word: str
    ) -> None:
        with pytest.raises(RunFailedError) as raised:
            called(state)

        assert raised.value.state == word
        assert (state.message or "no reason") in raised.value.message


def test_a_failed_state_carries_its_error() -> None:
    error = ModelyardError("It is broken.", "Mend it.", code="Broken")

    state = lifecycle.failed(error, "CreateFailed")

    assert (state.name, state.message) == (
        "Failed", "[CreateFailed] Broken: It is broken. Mend it."
    )  # fmt: skip
    assert lifecycle.failure(state) is error
    assert state.is_failed()


@pytest.mark.parametrize(
    "state", [Completed(data={}), Failed(message="Odd."), Failed(data=ValueError("odd"))]
)
def test_other_states_carry_no_error_of_ours(state: State[Any]) -> None:
    assert lifecycle.failure(state) is None


class TestExecute:
    @pytest.fixture(autouse=True)
    def _execution(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        self.execution = Execution("run-id", "name", "me", 1, {}, home, Settings(home=home.root))
        monkeypatch.setattr(lifecycle, "_current", lambda: (self.execution, {"path": "/a"}))
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "run-id")

    def _execute(self, body: Callable[[Execution, Any], Any], check: Any = None) -> State[Any]:
        with run_lock.scope():
            return lifecycle.execute(Request, check or (lambda *_: None), body)

    def test_the_body_is_done_by_the_one_executor(self, home: Home) -> None:
        def body(execution: Execution, request: Request) -> State[Any]:
            assert run_lock.held(home, "run-id") is True
            return Completed(data=(execution, request))

        state = self._execute(body)

        assert state.data == (self.execution, Request(path="/a"))
        assert run_lock.held(home, "run-id") is False

    def test_the_check_knows_the_run_and_comes_first(self) -> None:
        seen: list[str] = []

        def check(request: Request, flow_run_id: str) -> None:
            seen.append(flow_run_id)
            raise ConflictError("Taken.", code="NameTaken")

        state = self._execute(lambda *_: pytest.fail("it went on"), check)

        assert (statuses.word("train", state), seen) == ("CREATE FAILED", ["run-id"])
        assert isinstance(state.data, ConflictError)

    @pytest.mark.parametrize(
        "signal", [steps.StopRequestedError(), TerminationSignal(15), KeyboardInterrupt()]
    )
    def test_a_stop_is_no_crash(
        self, monkeypatch: pytest.MonkeyPatch, signal: BaseException
    ) -> None:
        monkeypatch.setattr(steps, "stop_requested", lambda _: True)

        def body(*_: Any) -> State[Any]:
            raise signal

        state = self._execute(body)

        assert statuses.word("train", state) == "STOPPED"
        assert (state.message or "").startswith("Stopped")

    def test_a_signal_that_nobody_asked_for_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(steps, "stop_requested", lambda _: False)

        def body(*_: Any) -> State[Any]:
            raise TerminationSignal(15)

        with pytest.raises(TerminationSignal):
            self._execute(body)

    def test_what_cannot_be_prepared_is_a_failed_creation(self, home: Home) -> None:
        def body(*_: Any) -> State[Any]:
            raise BadInputError("No.", code="RequirementsNotInstallable")

        state = self._execute(body)

        assert state.name == "Failed"
        assert state.message == "[CreateFailed] RequirementsNotInstallable: No."
        assert run_lock.held(home, "run-id") is False

    def test_ctrl_c_stops_it(self) -> None:
        def body(*_: Any) -> State[Any]:
            raise KeyboardInterrupt

        assert self._execute(body).is_cancelled()

    def test_a_second_executor_leaves_the_run_alone(self, home: Home) -> None:
        with holding(home, "run-id"), pytest.raises(Abort, match="run-id"):
            self._execute(lambda *_: pytest.fail("it went on"))

    def test_errors_of_our_own_making_are_not_hidden(self) -> None:
        def body(*_: Any) -> State[Any]:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self._execute(body)

    def test_a_worker_watches_for_cancellation_itself(self) -> None:
        before = threading.active_count()

        def body(*_: Any) -> State[Any]:
            assert threading.active_count() == before
            return Completed()

        self._execute(body)


@pytest.mark.parametrize(
    ("answer", "cancelled"),
    [(State(type="CANCELLING"), True), (State(type="CANCELLED"), True), (None, False)],
    ids=["cancelling", "cancelled", "none"],
)
def test_a_call_notices_that_it_is_cancelled(
    home: Home, monkeypatch: pytest.MonkeyPatch, answer: State[Any] | None, cancelled: bool
) -> None:
    asked: list[str] = []

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read_flow_run(self, flow_run_id: str) -> Any:
            asked.append(flow_run_id)
            if len(asked) == 1:
                raise ConnectionError("the server restarts")
            return type("Run", (), {"state": answer})

    monkeypatch.setattr(lifecycle, "_CANCEL_POLL_SECONDS", 0.01)
    monkeypatch.setattr(lifecycle, "get_client", lambda **_: Client())
    execution = Execution("run-id", "name", "me", 1, {}, home, Settings(home=home.root))

    with lifecycle._watching(execution):
        if cancelled:
            assert execution.cancelled.wait(30)
        else:
            while len(asked) < 3:
                execution.cancelled.wait(0.01)

    assert execution.cancelled.is_set() is cancelled
    assert set(asked) == {"run-id"}


class TestConnected:
    def test_the_environment_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_API_URL", _ENDPOINTS.prefect_api_url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", _ENDPOINTS.mlflow_tracking_uri)
        monkeypatch.setenv("MODELYARD_DATABASE_URL", _ENDPOINTS.database_url)
        monkeypatch.setattr(lifecycle.stack, "held", lambda *_: pytest.fail("it started a stack"))

        with lifecycle.connected() as endpoints:
            assert endpoints == _ENDPOINTS

    @pytest.mark.parametrize("status", [None, {"lasting": False}])
    def test_workers_are_not_to_be_had_of_a_private_stack(
        self, monkeypatch: pytest.MonkeyPatch, status: dict[str, Any] | None
    ) -> None:
        monkeypatch.setattr(lifecycle.stack, "status", lambda _: status)
        monkeypatch.setattr(lifecycle.stack, "held", lambda *_: pytest.fail("it started a stack"))

        with pytest.raises(StackError) as raised, lifecycle.connected(to_workers=True):
            pass

        assert "modelyard up" in raised.value.hint

    @pytest.mark.parametrize(
        ("problem", "part"),
        [
            (httpx.ConnectError("refused"), "Prefect"),
            (httpx.ReadTimeout("late"), "Prefect"),
            (OperationalError("SELECT 1", {}, Exception("No space left")), "database"),
        ],
    )
    def test_a_part_that_does_not_answer_is_named(
        self, monkeypatch: pytest.MonkeyPatch, problem: Exception, part: str
    ) -> None:
        monkeypatch.setattr(lifecycle.stack, "held", lambda *_: contextlib.nullcontext(_ENDPOINTS))
        monkeypatch.setattr(lifecycle.catalogue, "migrate", lambda: None)

        with pytest.raises(StackError) as raised, lifecycle.connected():
            raise problem
        assert raised.value.code == "StackSilent"
        assert part in raised.value.message
        assert "modelyard status" in raised.value.hint

    def test_a_silent_part_that_the_environment_names_is_sought_there(
        self, monkeypatch: pytest.MonkeyPatch, home: Home
    ) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)

        with pytest.raises(StackError) as raised, lifecycle.connected():
            raise httpx.ConnectError("refused")
        assert "PREFECT_API_URL" in raised.value.hint

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_server_that_does_not_let_us_in_is_named(
        self, monkeypatch: pytest.MonkeyPatch, home: Home, status: int
    ) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)
        response = httpx.Response(status, request=httpx.Request("GET", "http://prefect/api"))
        code = {401: UNAUTHENTICATED, 403: PERMISSION_DENIED}[status]
        for problem, part, variable in (
            (httpx.HTTPStatusError("no", request=response.request, response=response),
             "Prefect", "PREFECT_API_AUTH_STRING"),
            (MlflowException("no", error_code=code), "MLflow", "MLFLOW_TRACKING_URI"),
        ):  # fmt: skip
            with pytest.raises(StackError, match=part) as raised, lifecycle.connected():
                raise problem
            assert raised.value.code == "StackRefused"
            assert str(status) in raised.value.message
            assert variable in raised.value.hint

    def test_what_else_a_server_says_stays_as_it_is(
        self, monkeypatch: pytest.MonkeyPatch, home: Home
    ) -> None:
        for name, value in connection.environment(_ENDPOINTS, home).items():
            monkeypatch.setenv(name, value)

        with pytest.raises(MlflowException, match="no such run"), lifecycle.connected():
            raise MlflowException("no such run")

    @pytest.mark.parametrize("fails", [True, False])
    def test_else_a_stack_is_held_and_the_environment_restored(
        self, monkeypatch: pytest.MonkeyPatch, fails: bool
    ) -> None:
        events: list[str] = []

        @contextlib.contextmanager
        def held(*_: Any) -> Iterator[Endpoints]:
            events.append("held")
            try:
                yield _ENDPOINTS
            finally:
                events.append("let go")

        monkeypatch.setattr(lifecycle.stack, "held", held)
        monkeypatch.setattr(lifecycle.catalogue, "migrate", lambda: events.append("migrated"))
        monkeypatch.setenv("PREFECT_API_URL", "http://of.the.caller/api")
        before = dict(os.environ)
        expected = pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext()

        with expected, lifecycle.connected() as endpoints:
            assert endpoints == _ENDPOINTS
            assert os.environ["PREFECT_API_URL"] == _ENDPOINTS.prefect_api_url
            assert os.environ["MODELYARD_DATABASE_URL"] == _ENDPOINTS.database_url
            assert events == ["held", "migrated"]
            if fails:
                raise ZeroDivisionError

        assert dict(os.environ) == before
        assert events == ["held", "migrated", "let go"]
