"""Charts as data: what is drawn where."""

from __future__ import annotations

from modelyard.pages import charts
from tasks.evaluation.curve_lines import PlotLine


def points(x: list[float], y: list[float]) -> str:
    line = PlotLine("a", x, y, [])
    return charts.of_rates("t", "x", "y", [line]).lines[0].points


def test_shares_fill_the_area() -> None:
    found = charts.of_rates("t", "x", "y", [])

    assert points([0, 1], [0, 1]) == "44,276 352,8"
    assert [(tick.at, tick.text) for tick in found.x_ticks][::5] == [(44, "0"), (352, "1")]
    assert [(tick.at, tick.text) for tick in found.y_ticks][::5] == [(276, "0"), (8, "1")]


def test_nothing_is_drawn_beside_it() -> None:
    assert points([-5, 7], [3, -3]) == "44,8 352,276"


def test_points_that_cannot_be_told_apart_are_one_but_the_last_is_there() -> None:
    many = [at / 10_000 for at in range(10_001)]
    found = points(many, [0] * 10_001).split()

    assert 200 < len(found) < 320
    assert found[-1] == "352,276"


def test_a_line_without_points_is_none() -> None:
    assert points([], []) == ""
