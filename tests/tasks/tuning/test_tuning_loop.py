"""The tuner, with trials that end when and how a test says."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import RunFailedError
from tasks.trials.base import (
    Launcher,
    MetricReported,
    TrialEnded,
    TrialStarted,
)
from tasks.tuning.tuning_loop import Interruption, Tuner, TuningPlan
from tuning.completion import TuningLimits, TuningOutcome
from tuning.early_stopping import EarlyStopping
from tuning.objectives import Constraint, Objective
from tuning.trials import ACTIVE, Trial, TrialState

LOSS = Objective(metric="loss", direction="minimize")
_FOUR = TuningLimits(4, None, 2)
FAILED = RunFailedError("It broke.", state="FAIL TRAIN", code="ScriptFailed")


class Points:
    """A search with so many points; what it was told is kept."""

    def __init__(self, count=1000):
        self.count = count
        self.told = []
        self.waits_for = []

    def ask(self, number):
        return {"x": number} if number < self.count else None

    def tell(self, trial):
        self.told.append(trial)

    def pending(self, trial):
        self.waits_for.append(trial)


@dataclass
class Rows(dict):
    """The catalogue's rows, and every state that each trial went through."""

    states: dict[int, list[TrialState]] = field(default_factory=dict)

    def save(self, *trials):
        for trial in trials:
            self[trial.number] = trial
            self.states.setdefault(trial.number, []).append(trial.state)


class Scripted(Launcher):
    """Trials whose reports and ends are given; one without an end runs until it is stopped."""

    def __init__(self, tuner, reports=lambda trial: [0.5], end=lambda trial: None, runs=()):
        self.tuner, self.reports, self.end, self.runs = tuner, reports, end, set(runs)
        self.launched, self.concluded, self.stopped = [], [], []
        self.active, self.most_active, self.closed = set(), 0, False
        self.again, self.settled, self.stop_timeout_seconds = [], [], 30.0

    def launch(self, trial, *, again=False):
        number = trial.number
        self.launched.append(trial)
        if again:
            self.again.append(number)
        self.active.add(number)
        self.most_active = max(self.most_active, len(self.active))
        self.tuner.emit(TrialStarted(number, f"mlflow {number}"))
        for report in self.reports(trial):
            metric, value = report if isinstance(report, tuple) else ("loss", report)
            self.tuner.emit(MetricReported(number, metric, value))
        if number not in self.runs:
            self._end(TrialEnded(number, self.end(trial)))

    def stop(self, number):
        self.stopped.append(number)
        if number in self.active:
            self._end(TrialEnded(number, stopped=True))

    def release(self, number):
        self._end(TrialEnded(number))

    def _end(self, finished):
        self.active.discard(finished.number)
        self.tuner.emit(finished)

    def conclude(self, trial):
        assert not self.closed
        self.concluded.append(trial)

    def settle(self, trials):
        self.settled = list(trials)

    def close(self):
        for number in list(self.active):
            self.stop(number)
        self.closed = True


@dataclass
class Scene:
    rows: Rows = field(default_factory=Rows)
    points: Points = field(default_factory=Points)

    def tuner(self, limits, objectives=(LOSS,), **plan):
        now = limits if callable(limits) else lambda: limits
        plan = {"constraints": (), **plan}
        return Tuner(TuningPlan(objectives, limits=now, **plan), self.points, save=self.rows.save)

    def run(self, limits=_FOUR, stop=lambda: False, **given):
        plan = {
            key: given.pop(key) for key in list(given) if key not in {"reports", "end", "runs"}
        }
        tuner = self.tuner(limits, **plan)
        self.launcher = Scripted(tuner, **given)
        return tuner.run(self.launcher, deadline=None, stop_requested=stop)

    def states(self):
        return [trial.state.value for _, trial in sorted(self.rows.items())]


@pytest.fixture
def scene():
    return Scene()


def test_as_many_trials_as_the_maximum(scene):
    assert scene.run(TuningLimits(5, None, 2)) is TuningOutcome.MAX_TRIALS_REACHED
    assert scene.states() == ["SUCCEEDED"] * 5
    assert [trial.parameters for trial in scene.rows.values()] == [{"x": n} for n in range(5)]
    assert scene.launcher.closed
    assert [trial.number for trial in scene.launcher.concluded] == list(range(5))


