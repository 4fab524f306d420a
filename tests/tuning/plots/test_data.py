from __future__ import annotations

import math
import random
import warnings

import pytest

from tests.tuning.plots.tunings import (
    DONE,
    FAILED,
    SPACE,
    STOPPED,
    drawn,
    many,
    trial,
    tuning_of,
)
from tuning import objectives
from tuning.early_stopping import MedianRule
from tuning.objectives import Objective
from tuning.plots import (
    early_stopping,
    history,
    importances,
    parallel_coordinates,
    pareto_front,
    slices,
)
from tuning.plots.tuning_data import summarize
from tuning.space import Parameter
from tuning.trials import Trial


class TestHistory:
    def test_best_so_far(self) -> None:
        trials = [
            trial(0, 3.0),
            trial(1, 4.0),
            trial(2, 1.0, violations=(0.1,)),
            trial(3, 2.0, state=STOPPED),
            trial(4, state=FAILED),
            trial(5, 2.0),
            trial(6, math.nan),
            trial(7, 1.5),
        ]

        found = history.compute(tuning_of(trials))

        assert found is not None
        assert found.best == ((0, 3.0), (3, 2.0), (7, 1.5))
        assert [point.number for point in found.points] == [0, 1, 2, 3, 5, 7]
        assert [point.feasible for point in found.points][2] is False
        assert found.without == ((4, FAILED), (6, DONE))
        assert found.last == 7

    def test_of_the_largest(self) -> None:
        found = history.compute(tuning_of([trial(1, 2.0), trial(0, 1.0)], "maximize"))

        assert found is not None
        assert found.best == ((0, 1.0), (1, 2.0))

    def test_of_several_objectives(self) -> None:
        found = history.compute(
            tuning_of([trial(0, 1.0, 5.0), trial(1, 2.0, 4.0)], *["minimize"] * 2), 1
        )

        assert found is not None
        assert found.metric == "metric1"
        assert found.best == ((0, 5.0), (1, 4.0))

    def test_without_any_that_is_allowed(self) -> None:
        found = history.compute(tuning_of([trial(0, 1.0, violations=(1.0,))]))

        assert found is not None
        assert found.best == ()
        assert "none is allowed" in summarize(tuning_of([trial(0, 1.0, violations=(1.0,))]))


class TestParallelCoordinates:
    def test_lines(self) -> None:
        trials = [trial(0, 3.0), trial(1, 1.0), trial(2, 2.0), trial(3, state=FAILED)]
        trials[1].parameters.update(layers=8)

        found = parallel_coordinates.compute(tuning_of(trials))

        assert found is not None
        assert found.numbers == (0, 2, 1)
        assert found.values == (3.0, 2.0, 1.0)
        assert [one.name for one in found.axes] == ["rate", "layers", "kind", "size"]
        assert found.heights[-1][1] == 1.0
        assert found.heights[0][1] == pytest.approx(1 / 7)
        assert found.heights[0][0] == pytest.approx(0.5)
        assert list(found.goodness) == sorted(found.goodness)
        assert found.goodness[-1] > 0.9

    def test_the_best_that_is_allowed_is_last(self) -> None:
        trials = [trial(0, 1.0, violations=(1.0,)), trial(1, 3.0), trial(2, 2.0)]

        found = parallel_coordinates.compute(tuning_of(trials))

        assert found is not None
        assert found.numbers == (1, 0, 2)

    def test_the_largest_are_good(self) -> None:
        found = parallel_coordinates.compute(tuning_of([trial(0, 3.0), trial(1, 1.0)], "maximize"))

        assert found is not None
        assert found.numbers == (1, 0)
        assert found.goodness[0] < 0.1 < 0.9 < found.goodness[1]

    def test_of_many_parameters_those_that_vary_come_first(self) -> None:
        space = [Parameter(name=f"p{n}", type="int", min=0, max=9) for n in range(20)]
        trials = [
            trial(
                n, float(n), parameters={one.name: n if one is space[-1] else 0 for one in space}
            )
            for n in range(3)
        ]

        found = parallel_coordinates.compute(tuning_of(trials, space=space))

        assert found is not None
        assert len(found.axes) == 15
        assert found.axes[-1].name == "p19"
        assert found.left_out == 5
        assert "parallel-coordinates.png" in drawn(trials, space=space)


