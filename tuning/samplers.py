"""Samplers of points of a search space: the interface, and those that do not learn."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tuning.axes import UnitCube
from tuning.objectives import Direction
from tuning.space import Grid, Parameter, Point
from tuning.trials import OBSERVED, Trial

_DRAWS = 20
_BLOCK = 256


@dataclass(frozen=True)
class SamplerContext:
    """Search space and seed of a sampler.

    Attributes:
        cube: The space as a unit cube.
        parameters: The space's parameters.
        directions: The direction of each objective.
        seed: The seed of all random draws.
    """

    cube: UnitCube
    parameters: Sequence[Parameter]
    directions: Sequence[Direction]
    seed: int


class Sampler(Protocol):
    """Proposer of points, of which the search takes the first that was not tried.

    Every reported trial has a point of the space, in the space's own values, and a violation for
    each constraint, infinite where it is unknown. The proposals depend on the reported trials
    alone, and not on the order in which these ended.
    """

    def points(self, number: int) -> Iterator[Point]:
        """Propose a few points for the trial ``number``, the best first."""

    def begin(self, number: int, point: Point) -> None:
        """Report that the trial ``number`` has started with ``point``."""

    def end(self, trial: Trial) -> None:
        """Report an ended trial."""

    def learn(self, trial: Trial) -> None:
        """Report an observed trial of another tuning; before all others."""


def seeded_random(seed: int, number: int, purpose: str) -> random.Random:
    """Create the random generator of the trial ``number`` for one purpose."""
    return random.Random(f"{seed}/{number}/{purpose}")


def is_observed(trial: Trial) -> bool:
    """Whether ``trial`` has finite values to learn from."""
    return (
        trial.state in OBSERVED
        and trial.values is not None
        and all(math.isfinite(value) for value in trial.values)
    )


class _StaticSampler:
    def begin(self, number: int, point: Point) -> None:
        """Ignore it."""

    def end(self, trial: Trial) -> None:
        """Ignore it."""

    def learn(self, trial: Trial) -> None:
        """Ignore it."""


class GridSampler(_StaticSampler):
    """Grid search, from the first point to the last."""

    def __init__(self, grid: Grid) -> None:
        self._rest = iter(grid)

    def points(self, number: int) -> Iterator[Point]:
        """Propose the remaining points."""
        return self._rest


class RandomSampler(_StaticSampler):
    """Random search: independent points, uniform along every axis."""

    def __init__(self, setting: SamplerContext) -> None:
        self._cube, self._seed = setting.cube, setting.seed

    def points(self, number: int) -> Iterator[Point]:
        """Propose a few draws."""
        drawn = seeded_random(self._seed, number, "random")
        for _ in range(_DRAWS):
            yield self._cube.point([drawn.random() for _ in self._cube.axes])


class SobolSampler(_StaticSampler):
    """Sobol's sequence, scrambled by the seed; it covers a space evenly."""

    def __init__(self, setting: SamplerContext) -> None:
        self._cube = setting.cube
        self._scramble = seeded_random(setting.seed, 0, "sobol").getrandbits(64)
        self._random = RandomSampler(setting)
        self._blocks: dict[int, list[list[float]]] = {}

    def points(self, number: int) -> Iterator[Point]:
        """Propose the sequence's point with that number, then random ones."""
        block, place = divmod(number, _BLOCK)
        if block not in self._blocks:
            from scipy.stats import qmc  # noqa: PLC0415 (most of scipy)

            sequence = qmc.Sobol(len(self._cube.axes), rng=np.random.default_rng(self._scramble))
            if block:
                sequence.fast_forward(block * _BLOCK)
            self._blocks[block] = sequence.random(_BLOCK).tolist()
        yield self._cube.point(self._blocks[block][place])
        yield from self._random.points(number)
