"""What is shown of a tuning, with Prefect and MLflow replaced by lists."""

import json
import logging
import os
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest

from flows import tuning_progress
from flows.tuning_progress import TuningProgress
from tasks.tuning.tuning_request import Tuning
from tuning.completion import TuningLimits, TuningOutcome
from tuning.trials import Trial, TrialState

TABLE, BAR = UUID(int=1), UUID(int=2)
ACCURACY = {"metric": "accuracy", "direction": "maximize"}


def trial(number, state=TrialState.SUCCEEDED, value=None, **more):
    return Trial(
        number,
        more.pop("parameters", {"rate": 0.1234567891, "kind": "a"}),
        state,
        values=None if value is None else (value,),
        started=100.0,
        ended=None if state is TrialState.RUNNING else 112.5,
        **more,
    )


class Shown:
    """What a person would see."""

    def __init__(self):
        self.best, self.artifacts, self.metrics = [], {}, []
        self.earlier = {}  # artifacts of an earlier attempt, by key

    def update_artifact(self, artifact, update):
        self.artifacts[artifact] = update

    def track(self, tracked):
        assert tracked.run_id == "run"

    def log_metric(self, run_id, name, value, step):
        self.metrics.append((name, value, step))

    def close(self, _):
        self.metrics.append("closed")

    @property
    def table(self):
        return json.loads(self.artifacts[TABLE].data)

    @property
    def said(self):
        return self.artifacts[BAR].description

    @property
    def percent(self):
        return self.artifacts[BAR].data


@pytest.fixture
def shown(monkeypatch):
    made = Shown()

    @contextmanager
    def client(**_):
        yield made

    def writer(_, *, flush_seconds):
        made.flush_seconds = flush_seconds
        return made

    monkeypatch.setattr(tuning_progress, "prefect_client", client)
    monkeypatch.setattr(tuning_progress, "get_run_logger", lambda: logging.getLogger("tuning"))
    monkeypatch.setattr(tuning_progress.artifacts, "find", lambda _, key: made.earlier.get(key))
    monkeypatch.setattr(tuning_progress, "create_table_artifact", lambda **_: TABLE)
    monkeypatch.setattr(tuning_progress, "create_progress_artifact", lambda **_: BAR)
    monkeypatch.setattr(tuning_progress, "MlflowWriter", writer)
    monkeypatch.setattr(tuning_progress.tracking, "client", _no_mlflow)
    monkeypatch.setattr(
        tuning_progress.tunings, "mark_best", lambda _, numbers: made.best.append(tuple(numbers))
    )
    return made


def _no_mlflow():
    raise OSError("there is no MLflow")


LIMITS = TuningLimits(4, None, 2)


NOWHERE = Path(os.devnull)


def progress(limits=LIMITS, runs=NOWHERE, **more):
    request = Tuning(
        **{
            "parameters": [
                {"name": "rate", "type": "double", "min": 0, "max": 1},
                {"name": "kind", "type": "categorical", "values": ["a", "b"]},
            ],
            "objective": [ACCURACY],
            **more,
        }
    )
    context = SimpleNamespace(
        began=time.monotonic(), home=SimpleNamespace(runs=runs), flow_run_id="run"
    )
    tracked = SimpleNamespace(run_id="run")
    return TuningProgress(context, request, tracked, lambda: limits)


def test_metrics_are_sent_as_often_as_the_table_is_drawn(shown):
    progress()
    assert shown.flush_seconds == tuning_progress._REFRESH_SECONDS


def test_the_best_is_on_top_and_who_has_no_value_below(shown):
    made = progress()
    with made.shown():
        made.changed(trial(0, value=0.5))
        made.changed(trial(1, TrialState.EARLY_STOPPED, value=0.25))
        made.changed(trial(2, value=0.7512345678))
        made.changed(trial(3, TrialState.FAILED, reason="ScriptFailed: it broke"))

    assert [row["trial"] for row in shown.table] == [2, 0, 1, 3]
    assert shown.table[0] == {
        "trial": 2, "state": "SUCCEEDED", "accuracy": 0.751235, "rate": 0.123457, "kind": "a",
        "seconds": 12.5, "reason": "",
    }  # fmt: skip
    assert shown.table[3]["reason"] == "ScriptFailed: it broke"
    assert shown.best == [(2,)]


def test_no_column_of_reasons_where_there_are_none(shown):
    made = progress()
    with made.shown():
        made.changed(trial(0, value=0.5))

    assert list(shown.table[0]) == ["trial", "state", "accuracy", "rate", "kind", "seconds"]


def test_a_parameter_that_is_called_as_the_metric_hides_nothing(shown):
    made = progress(objective=[{"metric": "loss", "direction": "minimize"}])
    with made.shown():
        made.changed(trial(0, value=0.5, parameters={"loss": "poisson", "state": "new"}))

    (row,) = shown.table
    assert (row["loss"], row["loss (parameter)"]) == (0.5, "poisson")
    assert (row["state"], row["state (parameter)"]) == ("SUCCEEDED", "new")


