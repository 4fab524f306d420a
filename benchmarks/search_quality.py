"""How close a search comes to the best: ours, Optuna's default TPE, chance, and hyperopt's TPE.

Three functions whose least value is known: Branin's (two doubles), Hartmann's (six doubles) and
Func2C of Ru et al., "Bayesian Optimisation over Multiple Continuous and Categorical Inputs"
(2020), with two categorical parameters beside two doubles. A search gets 60 trials, one after
another or four at once, as workers take them that need a random time for each. What counts is its
regret: how far its best value is above the least one. Hyperopt's TPE is what Katib calls ``tpe``.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import hyperopt
import numpy as np
import optuna

from benchmarks.machine import Calm
from benchmarks.results import Comparison
from tuning.search import Search
from tuning.space import Parameter
from tuning.trials import Trial, TrialState

REPETITIONS = 10
_TRIALS = 60
_PARALLEL = (1, 4)
_UNIT = "thousandths"

Point = Mapping[str, Any]


@dataclass(frozen=True)
class _Function:
    """What is minimised, and how small it becomes."""

    parameters: Sequence[Parameter]
    least: float
    value: Callable[[Point], float]


def _double(name: str, low: float, high: float) -> Parameter:
    return Parameter(name=name, type="double", min=low, max=high)


def _branin(point: Point) -> float:
    curve = point["y"] - 5.1 / (4 * math.pi**2) * point["x"] ** 2 + 5 / math.pi * point["x"] - 6
    return float(curve**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(point["x"]) + 10)


_HEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_STEEPNESS = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8],
     [17, 8, 0.05, 10, 0.1, 14]]
)  # fmt: skip
_CENTRES = 1e-4 * np.array(
    [[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
     [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]]
)  # fmt: skip


def _hartmann(point: Point) -> float:
    away = _STEEPNESS * (np.array(list(point.values())) - _CENTRES) ** 2
    return -float(_HEIGHTS @ np.exp(-away.sum(axis=1)))


def _rosenbrock(x: float, y: float) -> float:
    return (100 * (y - x * x) ** 2 + (x - 1) ** 2) / 300


def _camel(x: float, y: float) -> float:
    return ((4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2) / 10


def _beale(x: float, y: float) -> float:
    parts = (constant - x + x * y**power for power, constant in ((1, 1.5), (2, 2.25), (3, 2.625)))
    return sum(part**2 for part in parts) / 50


_SURFACES = {"a": _rosenbrock, "b": _camel, "c": _beale, "d": _beale, "e": _beale}


def _func2c(point: Point) -> float:
    x, y = 2 * point["x"], 2 * point["y"]
    return _SURFACES[point["first"]](x, y) + _SURFACES[point["second"]](x, y)


_FUNCTIONS = {
    "Branin": _Function([_double("x", -5, 10), _double("y", 0, 15)], 0.397887, _branin),
    "Hartmann 6": _Function([_double(f"x{k}", 0, 1) for k in range(6)], -3.322368, _hartmann),
    "Func2C": _Function(
        [
            Parameter(name="first", type="categorical", values=["a", "b", "c"]),
            Parameter(name="second", type="categorical", values=list(_SURFACES)),
            _double("x", -1, 1),
            _double("y", -1, 1),
        ],
        -0.206326,
        _func2c,
    ),
}


class _Searching(Protocol):
    """A search, whoever's."""

    def ask(self, number: int) -> Point:
        """The next point."""

    def tell(self, number: int, value: float) -> None:
        """What came of it."""


class _Ours:
    def __init__(self, parameters: Sequence[Parameter], seed: int) -> None:
        self._search = Search(parameters, ["minimize"], strategy="bayesian", seed=seed)
        self._points: dict[int, Point] = {}

    def ask(self, number: int) -> Point:
        point = self._search.ask(number)
        assert point is not None
        self._points[number] = point
        return point

    def tell(self, number: int, value: float) -> None:
        point = dict(self._points[number])
        self._search.tell(Trial(number, point, TrialState.SUCCEEDED, (value,)))


class _Optuna:
    def __init__(self, parameters: Sequence[Parameter], sampler: Any) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(sampler=sampler)
        self._distributions = {each.name: each.distribution() for each in parameters}
        self._trials: dict[int, optuna.trial.Trial] = {}

    def ask(self, number: int) -> Point:
        self._trials[number] = self._study.ask(self._distributions)
        params = self._trials[number].params
        return {name: params[name] for name in self._distributions}

    def tell(self, number: int, value: float) -> None:
        self._study.tell(self._trials[number], value)


