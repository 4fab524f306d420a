"""Charts as data: what is drawn where."""

from __future__ import annotations

import pytest

from modelyard.pages import charts
from tasks.evaluation.curve_lines import PlotLine


def points(x: list[float], y: list[float]) -> str:
    line = PlotLine("a", x, y, [])
    return charts.of_rates("t", "x", "y", [line]).lines[0].points


def test_shares_fill_the_area() -> None:
    found = charts.of_rates("t", "x", "y", [])

    assert points([0, 1], [0, 1]) == "44,276 344,8"
    assert [(tick.at, tick.text) for tick in found.x_ticks][::5] == [(44, "0"), (344, "1")]
    assert [(tick.at, tick.text) for tick in found.y_ticks][::5] == [(276, "0"), (8, "1")]


def test_nothing_is_drawn_beside_it() -> None:
    assert points([-5, 7], [3, -3]) == "44,8 344,276"


def test_points_that_cannot_be_told_apart_are_one_but_the_last_is_there() -> None:
    many = [at / 10_000 for at in range(10_001)]
    found = points(many, [0] * 10_001).split()

    assert 200 < len(found) < 310
    assert found[-1] == "344,276"


def test_a_line_without_points_is_none() -> None:
    assert points([], []) == ""


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 5], ["0", "1", "2", "3", "4", "5"]),
        ([-0.013, 0.021], ["-0.02", "-0.01", "0", "0.01", "0.02", "0.03"]),
        ([12_000, 118_000], ["0", "5e4", "1e5", "1.5e5"]),
        ([7, 7], ["6", "6.5", "7", "7.5", "8"]),
        ([0, 0], ["-1", "-0.5", "0", "0.5", "1"]),
        ([-1e308, 1e308], ["-1e300", "-5e299", "0", "5e299", "1e300"]),
        ([1e-320, 0], ["-1", "-0.5", "0", "0.5", "1"]),
        ([], ["-1", "-0.5", "0", "0.5", "1"]),
    ],
)
def test_an_axis_has_round_numbers_around_all_values(
    values: list[float], texts: list[str]
) -> None:
    found = charts.of_values("t", "x", "y", [("line-0", "a", [(one, 0) for one in values])])

    assert [tick.text for tick in found.x_ticks] == texts
    assert (found.x_ticks[0].at, found.x_ticks[-1].at) == (44, 344)


def test_dots_are_one_path() -> None:
    found = charts.of_values("t", "x", "y", [], [(0, 0), (1, 1)])

    assert found.dots == "M44,276h0M344,8h0"