class TestImportances:
    def test_what_matters(self) -> None:
        found = importances.compute(tuning_of(many(80)))

        assert found is not None
        assert found.shares[0][0] == "rate"
        assert found.shares[0][1] > 0.5
        assert sum(share for _, share in found.shares) == pytest.approx(1.0)
        assert {name for name, _ in found.shares} == {one.name for one in SPACE}

    def test_directions(self) -> None:
        mirrored = [
            Trial(one.number, one.parameters, one.state, tuple(-v for v in one.values or ()))
            for one in many(40)
        ]

        assert importances.compute(tuning_of(many(40))) == importances.compute(
            tuning_of(mirrored, "maximize")
        )

    def test_each_objective_by_itself(self) -> None:
        trials = [
            Trial(one.number, one.parameters, one.state,
                  (*(one.values or ()), float(one.parameters["layers"])))
            for one in many(60)
        ]  # fmt: skip

        first = importances.compute(tuning_of(trials, "minimize", "minimize"), 0)
        second = importances.compute(tuning_of(trials, "minimize", "minimize"), 1)

        assert first is not None
        assert second is not None
        assert (first.shares[0][0], second.shares[0][0]) == ("rate", "layers")

    @pytest.mark.parametrize(
        "trials",
        [
            many(9),
            [trial(number, 1.0, parameters={**one.parameters}) for number, one in
             enumerate(many(20))],
            [trial(number, float(number)) for number in range(20)],
            [trial(number, float(number), parameters={"rate": 0.5 / (number + 1)})
             for number in range(20)],
        ],
        ids=["few", "one value", "one point", "one parameter"],
    )  # fmt: skip
    def test_nothing_is_said_where_too_little_is_known(self, trials: list[Trial]) -> None:
        assert importances.compute(tuning_of(trials)) is None

    def test_points_outside_the_space_do_not_count(self) -> None:
        trials = many(12)
        for outside in trials[:3]:
            outside.parameters.update(rate=50.0)

        assert importances.compute(tuning_of(trials)) is None
        assert importances.compute(tuning_of(many(12))) is not None

    def test_nothing_is_logged(self, capfd: pytest.CaptureFixture[str]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            importances.compute(tuning_of(many(20)))

        assert capfd.readouterr() == ("", "")


class TestEarlyStopping:
    def test_curves(self) -> None:
        trials = [
            trial(0, 1.0, reports=(3.0, math.nan, 1.0)),
            trial(1, 2.0, reports=(2.0, 4.0), state=STOPPED),
            trial(2, reports=(math.inf,), state=FAILED),
        ]

        found = early_stopping.compute(tuning_of(trials))

        assert found is not None
        assert [(one.number, one.steps, one.values) for one in found.curves] == [
            (0, (1, 3), (3.0, 1.0)),
            (1, (1, 2), (2.0, 4.0)),
        ]
        assert (found.best, found.longest) == (0, 3)

    def test_the_median_is_the_rules(self) -> None:
        chance = random.Random(1)
        reports = [
            tuple(chance.choice([chance.random(), math.nan]) for _ in range(chance.randint(1, 6)))
            for _ in range(7)
        ]
        trials = [trial(number, 1.0, reports=one) for number, one in enumerate(reports)]
        trials.append(trial(8, 1.0, reports=(9.0,) * 6, state=STOPPED))
        rule = MedianRule("minimize", min_trials=1, start_step=1)
        for one in reports:
            rule.complete(one)

        found = early_stopping.compute(tuning_of(trials))

        assert found is not None
        assert found.median
        for step, median in found.median:
            for nudge, stops in ((-1e-9, False), (1e-9, True)):
                assert rule.stops(99, [median + nudge] * step) is stops

    def test_long_curves_are_thinned(self) -> None:
        reports = tuple(float(step) for step in range(10_000))

        found = early_stopping.compute(tuning_of([trial(0, 1.0, reports=reports)]))

        assert found is not None
        assert len(found.curves[0].steps) == 400
        assert (found.curves[0].steps[0], found.curves[0].steps[-1]) == (1, 10_000)
        assert len(found.median) == 400


class TestParetoFront:
    @pytest.mark.parametrize("directions", [["minimize"] * 2, ["minimize", "maximize"]])
    def test_the_front(self, directions: list[str]) -> None:
        trials = [
            *many(40, 2), trial(40, 0.5, 0.5, violations=(1.0,)), trial(41, state=FAILED),
        ]  # fmt: skip
        wanted = [Objective(metric=str(n), direction=d) for n, d in enumerate(directions)]
        front = objectives.front(trials, wanted)

        (found,) = pareto_front.compute(tuning_of(trials, *directions))

        assert found.front == tuple(sorted(trial.values or () for trial in front))
        assert len(found.dominated) == 40 - len(front)
        assert found.forbidden == ((0.5, 0.5),)
        assert found.steps
        assert found.rises == (False, directions[1] == "maximize")

    def test_pairs_of_three(self) -> None:
        found = pareto_front.compute(tuning_of(many(20, 3), *["minimize"] * 3))

        assert [one.names for one in found] == [
            ("metric0", "metric1"), ("metric0", "metric2"), ("metric1", "metric2"),
        ]  # fmt: skip
        assert len({len(one.front) for one in found}) == 1
        assert not any(one.steps for one in found)
        assert "pareto-front.png" in drawn(many(20, 3), *["minimize"] * 3)


class TestSlices:
    def test_only_what_varied(self) -> None:
        trials = [
            trial(0, 3.0),
            trial(1, 1.0, state=STOPPED),
            trial(2, 0.5, violations=(1.0,)),
        ]
        trials[1].parameters.update(layers=8)

        found = slices.compute(tuning_of(trials))

        assert found is not None
        assert [one.name for one in found.axes] == ["layers"]
        assert found.axes[0].places == (2.0, 8.0, 2.0)
        assert found.values == (3.0, 1.0, 0.5)
        assert found.allowed == (True, True, False)
        assert found.best == 1

    @pytest.mark.parametrize("count", [*range(1, 13), 14])
    def test_any_number_of_panels(self, count: int) -> None:
        space = [Parameter(name=f"p{n}", type="int", min=0, max=9) for n in range(count)]
        trials = [trial(n, float(n), parameters={one.name: n for one in space}) for n in range(3)]

        found = slices.compute(tuning_of(trials, space=space))

        assert found is not None
        assert len(found.axes) == min(count, 12)
        assert found.left_out == max(0, count - 12)
        assert slices.draw(tuning_of(trials, space=space)) is not None