class _Hyperopt:
    """As Katib's service asks it: every trial is known, the running ones without a loss."""

    def __init__(self, parameters: Sequence[Parameter], seed: int) -> None:
        self._parameters = parameters
        space = {
            each.name: hyperopt.hp.choice(each.name, each.values)
            if each.values
            else hyperopt.hp.uniform(each.name, each.min, each.max)
            for each in parameters
        }
        self._domain = hyperopt.Domain(lambda _: None, space)
        self._trials = hyperopt.Trials()
        self._rng = np.random.default_rng(seed)
        self._documents: dict[int, Any] = {}

    def ask(self, number: int) -> Point:
        seed = int(self._rng.integers(2**31))
        identifiers = self._trials.new_trial_ids(1)
        self._trials.refresh()
        document = hyperopt.tpe.suggest(identifiers, self._domain, self._trials, seed)[0]
        self._trials.insert_trial_docs([document])
        self._trials.refresh()
        self._documents[number] = self._trials.trials[-1]
        drawn = {name: found[0] for name, found in document["misc"]["vals"].items()}
        return {
            each.name: each.values[drawn[each.name]] if each.values else float(drawn[each.name])
            for each in self._parameters
        }

    def tell(self, number: int, value: float) -> None:
        document = self._documents[number]
        document["result"] = {"loss": value, "status": hyperopt.STATUS_OK}
        document["state"] = hyperopt.JOB_STATE_DONE
        self._trials.refresh()


_OURS = "ours"
_TPE = "Optuna's default TPE"
_SEARCHES: dict[str, Callable[[Sequence[Parameter], int], _Searching]] = {
    _OURS: _Ours,
    _TPE: lambda parameters, seed: _Optuna(parameters, optuna.samplers.TPESampler(seed=seed)),
    "random search": lambda parameters, seed: _Optuna(
        parameters, optuna.samplers.RandomSampler(seed=seed)
    ),
    "hyperopt's TPE": _Hyperopt,
}


@dataclass
class _Measured:
    """Of one search on one function: by seed."""

    regrets: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)


def _run(search: _Searching, function: _Function, parallel: int, seed: int) -> tuple[float, float]:
    """Regret after all trials, in thousandths; and milliseconds of a core for each."""
    durations = np.random.default_rng(seed)
    workers: list[tuple[float, int, float]] = []  # when each has done, its trial, its value
    now, least, spent, begun = 0.0, math.inf, 0.0, 0
    while begun < _TRIALS or workers:
        began = time.process_time()
        if begun < _TRIALS and len(workers) < parallel:
            point = search.ask(begun)
            spent += time.process_time() - began
            ends = now + durations.uniform(0.5, 1.5)
            heapq.heappush(workers, (ends, begun, function.value(point)))
            begun += 1
        else:
            now, number, value = heapq.heappop(workers)
            search.tell(number, value)
            spent += time.process_time() - began
            least = min(least, value)
    return (least - function.least) * 1000, spent / _TRIALS * 1000


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Search every function with ``repetitions`` seeds, with each search."""
    measured: dict[tuple[str, int, str], _Measured] = {}
    for name, function in _FUNCTIONS.items():
        calm.wait()
        for parallel in _PARALLEL:
            for peer, make in _SEARCHES.items():
                found = measured.setdefault((name, parallel, peer), _Measured())
                for seed in range(repetitions):
                    search = make(function.parameters, seed)
                    regret, milliseconds = _run(search, function, parallel, seed)
                    found.regrets.append(regret)
                    found.milliseconds.append(milliseconds)
    return [
        *_comparisons("regret on", _UNIT, measured, lambda found: found.regrets, goal=_TPE),
        *_comparisons("a trial's share on", "ms", measured, lambda found: found.milliseconds),
    ]


def _comparisons(
    what: str,
    unit: str,
    measured: Mapping[tuple[str, int, str], _Measured],
    series: Callable[[_Measured], list[float]],
    goal: str = "",
) -> list[Comparison]:
    return [
        Comparison(
            f"{what} {name}, {parallel} at once",
            unit,
            series(measured[name, parallel, _OURS]),
            series(found),
            peer,
            "not above the peer's" if peer == goal else "none",
            float(np.median(series(found))) if peer == goal else None,
        )
        for (name, parallel, peer), found in measured.items()
        if peer != _OURS
    ]
