"""What proposes points, and the strategies among them that learn nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from tuning.axes import Cube
from tuning.space import Grid, Parameter, Point
from tuning.trials import OBSERVED, Trial

Direction = Literal["minimize", "maximize"]

_DRAWS = 20
_BLOCK = 256


@dataclass(frozen=True)
class Setting:
    """What a chooser may need to know.

    Attributes:
        cube: The space.
        parameters: The same, as it was given.
        directions: Of each objective.
        seed: What all chance derives from.
    """

    cube: Cube
    parameters: Sequence[Parameter]
    directions: Sequence[Direction]
    seed: int


class Chooser(Protocol):
    """Proposes points, of which the first that was not tried is taken.

    Every trial that it is told of has a point of the space, as the space's own values, and a
    violation for each constraint, infinite where it is not known. What it proposes depends on
    what it was told and on nothing else, also not on the order of the ends.
    """

    def points(self, number: int) -> Iterator[Point]:
        """A few points for the trial ``number``, the better ones first."""

    def begin(self, number: int, point: Point) -> None:
        """Know that the trial ``number`` tries ``point`` now."""

    def end(self, trial: Trial) -> None:
        """Know how a trial has ended."""

    def learn(self, trial: Trial) -> None:
        """Know of an observed trial of another tuning; before everything else."""


def chance(seed: int, number: int, purpose: str) -> random.Random:
    """What the trial ``number`` draws from, for one purpose."""
    return random.Random(f"{seed}/{number}/{purpose}")


def observed(trial: Trial) -> bool:
    """Whether there is something to learn from ``trial``."""
    return (
        trial.state in OBSERVED
        and trial.values is not None
        and all(math.isfinite(value) for value in trial.values)
    )


class _Deaf:
    def begin(self, number: int, point: Point) -> None:
        """Nothing to know."""

    def end(self, trial: Trial) -> None:
        """Nothing to know."""

    def learn(self, trial: Trial) -> None:
        """Nothing to know."""


class InOrder(_Deaf):
    """A grid, from its first point to its last."""

    def __init__(self, grid: Grid) -> None:
        self._rest = iter(grid)

    def points(self, number: int) -> Iterator[Point]:
        """What was not proposed yet."""
        return self._rest


class Random(_Deaf):
    """Independent points, spread evenly along every axis."""

    def __init__(self, setting: Setting) -> None:
        self._cube, self._seed = setting.cube, setting.seed

    def points(self, number: int) -> Iterator[Point]:
        """A few draws."""
        drawn = chance(self._seed, number, "random")
        for _ in range(_DRAWS):
            yield self._cube.point([drawn.random() for _ in self._cube.axes])


class Sobol(_Deaf):
    """Sobol's sequence, scrambled by the seed: it fills the space more evenly than chance."""

    def __init__(self, setting: Setting) -> None:
        self._cube = setting.cube
        self._scramble = chance(setting.seed, 0, "sobol").getrandbits(64)
        self._random = Random(setting)
        self._blocks: dict[int, list[list[float]]] = {}

    def points(self, number: int) -> Iterator[Point]:
        """The sequence's point with that number, then random ones."""
        block, place = divmod(number, _BLOCK)
        if block not in self._blocks:
            from scipy.stats import qmc  # noqa: PLC0415 (most of scipy)

            sequence = qmc.Sobol(len(self._cube.axes), rng=np.random.default_rng(self._scramble))
            if block:
                sequence.fast_forward(block * _BLOCK)
            self._blocks[block] = sequence.random(_BLOCK).tolist()
        yield self._cube.point(self._blocks[block][place])
        yield from self._random.points(number)
