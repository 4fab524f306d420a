"""What Optuna's estimators are told of our trials."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Told

from tests.tuning.spaces import choice, double, integer
from tuning.parzen import ParzenEstimators
from tuning.space import Parameter, Point
from tuning.trials import Trial, TrialState

_SPACE = [
    double(0.0, 1.0),
    integer(1, 9),
    choice(True, "a", 0),
    Parameter(name="size", type="discrete", values=[64, 16, 32]),
]
_POINT: Point = {"x": 0.5, "n": 3, "c": "a", "size": 32}


def _trial(state: str, **others: Any) -> Trial:
    return Trial(4, _POINT, TrialState(state), **others)


def _told(trial: Trial, *, begun: bool, directions: Any = ("minimize",)) -> FrozenTrial:
    estimators = ParzenEstimators(_SPACE, directions)
    if begun:
        estimators.begin(trial.number, trial.parameters)
    estimators.end(trial)
    (found,) = estimators._study.trials
    return found


@pytest.mark.parametrize("begun", [True, False], ids=["begun here", "made anew"])
class TestEnds:
    def test_a_point_is_told_by_the_places_of_its_values(self, begun: bool) -> None:
        found = _told(_trial("SUCCEEDED", values=(2.0,)), begun=begun)

        assert found.params == {"x": 0.5, "n": 3, "c": 1, "size": 1}
        assert (found.state, found.values) == (Told.COMPLETE, [2.0])

    def test_what_was_stopped_early_is_pruned_with_its_finite_reports(self, begun: bool) -> None:
        reports = (5.0, math.nan, 3.0, math.inf)

        found = _told(_trial("EARLY_STOPPED", values=(3.0,), reports=reports), begun=begun)

        assert found.state is Told.PRUNED
        assert found.intermediate_values == {0: 5.0, 2: 3.0}

    def test_of_several_objectives_it_is_complete(self, begun: bool) -> None:
        stopped = _trial("EARLY_STOPPED", values=(3.0, 1.0), reports=(5.0,))

        found = _told(stopped, begun=begun, directions=("minimize", "maximize"))

        assert (found.state, found.values) == (Told.COMPLETE, [3.0, 1.0])

    def test_violations_are_told_within_what_can_be_summed(self, begun: bool) -> None:
        found = _told(_trial("SUCCEEDED", values=(2.0,), violations=(-1.0, math.inf)), begun=begun)

        assert found.constraints == {"0": -1.0, "1": 1e300}

    @pytest.mark.parametrize("state", ["FAILED", "KILLED", "METRICS_UNAVAILABLE", "SUCCEEDED"])
    def test_what_has_no_value_has_failed(self, begun: bool, state: str) -> None:
        assert _told(_trial(state), begun=begun).state is Told.FAIL


def test_one_point_after_another_differs_and_nothing_of_those_refused_is_left() -> None:
    estimators = ParzenEstimators(_SPACE, ["minimize"])

    points = list(itertools.islice(estimators.points(2**32 - 2), 4))
    estimators.begin(0, _POINT)

    assert len({point["x"] for point in points}) == 4
    states = [trial.state for trial in estimators._study.trials]
    assert states == [Told.FAIL] * 4 + [Told.RUNNING]
    assert estimators._study.trials[-1].params["x"] == 0.5


def test_the_point_that_was_taken_is_begun() -> None:
    estimators = ParzenEstimators(_SPACE, ["minimize"])

    point = next(estimators.points(1))
    estimators.begin(0, point)

    (only,) = estimators._study.trials
    assert (only.state, only.params["x"]) == (Told.RUNNING, point["x"])
    assert point["c"] in (True, "a", 0)