def test_it_says_what_there_is_and_what_is_left(shown, caplog):
    caplog.set_level(logging.INFO, "tuning")
    made = progress(TuningLimits(9, None, 2))
    with made.shown():
        made.changed(trial(0, value=0.5))
        made.changed(trial(1, TrialState.EARLY_STOPPED, value=0.25))
        made.changed(trial(2, TrialState.METRICS_UNAVAILABLE, reason="It reported no accuracy."))
        made.changed(trial(3, TrialState.RUNNING))

    assert shown.said == (
        "3 of 9 trials done: 1 EARLY_STOPPED, 1 METRICS_UNAVAILABLE, 1 RUNNING, 1 SUCCEEDED. "
        "Best: trial 0 with accuracy = 0.5 (rate=0.123457, kind=a). About 38 seconds left."
    )
    assert shown.percent == pytest.approx(100 / 3)
    assert [line for line in caplog.messages if line.startswith("Trial")] == [
        "Trial 0 is the best so far with accuracy = 0.5: rate=0.123457, kind=a",
        "Trial 1 was stopped early: rate=0.123457, kind=a",
        "Trial 2 reported no value (It reported no accuracy.): rate=0.123457, kind=a",
    ]
    assert ("best accuracy", 0.5, 3) in shown.metrics
    assert ("trials done", 2, 3) in shown.metrics
    assert ("trials failed", 1, 3) in shown.metrics


def test_limits_that_are_changed_meanwhile_count(shown):
    limits = [TuningLimits(2, None, 1)]
    made = progress()
    made._limits = lambda: limits[0]
    with made.shown():
        made.changed(trial(0, value=0.5))
        limits[0] = TuningLimits(10, None, 1)

    assert shown.said.startswith("1 of 10 trials done")
    assert shown.percent == 10


@pytest.mark.parametrize(
    ("ending", "percent", "last"),
    [
        (TuningOutcome.GOAL_REACHED, 100, "Ended: GoalReached."),
        (TuningOutcome.FAILED, 25, "Ended: FailHyperparameterTuning."),
        ("Stopped", 25, "(rate=0.123457, kind=a)."),
    ],
)
def test_the_end_fills_the_bar_unless_it_is_a_bad_one(shown, ending, percent, last):
    made = progress()
    with made.shown():
        made.changed(trial(0, value=0.5))
        made.ended(ending)

    assert shown.percent == percent
    assert shown.said.endswith(last)


def test_trials_of_an_earlier_attempt_are_shown_and_can_be_the_best(shown, caplog):
    caplog.set_level(logging.INFO, "tuning")
    made = progress()
    made.restored([trial(0, value=0.75), trial(1, value=0.25)])
    with made.shown():
        made.changed(trial(2, value=0.5))

    assert [row["trial"] for row in shown.table] == [0, 2, 1]
    assert shown.best == [(0,)]
    assert ("best accuracy", 0.75, 3) in shown.metrics
    assert not [line for line in caplog.messages if "best so far" in line]


def test_of_several_objectives_there_is_a_front(shown):
    made = progress(objective=[ACCURACY, {"metric": "size", "direction": "minimize"}])
    with made.shown():
        for number, values in enumerate([(0.5, 1.0), (0.75, 2.0), (0.5, 3.0)]):
            made.changed(
                Trial(number, {"rate": 0.5}, TrialState.SUCCEEDED, values=values, ended=1.0)
            )

    assert shown.best == [(0, 1)]
    assert "trial 0 with accuracy = 0.5, size = 1 (rate=0.5); trial 1 with" in shown.said
    assert (shown.table[0]["accuracy"], shown.table[0]["size"]) == (0.75, 2.0)


def test_a_tuning_does_not_fail_for_a_plot(shown, caplog, tmp_path):
    (tmp_path / "run").mkdir()
    made = progress(runs=tmp_path)
    with made.shown():
        made.changed(trial(0, value=0.5))

    assert any("there is no MLflow" in line for line in caplog.messages)
    assert shown.table


@pytest.mark.parametrize(
    ("seconds", "told"), [(7.4, "7 seconds"), (125, "2 minutes"), (9000, "2.5 hours")]
)
def test_times(seconds, told):
    assert tuning_progress._time(seconds) == told


def test_a_retry_goes_on_with_the_table_and_the_bar_that_there_are(shown, monkeypatch):
    shown.earlier = {"trials": uuid4(), "progress": uuid4()}
    for name in ("create_table_artifact", "create_progress_artifact"):
        monkeypatch.setattr(tuning_progress, name, lambda **_: pytest.fail("it made another"))

    with progress().shown():
        pass
    assert shown.artifacts.keys() == set(shown.earlier.values())
