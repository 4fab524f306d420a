"""A search space as a unit cube: every parameter is an axis from 0 to 1.

The values of an int and of a list share their axis evenly, each at the middle of its part; on a
logarithmic scale the parts become smaller with the values. A discrete parameter's values lie in
their order, a categorical one's as they were given.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence

from tuning import space
from tuning.space import Parameter, Point, Value

Key = tuple[Hashable, ...]


class Axis(ABC):
    """One parameter.

    Attributes:
        size: How many values it has; None if they are not countable.
        ordered: Whether near values are alike.
    """

    size: int | None
    ordered = True

    @abstractmethod
    def value(self, place: float) -> Value:
        """The value at ``place``, which is between 0 and 1."""

    @abstractmethod
    def place(self, value: Value) -> float:
        """Where ``value`` lies, between 0 and 1."""

    def levels(self, most: int) -> list[float] | None:
        """Where its values lie; None if that is more than ``most``, and they have an order."""
        return None

    @abstractmethod
    def find(self, value: object) -> Value | None:
        """What of its values equals ``value``; None if none does."""


class _Range(Axis):
    """Of numbers, from ``low`` to ``high``; ``_low`` and ``_high`` on the scale that is used."""

    def __init__(self, low: float, high: float, *, log: bool) -> None:
        # Logarithms of neighbours can be the same number: then the scale is left as it is.
        self._log = log and math.log(low) < math.log(high)
        self._low, self._high = (math.log(low), math.log(high)) if self._log else (low, high)

    def _number(self, place: float) -> float:
        found = self._low * (1 - place) + self._high * place
        return math.exp(found) if self._log else found

    def _place(self, number: float) -> float:
        if self._high == self._low:
            return 0.5
        scaled = math.log(number) if self._log else number
        return min(1.0, max(0.0, (scaled - self._low) / (self._high - self._low)))


class Doubles(_Range):
    """Real numbers."""

    def __init__(self, parameter: Parameter) -> None:
        """The axis of a double."""
        assert parameter.min is not None
        assert parameter.max is not None
        self._min, self._max = float(parameter.min), float(parameter.max)
        self.size = parameter.size()
        super().__init__(self._min, self._max, log=parameter.log)

    def value(self, place: float) -> Value:
        """The value at ``place``."""
        return min(self._max, max(self._min, self._number(place)))

    def place(self, value: Value) -> float:
        """Where ``value`` lies."""
        return self._place(float(value))

    def find(self, value: object) -> Value | None:
        """The same number, if it lies between the bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if self._min <= value <= self._max else None


class Integers(_Range):
    """Whole numbers; each has the part of the axis from a half below it to a half above."""

    def __init__(self, parameter: Parameter) -> None:
        """The axis of an int."""
        assert parameter.min is not None
        assert parameter.max is not None
        self._min, self._max = int(parameter.min), int(parameter.max)
        self.size = parameter.size()
        super().__init__(self._min - 0.5, self._max + 0.5, log=parameter.log)

    def value(self, place: float) -> Value:
        """The value at ``place``."""
        return min(self._max, max(self._min, math.floor(self._number(place) + 0.5)))

    def place(self, value: Value) -> float:
        """Where ``value`` lies."""
        return self._place(int(value))

    def find(self, value: object) -> Value | None:
        """The same number, if it is whole and lies between the bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return int(value) if self._min <= value <= self._max and value == int(value) else None

    def levels(self, most: int) -> list[float] | None:
        """Where its values lie."""
        if self._max - self._min >= most:
            return None
        return [self.place(value) for value in range(self._min, self._max + 1)]


class Listed(Axis):
    """Given values."""

    def __init__(self, parameter: Parameter) -> None:
        """The axis of a categorical or a discrete parameter."""
        self.ordered = parameter.type == "discrete"
        self._values = sorted(parameter.values) if self.ordered else parameter.values
        self._indices = {_distinct(value): index for index, value in enumerate(self._values)}
        self.size: int = len(self._values)

    def value(self, place: float) -> Value:
        """The value at ``place``."""
        return self._values[min(self.size - 1, int(place * self.size))]

    def place(self, value: Value) -> float:
        """Where ``value`` lies."""
        return (self._indices[_distinct(value)] + 0.5) / self.size

    def find(self, value: object) -> Value | None:
        """The same value, if it is listed."""
        if not isinstance(value, bool | int | float | str):
            return None
        index = self._indices.get(_distinct(value))
        return None if index is None else self._values[index]

    def levels(self, most: int) -> list[float] | None:
        """Where its values lie."""
        if self.ordered and self.size > most:
            return None
        return [(index + 0.5) / self.size for index in range(self.size)]


def _distinct(value: Value) -> tuple[bool, Value]:
    """What tells true from 1."""
    return isinstance(value, bool), value


_AXES: dict[str, type[Doubles] | type[Integers] | type[Listed]] = {
    "double": Doubles,
    "int": Integers,
    "categorical": Listed,
    "discrete": Listed,
}


class Cube:
    """The space as a whole.

    Attributes:
        axes: By parameter, in the order of the space.
        size: How many points there are; None if they are not countable.
    """

    def __init__(self, parameters: Sequence[Parameter], *, grid: bool) -> None:
        """The cube of ``parameters``, which are checked; of their grid alone if ``grid``."""
        self.axes: dict[str, Axis] = {each.name: _AXES[each.type](each) for each in parameters}
        self.size = space.size(parameters)
        self._grids = {each.name: each.grid() for each in parameters if grid and not each.values}

    def point(self, places: Sequence[float]) -> Point:
        """The point that has ``places`` on the axes, in their order."""
        return {
            name: axis.value(place)
            for (name, axis), place in zip(self.axes.items(), places, strict=True)
        }

    def places(self, point: Mapping[str, Value]) -> list[float]:
        """Where ``point`` lies on the axes."""
        return [axis.place(point[name]) for name, axis in self.axes.items()]

    def find(self, point: Mapping[str, object]) -> Point | None:
        """What of its points equals ``point``, with values of its own types; None if none does."""
        if point.keys() != self.axes.keys():
            return None
        found: Point = {}
        for name, axis in self.axes.items():
            value = axis.find(point[name])
            if value is None or not self._on_grid(name, value):
                return None
            found[name] = value
        return found

    def _on_grid(self, name: str, value: Value) -> bool:
        steps = self._grids.get(name)
        if steps is None:
            return True
        index = bisect.bisect_left(steps, value)
        return index < len(steps) and steps[index] == value


def key(point: Mapping[str, Value]) -> Key:
    """What two points share that are the same; both are of one space, and in its order."""
    return tuple(point.values())