def test_a_trial_goes_through_its_states_and_keeps_what_it_reported(scene):
    scene.run(TuningLimits(1, None, 1), reports=lambda _: [0.5, math.nan, 0.25, math.inf])
    created, running, succeeded = scene.rows.states[0]
    assert (created, running, succeeded) == ("CREATED", "RUNNING", "SUCCEEDED")
    trial = scene.rows[0]
    assert trial.values == (0.25,)
    assert trial.reports[2:] == (0.25, math.inf)
    assert math.isnan(trial.reports[1])
    assert trial.mlflow_run_id == "mlflow 0"
    assert trial.created <= trial.started <= trial.ended
    assert scene.points.told == [trial]


def test_the_space_ends_before_the_maximum(scene):
    scene.points = Points(3)
    assert scene.run(TuningLimits(9, None, 2)) is TuningOutcome.SUGGESTION_END_REACHED
    assert scene.states() == ["SUCCEEDED"] * 3


def test_the_goal_ends_it_and_stops_what_runs(scene):
    goal = Objective(metric="loss", direction="minimize", goal=0.1)
    ended = scene.run(
        TuningLimits(9, None, 2), objectives=(goal,), runs={0},
        reports=lambda trial: [0.1 if trial.number == 2 else 0.5],
    )  # fmt: skip
    assert ended is TuningOutcome.GOAL_REACHED
    assert scene.states() == ["KILLED", "SUCCEEDED", "SUCCEEDED"]


def test_what_runs_at_the_goal_may_go_on(scene):
    goal = Objective(metric="loss", direction="maximize", goal=0.4)
    tuner = scene.tuner(TuningLimits(9, None, 2), objectives=(goal,), stop_running=False)
    launcher = Scripted(tuner, runs={0})
    later = iter([False] * 3)

    def stop():
        if next(later, None) is None and 0 in launcher.active:
            launcher.release(0)
        return False

    assert tuner.run(launcher, deadline=None, stop_requested=stop) is TuningOutcome.GOAL_REACHED
    assert scene.states() == ["SUCCEEDED", "SUCCEEDED"]


@pytest.mark.parametrize("halt", [Interruption.STOPPED, Interruption.TIMED_OUT])
def test_who_ends_it_while_the_last_ones_go_on_has_ended_it(scene, halt):
    goal = Objective(metric="loss", direction="maximize", goal=0.4)
    tuner = scene.tuner(TuningLimits(9, None, 2), objectives=(goal,), stop_running=False)
    launcher = Scripted(tuner, runs={0})
    asked = iter([False] * 3)

    def stop():
        return next(asked, True) and halt is Interruption.STOPPED

    deadline = time.monotonic() + 1 if halt is Interruption.TIMED_OUT else None
    assert tuner.run(launcher, deadline=deadline, stop_requested=stop) is halt
    assert scene.states() == ["KILLED", "SUCCEEDED"]


def test_the_nth_failure_fails_it(scene):
    ended = scene.run(TuningLimits(9, 2, 1), end=lambda trial: FAILED if trial.number else None)
    assert ended is TuningOutcome.FAILED
    assert scene.states() == ["SUCCEEDED", "FAILED", "FAILED"]
    assert scene.rows[1].reason == "ScriptFailed: It broke."


def test_failures_without_a_limit_end_at_the_maximum(scene):
    assert (
        scene.run(TuningLimits(3, None, 1), end=lambda _: FAILED)
        is TuningOutcome.MAX_TRIALS_REACHED
    )
    assert scene.states() == ["FAILED"] * 3


def test_a_trial_that_reports_nothing_has_no_metrics(scene):
    scene.run(TuningLimits(1, None, 1), reports=lambda _: [("other", 1.0)])
    assert scene.states() == ["METRICS_UNAVAILABLE"]
    assert scene.rows[0].reason == "It reported no loss."


def test_a_trial_that_reports_no_finite_number_has_no_value(scene):
    scene.run(TuningLimits(1, None, 1), reports=lambda _: [math.nan, -math.inf])
    assert scene.states() == ["METRICS_UNAVAILABLE"]
    assert scene.rows[0].values is None
    assert scene.rows[0].reason == "It reported no finite loss."


def test_a_search_whose_trials_all_diverge_fails_at_the_limit_of_failures(scene):
    ended = scene.run(TuningLimits(9, 3, 1), reports=lambda _: [math.nan])
    assert ended is TuningOutcome.FAILED
    assert scene.states() == ["METRICS_UNAVAILABLE"] * 3


