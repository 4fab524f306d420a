"""What is shown of a run while it is waited for."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import typer

from modelyard import run_watch
from registry.evaluation_results import EvaluationSummaryView
from registry.pipelines.pipeline_views import PipelineResultView, PipelineTaskView
from registry.runs import run_results, runs
from registry.runs.run_views import ResultView, RunDetailView, RunResultView, RunView
from registry.tunings.tuning_views import BestTrialView, TrialView, TuningResultView


def view(state: str, **more: Any) -> RunView:
    return RunView(id="r", name="digits", flow="train", state=state, **more)


def metrics(**values: float | None) -> RunResultView:
    return RunResultView(mlflow_run_id="m", model_uri=None, metrics=values)


class World:
    """A run that is in the next of its states at each look, with lines and results."""

    def __init__(self) -> None:
        self.states: list[RunView | BaseException] = []
        self.lines: dict[int, list[str]] = {}
        self.results: list[ResultView] = []
        self.looks = 0

    def with_ids(self, _: list[str]) -> list[RunView]:
        found = self.states[min(self.looks, len(self.states) - 1)]
        self.looks += 1
        if isinstance(found, BaseException):
            raise found
        return [found]

    def logs(self, _: str, after: int = 0) -> list[str]:
        found = [line for look in range(1, self.looks + 1) for line in self.lines.get(look, [])]
        return found[after:]

    def result(self, _: RunView) -> ResultView:
        return self.results.pop(0) if self.results else None

    def show(self, _: str) -> RunDetailView:
        last = self.states[-1]
        assert isinstance(last, RunView)
        found = {**dict(last), "result": None, "links": {"prefect": "http://p"}}
        return RunDetailView.model_construct(**found)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(runs, "with_ids", made.with_ids)
    monkeypatch.setattr(runs, "logs", made.logs)
    monkeypatch.setattr(runs, "show", made.show)
    monkeypatch.setattr(run_results, "result", made.result)
    monkeypatch.setattr(run_watch.time, "sleep", lambda _: None)
    monkeypatch.setattr(run_watch, "_POLLS_PER_PROGRESS", 1)
    return made


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that were printed; those of an event without its time."""
    lines = capsys.readouterr().out.splitlines()
    return [line.partition("  ")[2] or line for line in lines]


def test_states_lines_and_metrics_in_their_order(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.states = [
        view("CREATE REQUESTED", waiting="for a GPU"), view("RUNNING"), view("RUNNING"),
        view("COMPLETE IN PROGRESS"), view("COMPLETE", detail="GoalReached", is_final=True),
    ]  # fmt: skip
    world.lines = {
        1: ["Worker 'gpu@a' submitting flow run 'r'", "Flow run 'n' submitted to infrastructure"],
        2: ["Beginning flow run 'n' for flow 'train'", "step [1] :warning:"],
        3: ["step 2"], 4: ["step 3"],
        5: ["Finished in state Completed()", "the last one"],
    }  # fmt: skip
    world.results = [None, metrics(loss=0.5), metrics(loss=0.25, gain=None), None]

    ended = run_watch.watch("r", quiet=False)

    assert (ended.state, ended.flow_run_id) == ("COMPLETE", "r")
    assert shown(capsys) == [
        "CREATE REQUESTED: for a GPU", "RUNNING", "step [1] :warning:", "loss 0.5", "step 2",
        "loss 0.25, gain None", "step 3", "COMPLETE IN PROGRESS", "the last one",
        "COMPLETE (GoalReached)",
    ]  # fmt: skip


def test_what_does_not_change_is_shown_once(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.states = [view("RUNNING")] * 4 + [view("STOPPED", is_final=True)]
    world.results = [metrics(loss=0.5)] * 4
    run_watch.watch("r", quiet=False)

    assert shown(capsys) == ["RUNNING", "loss 0.5", "STOPPED"]


@pytest.mark.parametrize(
    ("quiet", "message"),
    [
        (False, "Failed. Its last lines: (see above)\nThe log is x."),
        (True, "Failed. Its last lines:\nodd\neven\nThe log is x."),
    ],
)
def test_a_failures_last_lines_are_shown_once(world: World, quiet: bool, message: str) -> None:
    whole = "Failed. Its last lines:\nodd\neven\nThe log is x."
    world.states = [view("RUNNING"), view("FAIL TRAIN", is_final=True, message=whole)]
    world.lines = {1: ["odd", "even"]}

    assert run_watch.watch("r", quiet=quiet).message == message


def test_without_the_log(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.states = [view("RUNNING"), view("COMPLETE", is_final=True)]
    world.lines = {1: ["step 1"]}
    run_watch.watch("r", quiet=False, log=False)

    assert shown(capsys) == ["RUNNING", "COMPLETE"]


def test_quiet_prints_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.states = [view("RUNNING"), view("FAIL TRAIN", is_final=True)]
    world.lines = {1: ["step 1"]}

    assert run_watch.watch("r", quiet=True).state == "FAIL TRAIN"
    assert capsys.readouterr().out == ""


def test_ctrl_c_says_that_the_run_continues(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.states = [view("RUNNING"), KeyboardInterrupt()]
    with pytest.raises(typer.Exit) as raised:
        run_watch.watch("r", quiet=True)

    out, err = capsys.readouterr()
    assert raised.value.exit_code == 130
    assert out == ""
    assert "continues" in err
    assert "modelyard runs watch r\n" in err
    assert "modelyard runs logs r -f\n" in err
    assert "modelyard runs stop r\n" in err


def test_what_prefect_prints_of_a_call_has_not_the_state_that_the_command_prints() -> None:
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    root, logger = logging.getLogger(), logging.getLogger("a.run")
    root.addHandler(handler)
    try:
        with run_watch.state_logged_once():
            logger.error("Finished in state Failed('%s')", "no luck")
            logger.error("a line")
        logger.error("Finished in state Failed()")
    finally:
        root.removeHandler(handler)

    assert printed.getvalue().splitlines() == ["a line", "Finished in state Failed()"]


def _trial(number: int, state: str) -> TrialView:
    return TrialView(
        number=number, state=state, parameters={}, value=None, mlflow_run_id=None, attempts=1
    )


def test_progress_of_a_tuning_and_a_pipeline() -> None:
    trials = [_trial(0, "SUCCEEDED"), _trial(1, "RUNNING"), _trial(2, "SUCCEEDED")]
    best = BestTrialView(number=2, parameters={}, value=0.123456789, mlflow_run_id=None)
    tasks = [PipelineTaskView(name=n, title="", state=s, reason="")
             for n, s in (("a", "SUCCEEDED"), ("b", "PENDING"))]  # fmt: skip

    tuning = TuningResultView(mlflow_run_id="m", best=best, trials=trials)
    assert run_watch.describe(tuning) == "2 succeeded, 1 running; best 0.123457 (trial 2)"
    without = TuningResultView(mlflow_run_id="m", best=None, trials=[])
    assert run_watch.describe(without) == ""
    pipeline = PipelineResultView(mlflow_run_id="m", outputs={}, tasks=tasks)
    assert run_watch.describe(pipeline) == "1 succeeded, 1 pending"
    evaluation = EvaluationSummaryView(mlflow_run_id="m", metrics={"accuracy": 0.5, "f1": None})
    assert run_watch.describe(evaluation) == "accuracy 0.5, f1 None"
    assert run_watch.describe(None) == ""


def test_of_many_metrics_some_are_shown() -> None:
    many = metrics(**{f"m{number}": 1.0 for number in range(11)})

    assert run_watch.describe(many).endswith("m7 1, and 3 more")
