"""Axis of a parameter: the coordinates and the tick labels of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuning.plots import scales
from tuning.plots.scales import Scale, drawable
from tuning.plots.tuning_data import TuningData
from tuning.space import Parameter, Value

_MOST_LABELS = 12
_SPREAD = 0.34  # of the distance of two values, so far points of one value are strewn


@dataclass(frozen=True)
class ParameterAxis:
    """One parameter's values.

    Attributes:
        name: Its name.
        scale: The scale that they lie on; the places of the labels, for a categorical one.
        places: Each trial's value, or the place of its label; NaN where it has none.
        ticks: Where labels stand.
        labels: What they say; nothing for numbers, which speak for themselves.
        whole: Whether it has whole numbers only.
    """

    name: str
    scale: Scale
    places: tuple[float, ...]
    ticks: tuple[float, ...]
    labels: tuple[str, ...] = ()
    whole: bool = False

    def strewn(self, width: float = _SPREAD) -> list[float]:
        """The places, with those on one label set a little apart; always in the same way."""
        if not self.labels:
            return list(self.places)
        # Multiples of the golden ratio never bunch.
        return [
            place + width * (2 * ((number * 0.6180339887) % 1) - 1)
            for number, place in enumerate(self.places)
        ]


def compute(parameter: Parameter, tuning: TuningData) -> ParameterAxis | None:
    """The axis of a parameter with the observed trials' values; None if none has one."""
    taken = [trial.parameters.get(parameter.name) for trial in tuning.observed]
    numbers = [_number(one) for one in taken]
    if parameter.type in {"categorical", "discrete"} or all(map(math.isnan, numbers)):
        return _categorical(parameter, taken)
    return _numeric(parameter, numbers)


def _number(given: Value | None) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        return math.nan
    try:
        return float(given) if drawable(float(given)) else math.nan
    except OverflowError:
        return math.nan


def _numeric(parameter: Parameter, numbers: Sequence[float]) -> ParameterAxis:
    bounds = [_number(one) for one in (parameter.min, parameter.max) if one is not None]
    known = [one for one in (*numbers, *bounds) if not math.isnan(one)]
    scale = scales.of_range(min(known), max(known), log=parameter.log)
    whole = parameter.type == "int"
    ticks = tuple(scales.ticks(scale, whole=whole))
    return ParameterAxis(parameter.name, scale, tuple(numbers), ticks, whole=whole)


def _categorical(parameter: Parameter, taken: Sequence[Value | None]) -> ParameterAxis | None:
    # 1 and True are one key, and two values.
    known = {repr(one): one for one in (*parameter.values, *taken) if one is not None}
    if not known:
        return None
    if parameter.type == "discrete":
        known = dict(sorted(known.items(), key=lambda pair: (_number(pair[1]), pair[0])))
    order = {key: number for number, key in enumerate(known)}
    places = (math.nan if one is None else float(order[repr(one)]) for one in taken)
    stride = math.ceil(len(known) / _MOST_LABELS)
    shown = [(float(order[key]), str(one)) for key, one in known.items()][::stride]
    return ParameterAxis(
        parameter.name,
        Scale(-0.5, len(known) - 0.5),
        tuple(places),
        tuple(place for place, _ in shown),
        tuple(label for _, label in shown),
    )
