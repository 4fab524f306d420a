"""The ends of every flow's runs, by what happens in its own work once the run is opened."""

from __future__ import annotations

import contextlib
import errno
import importlib
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from prefect.client.schemas.objects import State

from flows import catalogue, results, run_context
from flows.lifecycle import LifecycleFlow
from flows.run_context import RunContext
from flows.steps import StopRequestedError
from infra.errors import BadInputError, DiskFullError, RunFailedError
from infra.home import Home
from pipelines.states import TaskResult, TaskState
from registry.runs import statuses
from registry.tracking import Tracked
from tasks.parameters import FlowRequest
from tests.flows.contexts import run_context_of

X = {"name": "x", "type": "double", "min": 0, "max": 1}
LOSS = {"metric": "loss", "direction": "minimize"}

# Of each flow: its parameters, the step after its run is opened, and what comes before that step.
WORK: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "train": ({}, "flows.training._run_script", {
        "flows.training._prepare": "prepared",
    }),
    "tune": ({"parameters": [X], "objective": LOSS}, "flows.tuning._conduct", {
        "flows.tuning.rows.of": [],
        "flows.tuning.tunings.mark_objectives": None,
    }),
    "pipeline-run": ({"pipeline": "p:1"}, "flows.pipeline_run._executed", {
        "flows.pipeline_run._begun": None,
        "flows.pipeline_run.arguments_of": {},
    }),
    "batch-inference": ({"model": "m/1"}, "flows.batch_inference._predict", {
        "flows.batch_inference.inference_request.resolve": SimpleNamespace(uri="models:/m/1"),
        "flows.batch_inference._prepare": ("place", "plan"),
    }),
    "evaluate": ({"model": "m/1"}, "flows.evaluation._predict", {
        "flows.evaluation._resolve": SimpleNamespace(uri="models:/m/1"),
        "flows.evaluation.evaluating.select": [],
        "flows.evaluation.evaluating.check_first_file": None,
        "flows.evaluation.evaluating.check_unchanged": None,
        "flows.evaluation.tracking.client": MagicMock(),
        "flows.evaluation.publish_targets.record": None,
    }),
    "pipeline-artifacts-cleanup": ({}, "flows.pipeline_cleanup.cleanup.clean_up", {}),
}  # fmt: skip


