from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.tuning.plots.tunings import (
    KIND,
    LAYERS,
    RATE,
    SIZE,
    drawn,
    many,
    trial,
    tuning_of,
)
from tuning.plots import (
    axis,
    scales,
    style,
)
from tuning.space import Parameter


class TestScales:
    @pytest.mark.parametrize(
        ("values", "log"),
        [
            ([1.0, 101.0], True),
            ([1.0, 99.0], False),
            ([0.0, 1e6], False),
            ([-1.0, 1e6], False),
            ([1e-90, 1.0], True),
            ([1.0, math.nan, 1e6], True),
            ([1.0, math.inf, 2.0], False),
            ([1.0, 2.0, 1e200], False),
        ],
    )
    def test_logarithmic(self, values: list[float], log: bool) -> None:
        assert scales.of_values(values).log is log

    def test_what_is_far_worse_lies_beyond(self) -> None:
        values = [1.0 + place / 10 for place in range(10)]

        for direction, outlier in (("minimize", -1e6), ("maximize", -1e6)):
            sign = 1 if direction == "maximize" else -1
            found = scales.of_values([sign * one for one in (*values, outlier)], direction)
            assert found.beyond == 1
            assert found.high - found.low < 2

    def test_what_is_far_better_does_not(self) -> None:
        values = [1.0 + place / 10 for place in range(10)]

        found = scales.of_values([*values, -1e6], "minimize")

        assert found.low < -1e6
        assert found.beyond == 0

    def test_one_value_has_a_range(self) -> None:
        for value in (0.0, 5.0, -5.0, 1e-300, 1e99):
            found = scales.of_values([value])
            assert found.low < value < found.high

    @given(st.lists(st.floats(), min_size=1), st.sampled_from([None, "minimize", "maximize"]))
    @hypothesis_settings(database=None, deadline=None)
    def test_every_scale_is_one(self, values: list[float], direction: Any) -> None:
        if not any(map(scales.drawable, values)):
            return
        found = scales.of_values(values, direction)

        assert -math.inf < found.low < found.high < math.inf
        assert not found.log or found.low > 0
        for value in values:
            place = found.place(value)
            assert math.isnan(place) == math.isnan(value)
            assert math.isnan(place) or 0 <= place <= 1
            assert math.isnan(value) or found.low <= found.within(value) <= found.high
        for tick in scales.ticks(found):
            assert -1e-6 < (tick - found.low) / (found.high - found.low) < 1 + 1e-6

    def test_places(self) -> None:
        assert scales.of_range(1.0, 3.0, log=False).place(2.0) == 0.5
        assert scales.of_range(0.01, 1.0, log=True).place(0.1) == pytest.approx(0.5)
        assert scales.of_range(0.01, 1.0, log=True).value(0.5) == pytest.approx(0.1)
        assert scales.of_range(0.0, 1.0, log=True).log is False

    def test_ticks(self) -> None:
        assert scales.ticks(scales.of_range(1e-4, 1.0, log=True)) == pytest.approx(
            [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
        )
        assert scales.ticks(scales.of_range(1, 3, log=False), whole=True) == [1, 2, 3]


class TestAxis:
    def test_numbers(self) -> None:
        found = axis.compute(RATE, tuning_of(many(5)))

        assert found is not None
        assert found.places == tuple(trial.parameters["rate"] for trial in many(5))
        assert (found.scale.low, found.scale.high, found.scale.log) == (1e-4, 1.0, True)
        assert found.labels == ()

    def test_words_and_sorted_numbers(self) -> None:
        trials = [trial(0, 1.0), trial(1, 1.0)]
        trials[1].parameters.update(kind="c", size=64)

        kinds, sizes = axis.compute(KIND, tuning_of(trials)), axis.compute(SIZE, tuning_of(trials))

        assert kinds is not None
        assert sizes is not None
        assert (kinds.labels, kinds.places) == (("a", "b", "c"), (0.0, 2.0))
        assert (sizes.labels, sizes.places) == (("16", "32", "64"), (0.0, 2.0))

    def test_truth_and_one_are_two_values(self) -> None:
        parameter = Parameter(name="x", type="categorical", values=[True, False, 1, "1"])
        trials = [
            trial(number, 1.0, parameters={"x": value})
            for number, value in enumerate((True, 1, "1"))
        ]

        found = axis.compute(parameter, tuning_of(trials, space=[parameter]))

        assert found is not None
        assert found.places == (0.0, 2.0, 3.0)

    def test_values_of_an_earlier_tuning(self) -> None:
        trials = [
            trial(0, 1.0, parameters={"rate": 5.0, "kind": "z"}),
            trial(1, 2.0, parameters={"rate": "fast"}),
        ]

        rates, kinds = axis.compute(RATE, tuning_of(trials)), axis.compute(KIND, tuning_of(trials))

        assert rates is not None
        assert kinds is not None
        assert rates.scale.high == 5.0
        assert math.isnan(rates.places[1])
        assert kinds.labels[-1] == "z"
        assert math.isnan(kinds.places[1])
        assert axis.compute(LAYERS, tuning_of(trials)) is None
        assert drawn(trials) >= {"parallel-coordinates.png", "slices.png"}

    def test_many_words_are_not_all_written(self) -> None:
        parameter = Parameter(name="x", type="categorical", values=[f"v{n}" for n in range(100)])
        trials = [trial(n, float(n), parameters={"x": f"v{n}"}) for n in range(100)]

        found = axis.compute(parameter, tuning_of(trials, space=[parameter]))

        assert found is not None
        assert len(found.labels) <= 12
        assert found.places == tuple(map(float, range(100)))
        assert "slices.png" in drawn(trials, space=[parameter])

    def test_points_on_a_word_are_strewn_and_stay_there(self) -> None:
        found = axis.compute(KIND, tuning_of(many(50)))

        assert found is not None
        assert found.strewn() == found.strewn()
        assert len(set(found.strewn())) == 50
        for place, strewn in zip(found.places, found.strewn(), strict=True):
            assert abs(place - strewn) < 0.5


class TestStyle:
    @pytest.mark.parametrize(
        ("text", "drawn"),
        [
            ("loss", "loss"),
            ("a\n b\t", "a b"),
            ("$x$", r"\$x\$"),
            ("abcdefghijklmno", "abcdef…mno"),
            ("\N{MUSICAL SYMBOL G CLEF}\0", "□□"),
            (True, "True"),
        ],
    )
    def test_texts(self, text: object, drawn: str) -> None:
        assert style.shown(text, 10) == drawn
