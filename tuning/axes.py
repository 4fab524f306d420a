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
    """Axis of one parameter.

    Attributes:
        size: The number of its values; None if they are not countable.
        ordered: Whether its values have an order.
    """

    size: int | None
    ordered = True

    @abstractmethod
    def value(self, place: float) -> Value:
        """Return the value at ``place``, which is between 0 and 1."""

    @abstractmethod
    def place(self, value: Value) -> float:
        """Return the coordinate of ``value``, between 0 and 1."""

    def levels(self, most: int) -> list[float] | None:
        """Return its values' coordinates; None if ordered and more than ``most``."""
        return None

    @abstractmethod
    def find(self, value: object) -> Value | None:
        """Find the value of its own that equals ``value``; None if none does."""


class _RangeAxis(Axis):
    """Axis of numbers from ``low`` to ``high``; ``_low`` and ``_high`` are on its scale."""

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


class DoubleAxis(_RangeAxis):
    """Axis of real numbers."""

    def __init__(self, parameter: Parameter) -> None:
        """The axis of a double."""
        assert parameter.min is not None
        assert parameter.max is not None
        self._min, self._max = float(parameter.min), float(parameter.max)
        self.size = parameter.size()
        super().__init__(self._min, self._max, log=parameter.log)

    def value(self, place: float) -> Value:
        """Return the value at ``place``."""
        return min(self._max, max(self._min, self._number(place)))

    def place(self, value: Value) -> float:
        """Return the coordinate of ``value``."""
        return self._place(float(value))

    def find(self, value: object) -> Value | None:
        """Return the same number if it is within the bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if self._min <= value <= self._max else None


class IntegerAxis(_RangeAxis):
    """Axis of integers; each has the part from a half below it to a half above."""

    def __init__(self, parameter: Parameter) -> None:
        """The axis of an int."""
        assert parameter.min is not None
        assert parameter.max is not None
        self._min, self._max = int(parameter.min), int(parameter.max)
        self.size = parameter.size()
        super().__init__(self._min - 0.5, self._max + 0.5, log=parameter.log)

    def value(self, place: float) -> Value:
        """Return the value at ``place``."""
        return min(self._max, max(self._min, math.floor(self._number(place) + 0.5)))

    def place(self, value: Value) -> float:
        """Return the coordinate of ``value``."""
        return self._place(int(value))

    def find(self, value: object) -> Value | None:
        """Return the same number if it is an integer within the bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return int(value) if self._min <= value <= self._max and value == int(value) else None

    def levels(self, most: int) -> list[float] | None:
        """Return its values' coordinates."""
        if self._max - self._min >= most:
            return None
        return [self.place(value) for value in range(self._min, self._max + 1)]


class ListedAxis(Axis):
    """Axis of a categorical or discrete parameter's values."""

    def __init__(self, parameter: Parameter) -> None:
        """The axis of a categorical or a discrete parameter."""
        self.ordered = parameter.type == "discrete"
        self._values = sorted(parameter.values) if self.ordered else parameter.values
        self._indices = {_distinct(value): index for index, value in enumerate(self._values)}
        self.size: int = len(self._values)

    def value(self, place: float) -> Value:
        """Return the value at ``place``."""
        return self._values[min(self.size - 1, int(place * self.size))]

    def place(self, value: Value) -> float:
        """Return the coordinate of ``value``."""
        return (self._indices[_distinct(value)] + 0.5) / self.size

    def find(self, value: object) -> Value | None:
        """Return the same value if it is listed."""
        if not isinstance(value, bool | int | float | str):
            return None
        index = self._indices.get(_distinct(value))
        return None if index is None else self._values[index]

    def levels(self, most: int) -> list[float] | None:
        """Return its values' coordinates."""
        if self.ordered and self.size > most:
            return None
        return [(index + 0.5) / self.size for index in range(self.size)]


def _distinct(value: Value) -> tuple[bool, Value]:
    """Make a key that distinguishes true from 1."""
    return isinstance(value, bool), value


_AXES: dict[str, type[DoubleAxis] | type[IntegerAxis] | type[ListedAxis]] = {
    "double": DoubleAxis,
    "int": IntegerAxis,
    "categorical": ListedAxis,
    "discrete": ListedAxis,
}


class UnitCube:
    """Search space as a unit cube.

    Attributes:
        axes: The axes by parameter, in the order of the space.
        size: The number of points; None if they are not countable.
    """

    def __init__(self, parameters: Sequence[Parameter], *, grid: bool) -> None:
        """Map ``parameters``, which are valid, to a cube; only their grid if ``grid``."""
        self.axes: dict[str, Axis] = {each.name: _AXES[each.type](each) for each in parameters}
        self.size = space.size(parameters)
        self._grids = {each.name: each.grid() for each in parameters if grid and not each.values}

    def point(self, places: Sequence[float]) -> Point:
        """Return the point with these coordinates, in the axes' order."""
        return {
            name: axis.value(place)
            for (name, axis), place in zip(self.axes.items(), places, strict=True)
        }

    def places(self, point: Mapping[str, Value]) -> list[float]:
        """Return the coordinates of ``point``."""
        return [axis.place(point[name]) for name, axis in self.axes.items()]

    def find(self, point: Mapping[str, object]) -> Point | None:
        """Find the point of its own that equals ``point``; None if none does."""
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
    """Make a key that equal points of a space share."""
    return tuple(point.values())
