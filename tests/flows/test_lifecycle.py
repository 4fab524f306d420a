"""Lifecycle flows: their declaration, the check of parameters, the call and the execution."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort
from prefect.states import Cancelled, Completed, Crashed, Failed
from pydantic import Field

from flows import lifecycle, results, run_context
from flows.lifecycle import FlowSpec, LifecycleFlow
from flows.run_context import RunContext, RunResult
from infra import run_lock, storage
from infra.errors import BadInputError, ConflictError, RunFailedError
from infra.home import Home
from registry.flow_kinds import FlowKind
from registry.runs import statuses
from tasks.parameters import FlowRequest
from tests.flows.contexts import run_context_of
from tests.locks import holding

_RUN = uuid4()


class Copying(FlowRequest):
    path: str = Field(description="The file to copy.")
    count: int = Field(1, description="How often.")

    def absolute(self) -> Copying:
        return self.model_copy(update={"path": storage.absolute(self.path)})


def _check(request: Copying, flow_run_id: str) -> None:
    if request.count > 5:
        raise BadInputError("Too many.", code="TooMany")


@pytest.fixture
def flow() -> LifecycleFlow[..., Any]:
    @lifecycle.lifecycle_flow(
        FlowSpec(
            kind=FlowKind("copy-file", "FAIL COPY"),
            request=Copying,
            check=_check,
            pool="cpu",
            tags=(),
            tracked=False,
        )
    )
    def copying(context: RunContext, request: Copying) -> RunResult:
        """Copy a file."""
        return RunResult({}, "")

    return copying


def test_a_flow_is_made_of_its_declaration_and_its_function(
    flow: LifecycleFlow[..., Any],
) -> None:
    assert flow.name == "copy-file"
    assert (flow.description or "").startswith("Copy a file.")
    assert flow.entrypoint == f"{__name__}.copying"
    assert list(inspect.signature(flow.fn).parameters) == ["path", "count"]


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

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"name": 'a"b'}, "NameInvalid"),
            ({"experiment": " "}, "ExperimentInvalid"),
            ({"description": "d" * 4001}, "TextInvalid"),
        ],
    )
    def test_a_run_that_mlflow_cannot_name_is_refused_whatever_its_flow_checks(
        self, given: dict[str, Any], code: str
    ) -> None:
        class Tracked(FlowRequest):
            name: str = Field("", description="Name.")
            experiment: str = Field("Default", description="Experiment.")
            description: str = Field("", description="Description.")

        @lifecycle.lifecycle_flow(
            FlowSpec(
                kind=FlowKind("nothing", "FAIL NOTHING"), request=Tracked,
                check=lambda request, flow_run_id: None, pool="cpu", tags=(),
            )
        )  # fmt: skip
        def nothing(context: RunContext, request: Tracked) -> RunResult:
            """Do nothing."""
            return RunResult({}, "")

        with pytest.raises(BadInputError) as raised:
            nothing.checked(given)

        assert raised.value.code == code

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

            def outcome(_self: Any, parameters: Mapping[str, Any]) -> State[Any]:
                given.append(dict(parameters))
                return state

            monkeypatch.setattr(LifecycleFlow, "outcome", outcome)
            monkeypatch.setattr(lifecycle, "connected", contextlib.nullcontext)
            monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
            state.state_details.flow_run_id = _RUN
            result = flow("/a", count=2)
            assert given == [{"path": "/a", "count": 2}]
            return result

        return call

    def test_a_good_end_is_the_result(self, called: Callable[[State[Any]], Any]) -> None:
        result = called(Completed(data={"a": 1}))

        assert result == {"a": 1}
        assert json.dumps(result) == '{"a": 1}'
        assert result.flow_run_id == str(_RUN)
        assert result.url == f"http://127.0.0.1:1/runs/flow-run/{_RUN}"

    def test_an_error_is_raised_as_it_was(self, called: Callable[[State[Any]], Any]) -> None:
        error = RunFailedError("It failed.", state="FAIL TRAIN", code="ScriptFailed")

        with pytest.raises(RunFailedError) as raised:
            called(run_context.failed(error))

        assert raised.value is error
        assert error.flow_run_id == str(_RUN)

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
        assert raised.value.flow_run_id == str(_RUN)
        assert (state.message or "no reason") in raised.value.message


class TestExecute:
    @pytest.fixture(autouse=True)
    def _context(
        self, home: Home, flow: LifecycleFlow[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.context = run_context_of(home)
        self.flow = flow
        monkeypatch.setattr(RunContext, "current", lambda _: self.context)
        # Without an API, Prefect's client would start a server of its own to write the label.
        monkeypatch.setattr(RunContext, "report_error", lambda *_: None)
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", self.context.flow_run_id)

    def _execute(
        self, work: Callable[[RunContext, Any], RunResult], check: Any = None, **given: Any
    ) -> State[Any]:
        self.flow.work = work
        if check:
            self.flow.spec = replace(self.flow.spec, check=check)
        with run_lock.scope():
            return self.flow.fn(path="/a", **given)

    def test_the_work_is_done_by_the_one_executor(self, home: Home) -> None:
        run_id = self.context.flow_run_id

        def work(context: RunContext, request: Copying) -> RunResult:
            assert run_lock.is_held(home, run_id) is True
            return RunResult((context, request), "")

        state = self._execute(work)

        assert state.data == (self.context, Copying(path="/a"))
        assert run_lock.is_held(home, run_id) is False

    def test_the_check_knows_the_run_and_comes_first(self) -> None:
        seen: list[str] = []

        def check(request: Copying, flow_run_id: str) -> None:
            seen.append(flow_run_id)
            raise ConflictError("Taken.", code="NameTaken")

        state = self._execute(lambda *_: pytest.fail("it went on"), check)

        assert statuses.word("train", state) == "CREATE FAILED"
        assert seen == [self.context.flow_run_id]
        assert isinstance(state.data, ConflictError)

    @pytest.mark.parametrize("name", [" ", "a/b"])
    def test_a_name_that_prefect_takes_is_refused_as_a_parameter_is(self, name: str) -> None:
        self.context.name = name
        state = self._execute(lambda *_: pytest.fail("it was executed"))

        assert statuses.word("train", state) == "CREATE FAILED"
        assert state.data.code == "NameInvalid"
        assert "the run's name in Prefect" in str(state.data)

    @pytest.mark.parametrize("of_schedule", [True, False])
    def test_a_name_that_is_not_the_callers_is_not_checked(self, of_schedule: bool) -> None:
        class Named(Copying):
            name: str = "" if of_schedule else "good"

        self.flow.spec = replace(self.flow.spec, request=Named)
        self.context.name = "n" * 260
        self.context.labels = {"modelyard.schedule": "s"} if of_schedule else {}

        assert self._execute(lambda *_: RunResult({}, "")).is_completed()

    def test_a_second_executor_leaves_the_run_alone(self, home: Home) -> None:
        run_id = self.context.flow_run_id
        with holding(home, run_id), pytest.raises(Abort, match=run_id):
            self._execute(lambda *_: pytest.fail("it went on"))

    @pytest.mark.parametrize("minutes", [0, -1, math.nan, math.inf])
    def test_a_time_limit_is_above_0(self, minutes: float) -> None:
        class Limited(Copying):
            max_minutes: float | None = minutes

        self.flow.spec = replace(self.flow.spec, request=Limited)
        state = self._execute(lambda *_: pytest.fail("it was executed"))

        assert state.data.code == "MaxMinutesInvalid"

    def test_a_template_is_laid_under_what_was_sent_not_under_defaults(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Mapping[str, Any]] = []
        updated: list[dict[str, Any]] = []

        def from_template(given: Mapping[str, Any], form: bool) -> dict[str, Any]:
            seen.append(given)
            return {"count": 3, **given}

        client = SimpleNamespace(
            update_flow_run=lambda _, parameters: updated.append(parameters),
            update_flow_run_labels=lambda *_: None,
        )
        monkeypatch.setattr(
            lifecycle, "prefect_client", lambda **_: contextlib.nullcontext(client)
        )
        self.flow.spec = replace(self.flow.spec, from_template=from_template)
        self.context.sent = {"path"}
        state = self._execute(lambda _, request: RunResult(request.count, ""), count=1)

        assert seen == [{"path": "/a"}]
        assert updated == [{"path": "/a", "count": 3}]
        assert results.data(state) == 3

    @pytest.mark.parametrize("minutes", [None, 2.0])
    def test_the_time_limit_of_the_request_is_the_deadline(self, minutes: float | None) -> None:
        class Limited(Copying):
            max_minutes: float | None = minutes

        self.flow.spec = replace(self.flow.spec, request=Limited)
        self._execute(lambda *_: RunResult(None, ""))

        limit = self.context.began + 120 if minutes else None
        assert self.context.deadline == limit
