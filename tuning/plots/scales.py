"""Scales of axes: the range that matters, and whether it is logarithmic."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from tuning.objectives import Direction

LARGEST = 1e100  # beyond it an axis could not compute its own ticks
_SMALLEST = 1e-100
_DECADES = 2.0
_FENCE = 6.0  # so many times the distance of the quartiles lies what would hide all else
_FEWEST = 8
_MARGIN = 0.05


@dataclass(frozen=True)
class Scale:
    """The range of an axis.

    Attributes:
        low: Its smallest value.
        high: Its largest value.
        log: Whether it is logarithmic.
        beyond: How many values lie outside.
    """

    low: float
    high: float
    log: bool = False
    beyond: int = 0

    @property
    def decades(self) -> float:
        """Over how many powers of ten a logarithmic one goes."""
        return math.log10(self.high) - math.log10(self.low) if self.log else 0.0

    def place(self, value: float) -> float:
        """Where ``value`` lies, from 0 for the smallest to 1 for the largest; NaN stays NaN."""
        if math.isnan(value):
            return value
        low, high = _bent(self.low, self.log), _bent(self.high, self.log)
        bent = _bent(max(value, self.low), self.log)
        return min(1.0, (bent - low) / (high - low))

    def value(self, place: float) -> float:
        """What lies at ``place``."""
        low, high = _bent(self.low, self.log), _bent(self.high, self.log)
        bent = low + place * (high - low)
        return float(10**bent) if self.log else bent

    def within(self, value: float) -> float:
        """``value``, or the nearest that the scale has."""
        return min(max(value, self.low), self.high)


def padded(scale: Scale, share: float = _MARGIN) -> Scale:
    """The same with some room on both sides."""
    return Scale(scale.value(-share), scale.value(1 + share), scale.log, scale.beyond)


def drawable(value: float) -> bool:
    """Whether a value can be drawn: it is finite, and not astronomically large."""
    return math.isfinite(value) and abs(value) <= LARGEST


def of_values(values: Iterable[float], direction: Direction | None = None) -> Scale:
    """The scale for values, of which there is at least one that can be drawn.

    It is logarithmic where all are positive and lie more than two powers of ten apart. Values that
    are so much worse than the others that these would be one flat line lie beyond it.

    Args:
        values: The values; those that cannot be drawn do not count.
        direction: Which of them are the better ones, which always lie within; None if all shall.
    """
    kept = sorted(value for value in values if drawable(value))
    log = kept[0] >= _SMALLEST and math.log10(kept[-1] / kept[0]) > _DECADES
    bent = [_bent(value, log) for value in kept]
    low, high = bent[0], bent[-1]
    if direction is not None and len(bent) >= _FEWEST:
        first, _, third = statistics.quantiles(bent, n=4)
        reach = _FENCE * (third - first)
        if reach > 0 and direction == "minimize":
            high = max(value for value in bent if value <= third + reach)
        elif reach > 0:
            low = min(value for value in bent if value >= first - reach)
    beyond = sum(not low <= value <= high for value in bent)
    margin = _MARGIN * (high - low) or (0.1 if log else abs(high) * 0.1) or 1.0
    return Scale(_straight(low - margin, log), _straight(high + margin, log), log, beyond)


def of_range(low: float, high: float, *, log: bool) -> Scale:
    """The scale of a parameter's range."""
    log = log and low >= _SMALLEST
    if low < high and _bent(low, log) < _bent(high, log):
        return Scale(low, high, log)
    margin = abs(low) * 0.1 or 1.0
    return Scale(low - margin, high + margin)


def ticks(scale: Scale, most: int = 5, *, whole: bool = False) -> list[float]:
    """A few round values on a scale; whole numbers only, if so wanted."""
    if scale.log and scale.decades >= 1:
        first = math.ceil(math.log10(scale.low) - 1e-9)
        last = math.floor(math.log10(scale.high) + 1e-9)
        stride = max(1, math.ceil((last - first + 1) / most))
        return [10.0**power for power in range(first, last + 1, stride)]
    locator = MaxNLocator(nbins=most, integer=whole)
    found = [float(value) for value in locator.tick_values(scale.low, scale.high)]
    return [value for value in found if scale.low <= value <= scale.high]


def _bent(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _straight(value: float, log: bool) -> float:
    return float(10**value) if log else value
