"""Bayesian samplers: a Gaussian process, TPE, and the choice between them."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterator

import numpy as np
from threadpoolctl import ThreadpoolController

from tuning.acquisition import Dimension, Observations, propose
from tuning.gaussian_process import Array, IndistinguishableError
from tuning.parzen import ParzenEstimators
from tuning.samplers import SamplerContext, SobolSampler, is_observed, seeded_random
from tuning.space import Point, point_at
from tuning.trials import Trial

LARGEST_MODEL = 200  # observed trials; from there on a Gaussian process is slow

_STARTUP = 10  # trials, ended or not, before a model is asked,
_LEAST_OBSERVED = 4  # and so many of them observed
_DRAWS = 5
_MOST_LEVELS = 64
_MOST_RANKED = 2048

_logger = logging.getLogger(__name__)


class GaussianProcessSampler:
    """Gaussian process of one objective, after some points of Sobol's sequence."""

    def __init__(self, setting: SamplerContext) -> None:
        self._setting = setting
        self._startup = SobolSampler(setting)
        self._sign = 1.0 if setting.directions[0] == "minimize" else -1.0
        self._learned: list[Trial] = []
        self._ended: dict[int, Trial] = {}
        self._running: dict[int, Point] = {}
        sizes = [axis.size for axis in setting.cube.axes.values()]
        self._varied = [place for place, size in enumerate(sizes) if size != 1]
        self._dimensions = [
            Dimension(None if levels is None else np.array(levels), not axis.ordered)
            for axis in setting.cube.axes.values()
            if axis.size != 1
            for levels in [axis.levels(_MOST_LEVELS)]
        ]

    def points(self, number: int) -> Iterator[Point]:
        """Propose the points that the model ranks first; without a model, points of the space."""
        known = len(self._learned) + len(self._ended)
        if known >= _LEAST_OBSERVED and known + len(self._running) >= _STARTUP:
            for places in self._ranked(number):
                found = np.full(len(self._setting.cube.axes), 0.5)
                found[self._varied] = places
                yield self._setting.cube.point(found.tolist())
        yield from self._startup.points(number)

    def begin(self, number: int, point: Point) -> None:
        """Report a started trial."""
        self._running[number] = point

    def end(self, trial: Trial) -> None:
        """Report an ended trial."""
        self._running.pop(trial.number, None)
        if is_observed(trial):
            self._ended[trial.number] = trial

    def learn(self, trial: Trial) -> None:
        """Report a trial of another tuning."""
        self._learned.append(trial)

    def _ranked(self, number: int) -> Array:
        if not self._dimensions:
            return np.empty((0, 0))
        rng = np.random.default_rng(
            seeded_random(self._setting.seed, number, "model").getrandbits(64)
        )
        try:
            # One thread, so that the sums are the same on every machine; more would not help.
            with _threads().limit(limits=1), np.errstate(all="ignore"):
                return propose(self._dimensions, self._seen(), rng, self._every_point)
        except IndistinguishableError:
            _logger.warning("Trial %d gets a point by chance: no model fits the others.", number)
            return np.empty((0, len(self._dimensions)))

    def _seen(self) -> Observations:
        trials = [*self._learned, *(self._ended[number] for number in sorted(self._ended))]
        return Observations(
            points=self._places([trial.parameters for trial in trials]),
            values=self._sign * np.array([(trial.values or (0.0,))[0] for trial in trials]),
            violations=np.array([trial.violations for trial in trials], dtype=np.float64),
            pending=self._places([self._running[number] for number in sorted(self._running)]),
        )

    def _places(self, points: list[Point]) -> Array:
        places = [self._setting.cube.places(point) for point in points]
        return np.array(places).reshape(len(points), len(self._setting.cube.axes))[:, self._varied]

    @functools.cached_property
    def _every_point(self) -> Array | None:
        """List every point of a small space."""
        size = self._setting.cube.size
        if size is None or size > _MOST_RANKED:
            return None
        return self._places([point_at(self._setting.parameters, index) for index in range(size)])


class TpeSampler:
    """Optuna's tree-structured Parzen estimator (TPE)."""

    def __init__(self, setting: SamplerContext) -> None:
        self._seed = setting.seed
        self._estimators = ParzenEstimators(setting.parameters, setting.directions)

    def points(self, number: int) -> Iterator[Point]:
        """Propose a few draws."""
        seed = seeded_random(self._seed, number, "parzen").getrandbits(32)
        return itertools.islice(self._estimators.points(seed), _DRAWS)

    def begin(self, number: int, point: Point) -> None:
        """Report a started trial."""
        self._estimators.begin(number, point)

    def end(self, trial: Trial) -> None:
        """Report an ended trial."""
        self._estimators.end(trial)

    def learn(self, trial: Trial) -> None:
        """Report a trial of another tuning."""
        self._estimators.learn(trial)


class AutoSampler:
    """Gaussian process while few trials are known, TPE from then on."""

    def __init__(self, setting: SamplerContext) -> None:
        self._setting = setting
        self._gaussian = GaussianProcessSampler(setting)
        self._parzen: TpeSampler | None = None
        self._learned: list[Trial] = []
        self._trials: dict[int, Trial | Point] = {}  # those that run have a point only
        self._observed = 0

    def points(self, number: int) -> Iterator[Point]:
        """Propose the points of the current sampler."""
        if self._observed < LARGEST_MODEL:
            return self._gaussian.points(number)
        if self._parzen is None:
            self._parzen = self._create_tpe()
        return self._parzen.points(number)

    def _create_tpe(self) -> TpeSampler:
        """Create a TPE sampler that knows all trials so far."""
        parzen = TpeSampler(self._setting)
        for trial in self._learned:
            parzen.learn(trial)
        for number, known in sorted(self._trials.items(), key=lambda item: item[0]):
            if isinstance(known, Trial):
                parzen.end(known)
            else:
                parzen.begin(number, known)
        return parzen

    def begin(self, number: int, point: Point) -> None:
        """Report a started trial."""
        self._trials[number] = point
        for each in self._both():
            each.begin(number, point)

    def end(self, trial: Trial) -> None:
        """Report an ended trial."""
        self._trials[trial.number] = trial
        self._observed += is_observed(trial)
        for each in self._both():
            each.end(trial)

    def learn(self, trial: Trial) -> None:
        """Report a trial of another tuning."""
        self._learned.append(trial)
        self._observed += 1
        for each in self._both():
            each.learn(trial)

    def _both(self) -> list[GaussianProcessSampler | TpeSampler]:
        return [self._gaussian, *([self._parzen] if self._parzen else [])]


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