def test_each_of_several_objectives_must_have_been_finite(scene):
    accuracy = Objective(metric="accuracy", direction="maximize")
    scene.run(
        TuningLimits(1, None, 1), objectives=(LOSS, accuracy),
        reports=lambda _: [0.5, ("accuracy", math.nan)],
    )  # fmt: skip
    assert scene.states() == ["METRICS_UNAVAILABLE"]
    assert scene.rows[0].reason == "It reported no finite accuracy."


def test_a_constraint_whose_metric_is_missing(scene):
    constraint = Constraint(metric="size", max=10)
    sizes = ((), (12,), (math.nan,))
    scene.run(
        TuningLimits(3, None, 1), constraints=(constraint,),
        reports=lambda trial: [0.5, *[("size", value) for value in sizes[trial.number]]],
    )  # fmt: skip
    assert scene.states() == ["METRICS_UNAVAILABLE", "SUCCEEDED", "METRICS_UNAVAILABLE"]
    assert scene.rows[1].violations == (2.0,)
    assert not any(trial.feasible for trial in scene.rows.values())


def test_a_hopeless_trial_is_stopped_and_what_it_reports_later_counts_for_nothing(scene):
    rule = EarlyStopping(min_trials=2, start_step=2).make("minimize")
    bad = [0.9, 0.9, 0.0, 0.0]
    ended = scene.run(
        TuningLimits(4, 1, 1), rule=rule, runs={2},
        reports=lambda trial: bad if trial.number == 2 else [0.5, 0.4, 0.3, 0.2],
    )  # fmt: skip
    assert ended is TuningOutcome.MAX_TRIALS_REACHED
    assert scene.states() == ["SUCCEEDED", "SUCCEEDED", "EARLY_STOPPED", "SUCCEEDED"]
    assert scene.rows[2].reports == (0.9, 0.9)
    assert scene.rows[2].values == (0.9,)


def test_a_hopeless_trial_that_was_too_quick_to_be_stopped_is_stopped_all_the_same(scene):
    rule = EarlyStopping(min_trials=2, start_step=2).make("minimize")
    scene.run(
        TuningLimits(3, None, 1), rule=rule,
        end=lambda trial: FAILED if trial.number == 2 else None,
        reports=lambda trial: [0.9, 0.9, 0.0] if trial.number == 2 else [0.5, 0.4, 0.3],
    )  # fmt: skip
    assert scene.states()[2] == "EARLY_STOPPED"
    assert scene.rows[2].reports == (0.9, 0.9)


def test_stopped_from_outside(scene):
    answers = iter([False, False, False])
    ended = scene.run(TuningLimits(9, None, 2), runs={1, 2}, stop=lambda: next(answers, True))
    assert ended is Interruption.STOPPED
    assert set(scene.states()[1:]) == {"KILLED"}
    assert scene.launcher.closed
    assert not scene.launcher.active


def test_out_of_time(scene):
    tuner = scene.tuner(TuningLimits(9, None, 2))
    launcher = Scripted(tuner, runs={0, 1})
    assert (
        tuner.run(launcher, deadline=0.0, stop_requested=lambda: False) is Interruption.TIMED_OUT
    )


def test_an_exception_stops_everything_first(scene):
    def stop():
        if len(scene.rows) == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        scene.run(TuningLimits(9, None, 2), runs={0, 1}, stop=stop)
    assert scene.states() == ["KILLED", "KILLED"]
    assert scene.launcher.closed


def test_parallelism_follows_its_limit(scene):
    parallel = [3]
    tuner = scene.tuner(lambda: TuningLimits(9, None, parallel[0]))
    launcher = Scripted(tuner, runs=range(9))
    seen = []

    def stop():
        seen.append(len(launcher.active))
        if seen[-1] == 3:
            parallel[0] = 1
        if parallel[0] == 1 and launcher.active:
            launcher.release(min(launcher.active))
        return False

    assert (
        tuner.run(launcher, deadline=None, stop_requested=stop) is TuningOutcome.MAX_TRIALS_REACHED
    )
    assert seen[:4] == [0, 1, 2, 3]
    assert all(count <= 1 for count in seen[6:])
    assert scene.states() == ["SUCCEEDED"] * 9


def _row(number, state, **more):
    return Trial(number, {"x": number}, TrialState(state), **more)