@pytest.fixture(params=catalogue.load_all(), ids=lambda flow: str(flow.name))
def flow(request: pytest.FixtureRequest) -> LifecycleFlow[..., Any]:
    found: LifecycleFlow[..., Any] = request.param
    return found


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statuses with which MLflow runs were closed."""
    found: list[str] = []
    tracked = Tracked("m", "url", {})
    monkeypatch.setattr(run_context.tracking, "open_run", lambda *_, **__: tracked)
    monkeypatch.setattr(run_context.tracking, "close_run", lambda _, status: found.append(status))
    monkeypatch.setattr(run_context.artifacts, "tie_to_mlflow", lambda *_: None)
    monkeypatch.setattr(run_context, "get_run_logger", lambda: run_context.get_logger("tests"))
    monkeypatch.setattr(RunContext, "conclude", lambda _, *, failed: None)
    monkeypatch.setattr(RunContext, "report_error", lambda *_: None)
    for flow in catalogue.load_all():  # a flow may write to MLflow before the step that fails
        module = importlib.import_module(flow.work.__module__)
        monkeypatch.setattr(module, "MlflowWriter", MagicMock(), raising=False)
    return found


@pytest.fixture
def end(
    flow: LifecycleFlow[..., Any], home: Home, monkeypatch: pytest.MonkeyPatch
) -> Callable[[BaseException], State[Any]]:
    given, step, before = WORK[flow.name]

    def run(error: BaseException) -> State[Any]:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        for place, value in before.items():
            _patch(monkeypatch, place, lambda *_, value=value, **__: value)
        _patch(monkeypatch, step, fail)
        request: FlowRequest = flow.model(**given)
        context = run_context_of(home, flow.spec.kind)
        return run_context.run_to_end(context, lambda: flow.work(context, request))

    return run


def _patch(monkeypatch: pytest.MonkeyPatch, place: str, value: Any) -> None:
    package, module, *inner, name = place.split(".")
    # Some modules are called as the flow in them, so they are imported by their names.
    found: Any = importlib.import_module(f"{package}.{module}")
    for attribute in inner:
        found = getattr(found, attribute)
    monkeypatch.setattr(found, name, value)


def _closed(flow: LifecycleFlow[..., Any], status: str) -> list[str]:
    return [status] if flow.spec.tracked else []


class TestEveryFlow:
    def test_a_refusal_after_the_start_is_its_own_failure(
        self, flow: LifecycleFlow[..., Any], end: Callable[..., State[Any]], closed: list[str]
    ) -> None:
        state = end(BadInputError("No.", code="Odd"))

        assert statuses.word(flow.name, state) == flow.spec.kind.failure
        assert statuses.message(state).startswith("Odd: No.")
        assert closed == _closed(flow, "FAILED")

    def test_a_full_disk(
        self, flow: LifecycleFlow[..., Any], end: Callable[..., State[Any]], closed: list[str]
    ) -> None:
        state = end(OSError(errno.ENOSPC, "No space left on device"))

        assert statuses.word(flow.name, state) == flow.spec.kind.failure
        assert isinstance(results.failure(state), DiskFullError)
        assert closed == _closed(flow, "FAILED")

    def test_a_time_limit(
        self, flow: LifecycleFlow[..., Any], end: Callable[..., State[Any]], closed: list[str]
    ) -> None:
        state = end(RunFailedError("Too long.", state=statuses.TIMED_OUT, code="Timeout"))

        assert statuses.word(flow.name, state) == "TIMED OUT"
        assert closed == _closed(flow, "FAILED")

    def test_a_stop(
        self, flow: LifecycleFlow[..., Any], end: Callable[..., State[Any]], closed: list[str]
    ) -> None:
        state = end(StopRequestedError())

        assert statuses.word(flow.name, state) == "STOPPED"
        assert closed == _closed(flow, "KILLED")

    def test_a_crash(
        self, flow: LifecycleFlow[..., Any], end: Callable[..., State[Any]], closed: list[str]
    ) -> None:
        with pytest.raises(ZeroDivisionError):
            end(ZeroDivisionError())

        assert closed == _closed(flow, "FAILED")


class TestPipeline:
    """The end of a pipeline, as its engine reports it."""

    @pytest.fixture
    def execute(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., State[Any]]:
        module: Any = importlib.import_module("flows.pipeline_run")
        quiet: Any = lambda *_, **__: contextlib.nullcontext()  # noqa: E731
        view = SimpleNamespace(line=None, updating=quiet, over=lambda _: None)
        recorder = SimpleNamespace(writing=quiet, on_node_changed=lambda _: None)
        for name, value in {
            "PipelineReporter": lambda *_, **__: view,
            "Recorder": lambda *_: recorder,
            "Components": lambda *_, **__: SimpleNamespace(check=lambda: None),
            "_facts": lambda *_: None, "_root": lambda *_: "", "_bundle": lambda *_: None,
            "arguments_of": lambda *_: {},
        }.items():  # fmt: skip
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(module.run_monitor, "monitored", quiet)
        launcher = SimpleNamespace(close=lambda: None)
        for name, value in {
            "artifacts": lambda _: "", "backend": lambda *_, **__: launcher,
            "claims": lambda *_: None,
        }.items():  # fmt: skip
            monkeypatch.setattr(module.choice, name, value)

        def run(ended: TaskResult, *, stopped: bool = False, seconds: float = 0) -> State[Any]:
            context = run_context_of(home, module.pipeline_run.spec.kind)
            config = {"activeDeadlineSeconds": seconds}
            pipeline = SimpleNamespace(config=config, name="p")
            monkeypatch.setattr(module, "_begun", lambda *_: pipeline)

            class Engine:
                def __init__(self, *_: Any, **__: Any) -> None:
                    pass

                def run(self, _: Any) -> TaskResult:
                    if stopped:
                        context.stop.set()
                    if seconds:
                        assert context.stop.wait(30)
                    return ended

            monkeypatch.setattr(module.execution, "Execution", Engine)
            request = module.PipelineRun(pipeline="p:1")
            work = module.pipeline_run.work
            return run_context.run_to_end(context, lambda: work(context, request))

        return run

    def test_a_task_that_fails(
        self, execute: Callable[..., State[Any]], closed: list[str]
    ) -> None:
        state = execute(TaskResult(TaskState.FAILED, reason="a failed"))

        assert statuses.word("pipeline-run", state) == "FAIL PIPELINE RUN"
        message = statuses.message(state)
        assert message.startswith("PipelineFailed: a failed")
        # A resumed run keeps the pipeline that it was started with.
        resumed = re.search("resume: modelyard runs retry ([0-9a-f-]{36})", message)
        assert resumed
        assert message.endswith(f"needs a new run: modelyard runs copy {resumed[1]}.")
        assert closed == ["FAILED"]

    def test_a_stop(self, execute: Callable[..., State[Any]], closed: list[str]) -> None:
        state = execute(TaskResult(TaskState.CANCELLED), stopped=True)

        assert statuses.word("pipeline-run", state) == "STOPPED"
        assert closed == ["KILLED"]

    def test_the_time_limit_that_it_was_compiled_with(
        self, execute: Callable[..., State[Any]], closed: list[str]
    ) -> None:
        state = execute(TaskResult(TaskState.CANCELLED), seconds=1)

        assert statuses.word("pipeline-run", state) == "FAIL PIPELINE RUN"
        assert statuses.message(state).startswith("PipelineFailed: The run exceeded the 1 s")
        assert closed == ["FAILED"]
