"""The plot of several runs' metrics."""

from __future__ import annotations

import io
import math
import re

import pytest
from matplotlib import image

from tuning.plots import metric_curves

CURVES = {
    "loss": [[(step, 1 / (step + 1)) for step in range(5000)], [(0, math.nan), (1, 0.5)]],
    "a $x_ metric": [[], [(0, 1.0)]],
}


@pytest.mark.parametrize("count", [0, 1, 2, 5, 40])
def test_it_is_a_self_contained_svg(count: int) -> None:
    curves = {f"metric {number}": CURVES["loss"] for number in range(count)}
    drawn = metric_curves.draw(["first", "second"], curves, "svg").decode()

    assert "</svg>" in drawn
    assert not re.search(r'(?:href|src)="(?!#)', drawn)


def test_it_is_a_png() -> None:
    drawn = metric_curves.draw([f"run {number}" for number in range(20)], CURVES, "png")
    pixels = image.imread(io.BytesIO(drawn))

    assert pixels.shape == (900, 1600, 4)
    assert len({tuple(pixel) for row in pixels[::9] for pixel in row[::9]}) > 10


def test_each_of_many_runs_looks_different() -> None:
    looks = {metric_curves._look(number) for number in range(20)}

    assert len(looks) == 20