def test_a_restart_goes_on_where_it_was(scene):
    kept = [
        _row(0, "SUCCEEDED", values=(0.5,), reports=(0.5,)),
        _row(1, "RUNNING", started=1.0, mlflow_run_id="mlflow 1"),
        _row(2, "KILLED", started=1.0, ended=2.0, reports=(0.7,)),
        _row(3, "CREATED"),
        _row(4, "FAILED", reason="ScriptFailed: It broke."),
    ]
    tuner = scene.tuner(TuningLimits(6, None, 2))
    tuner.restore(kept)
    known = list(tuner.trials.values())
    launcher = Scripted(tuner)
    assert tuner.run(launcher, deadline=None, stop_requested=lambda: False)
    assert [one.number for one in launcher.launched] == [1, 2, 3, 5]
    assert launcher.again == [1, 2, 3]
    assert launcher.settled == known
    assert launcher.launched[0].mlflow_run_id == "mlflow 1"
    assert [tuner.trials[number].attempts for number in (1, 2, 3, 5)] == [2, 2, 1, 1]
    assert [tuner.trials[number].state.value for number in range(6)] == [
        "SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED",
    ]  # fmt: skip
    assert [one.number for one in scene.points.waits_for] == [1, 2, 3]


def test_a_trial_that_died_twice_with_its_tuning_has_failed(scene):
    tuner = scene.tuner(TuningLimits(1, 1, 1))
    tuner.restore([_row(0, "RUNNING", started=1.0, attempts=2, losses=1)])
    launcher = Scripted(tuner)
    assert tuner.run(launcher, deadline=None, stop_requested=lambda: False) is TuningOutcome.FAILED
    assert launcher.launched == []
    assert scene.rows[0].reason == "Its process was killed twice."


def test_a_trial_with_a_run_of_its_own_is_found_again(scene):
    tuner = scene.tuner(TuningLimits(1, 1, 1))
    tuner.restore([_row(0, "RUNNING", started=1.0, attempts=5, flow_run_id="flow 0")])
    launcher = Scripted(tuner)
    assert tuner.run(launcher, deadline=None, stop_requested=lambda: False)
    assert [one.flow_run_id for one in launcher.launched] == ["flow 0"]


def test_the_goal_counts_again_after_a_restart(scene):
    goal = Objective(metric="loss", direction="minimize", goal=0.5)
    tuner = scene.tuner(TuningLimits(9, None, 1), objectives=(goal,))
    tuner.restore([_row(0, "SUCCEEDED", values=(0.5,)), _row(1, "RUNNING", started=1.0)])
    launcher = Scripted(tuner)
    ended = tuner.run(launcher, deadline=None, stop_requested=lambda: False)
    assert ended is TuningOutcome.GOAL_REACHED
    assert launcher.launched == []
    assert scene.states() == ["KILLED"]


class _KilledError(BaseException):
    """The process is gone at this moment: nothing else is done."""


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_killed_at_any_save_a_restart_loses_and_repeats_nothing(data):
    """Every save is a moment at which the process may die, before or after the row is there."""
    scene = Scene(points=Points(data.draw(st.integers(1, 8))))
    limits = TuningLimits(data.draw(st.integers(1, 8)), None, data.draw(st.integers(1, 3)))
    finished: list[int] = []
    late_ = st.booleans()
    for attempt in range(20):
        saves_left = data.draw(st.integers(0, 12)) if attempt < 19 else 10**6
        done_before = {number for number, trial in scene.rows.items() if trial.state not in ACTIVE}

        def save(*trials, before=saves_left, kills=[0], late=data.draw(late_)):  # noqa: B006, B008
            kills[0] += 1
            if kills[0] > before and not late:
                raise _KilledError
            scene.rows.save(*trials)
            if kills[0] > before:
                raise _KilledError

        tuner = Tuner(TuningPlan((LOSS,), (), lambda: limits), scene.points, save=save)
        launcher = Scripted(tuner)
        launcher.close = lambda: None  # type: ignore[method-assign]
        try:
            tuner.restore(list(map(scene.rows.get, sorted(scene.rows))))
            tuner.run(launcher, deadline=None, stop_requested=lambda: False)
        except _KilledError:
            repeated = done_before & {one.number for one in launcher.launched}
            assert not repeated
            finished += [one.number for one in launcher.concluded]
            continue
        break
    count = min(limits.max_trials, scene.points.count)
    assert sorted(scene.rows) == list(range(count))
    assert all(trial.state not in ACTIVE for trial in scene.rows.values())
    assert [scene.rows[number].parameters for number in range(count)] == [
        {"x": number} for number in range(count)
    ]
