"""Searches, as tests make them, and a function to search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

from tests.tuning.spaces import choice, double, integer
from tuning.search import Search, Strategy
from tuning.space import Parameter, Point
from tuning.trials import Trial, TrialState

STRATEGIES = get_args(Strategy)
MODELS = ("bayesian", "gp", "tpe")

MIXED = [
    double(-5.0, 10.0, 0.5, name="x"),
    double(1e-5, 0.1, 0.01, name="rate", log=True),
    integer(1, 1000, 100, name="n", log=True),
    choice("a", True, 0, 2.5, name="c"),
    Parameter(name="size", type="discrete", values=[64, 16, 32]),
]


def make(
    parameters: Sequence[Parameter] = MIXED,
    strategy: Any = "bayesian",
    seed: int = 7,
    directions: Any = ("minimize",),
    constraints: int = 0,
) -> Search:
    return Search(parameters, directions, strategy=strategy, seed=seed, constraints=constraints)


def ended(
    number: int, point: Point, value: float | None = None, state: str = "SUCCEEDED", **others: Any
) -> Trial:
    values = None if value is None else (value,)
    return Trial(number, point, TrialState(state), **{"values": values, **others})


def branin(point: Point) -> float:
    x, y = float(point["x"]), float(point["y"])
    curve = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return curve**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


PLANE = [double(-5.0, 10.0, name="x"), double(0.0, 15.0, name="y")]


def best(
    strategy: str,
    seed: int,
    function: Callable[[Point], float] = branin,
    trials: int = 30,
    parallel: int = 1,
    sign: int = 1,
    state: str = "SUCCEEDED",
) -> float:
    direction = "minimize" if sign > 0 else "maximize"
    search = make(PLANE, strategy, seed, [direction])
    values, running = [], []
    for number in range(trials):
        point = search.ask(number)
        assert point is not None
        values.append(function(point))
        running.append(
            ended(number, point, sign * values[-1], state, reports=(sign * values[-1],))
        )
        if len(running) == parallel:
            search.tell(running.pop(0))
    return min(values)
