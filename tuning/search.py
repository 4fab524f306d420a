"""Search strategies: which point of a space to try next.

The point of a trial is a pure function of the seed, the trial's number, and the trials reported
before: every draw has a seed of its own. So a new search that receives the same trials in the
order of their numbers continues as the old one would have. No point is tried twice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from infra.errors import BadInputError
from tuning import axes
from tuning.axes import Key, UnitCube
from tuning.bayesian import LARGEST_MODEL, AutoSampler, GaussianProcessSampler, TpeSampler
from tuning.objectives import Direction
from tuning.samplers import (
    GridSampler,
    RandomSampler,
    Sampler,
    SamplerContext,
    SobolSampler,
    is_observed,
    seeded_random,
)
from tuning.space import Grid, Parameter, Point, point_at
from tuning.trials import Trial

Strategy = Literal["grid", "random", "bayesian", "gp", "tpe", "sobol"]

_MOST_DRAWS = 1000

# Strategy: what chooses, and its name and reason; for one objective, and for several.
_Choice = tuple[
    type[RandomSampler]
    | type[SobolSampler]
    | type[TpeSampler]
    | type[GaussianProcessSampler]
    | type[AutoSampler],
    str,
]
_ONE: dict[str, _Choice] = {
    "random": (RandomSampler, "random points: as asked for"),
    "sobol": (SobolSampler, "Sobol's sequence: as asked for"),
    "tpe": (TpeSampler, "Parzen estimators (TPE): as asked for"),
    "gp": (GaussianProcessSampler, "Gaussian process: as asked for"),
    "bayesian": (
        AutoSampler,
        f"Gaussian process: one objective; Parzen estimators (TPE) from {LARGEST_MODEL} observed "
        "trials on",
    ),
}
_SEVERAL: dict[str, _Choice] = {
    **_ONE,
    "bayesian": (TpeSampler, "Parzen estimators (TPE): several objectives"),
}
del _SEVERAL["gp"]


class Search:
    """Search of a space by ask and tell.

    Attributes:
        sampler: What chooses the points, and why, in words.
        size: How many points there are to try; None if they are not countable.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        directions: Sequence[Direction],
        *,
        strategy: Strategy,
        seed: int,
        constraints: int = 0,
    ) -> None:
        """Search a space.

        Args:
            parameters: The space, which is checked.
            directions: Of each objective.
            strategy: How; ``gp``, ``tpe`` and ``sobol`` are ways of ``bayesian`` to force.
            seed: What all chance derives from.
            constraints: How many constraints there are.

        Raises:
            BadInputError: If the strategy cannot seek so many objectives.
        """
        self._parameters = parameters
        self._seed = seed
        self._constraints = constraints
        self._cube = UnitCube(parameters, grid=strategy == "grid")
        self._taken: set[Key] = set()
        self._asked: dict[int, Point] = {}
        self._chooser: Sampler
        if strategy == "grid":
            grid = Grid(parameters)
            self._chooser, self.sampler = GridSampler(grid), "grid: every point, in its order"
            self._points: int | None = len(grid)
        else:
            kind, self.sampler = _choice(strategy, len(directions))
            self._chooser = kind(SamplerContext(self._cube, parameters, directions, seed))
            self._points = self._cube.size
        self.size = self._points

    def ask(self, number: int) -> Point | None:
        """Return the point of the trial ``number``; None if every point was tried.

        A repeated call for the same trial returns the same point.
        """
        if number not in self._asked:
            point = self._new(number)
            if point is None:
                return None
            self._begin(number, point)
        return dict(self._asked[number])

    def pending(self, trial: Trial) -> None:
        """Report a running trial of an earlier attempt."""
        point = self._cube.find(trial.parameters)
        if point is not None:
            self._begin(trial.number, point)

    def tell(self, trial: Trial) -> None:
        """Learn from an ended trial, in any state."""
        point = self._cube.find(trial.parameters)
        if point is not None:
            self._asked.setdefault(trial.number, point)
            self._taken.add(axes.key(point))
            self._chooser.end(self._known(trial, point))

    def learn(self, trials: Iterable[Trial]) -> int:
        """Learn from the observed trials of another tuning; how many of them lie in this space.

        Their points are not tried again. This comes before everything else.
        """
        learned = 0
        for trial in trials:
            point = self._cube.find(trial.parameters)
            if point is None or not is_observed(trial):
                continue
            learned += 1
            self._chooser.learn(self._known(trial, point))
            key = axes.key(point)
            if key not in self._taken and self.size is not None:
                self.size -= 1
            self._taken.add(key)
        return learned

    def _known(self, trial: Trial, point: Point) -> Trial:
        """Convert ``trial`` for samplers: an unknown constraint counts as violated."""
        violations = (*trial.violations, *[math.nan] * self._constraints)[: self._constraints]
        return replace(
            trial,
            parameters=point,
            violations=tuple(math.inf if math.isnan(one) else one for one in violations),
        )

    def _begin(self, number: int, point: Point) -> None:
        self._asked[number] = point
        self._taken.add(axes.key(point))
        self._chooser.begin(number, point)

    def _new(self, number: int) -> Point | None:
        if self._points is not None and len(self._taken) >= self._points:
            return None
        for point in self._chooser.points(number):
            if axes.key(point) not in self._taken:
                return point
        return self._any(seeded_random(self._seed, number, "any"))

    def _any(self, drawn: random.Random) -> Point | None:
        """Return any point that was not tried."""
        for point in self._some(drawn):
            if axes.key(point) not in self._taken:
                return point
        return None

    def _some(self, drawn: random.Random) -> Iterator[Point]:
        """Generate random points; every point where many were tried."""
        if self._points is None:  # not countable; still, doubles can have a few values only
            for _ in range(_MOST_DRAWS):
                yield self._cube.point([drawn.random() for _ in self._cube.axes])
        elif self._points > 2 * len(self._taken):
            while True:
                yield point_at(self._parameters, drawn.randrange(self._points))
        else:
            for index in drawn.sample(range(self._points), self._points):
                yield point_at(self._parameters, index)


def check(strategy: Strategy, objectives: int) -> None:
    """Refuse a strategy that does not support so many objectives.

    Raises:
        BadInputError: With the code ``StrategyUnsuited``.
    """
    if strategy != "grid":
        _choice(strategy, objectives)


def _choice(strategy: Strategy, objectives: int) -> _Choice:
    found = (_SEVERAL if objectives > 1 else _ONE).get(strategy)
    if found is None:
        raise BadInputError(
            f"The strategy {strategy!r} seeks one objective, and there are {objectives}.",
            "Use bayesian, tpe, sobol, random or grid, or seek one objective.",
            code="StrategyUnsuited",
        )
    return found
