from __future__ import annotations

import math
import random
import struct
from typing import Any

from tuning.plots import plots
from tuning.plots.tuning_data import TuningData, prepare
from tuning.space import Parameter
from tuning.trials import Trial, TrialState

RATE = Parameter(name="rate", type="double", min=1e-4, max=1.0, log=True)
LAYERS = Parameter(name="layers", type="int", min=1, max=8)
KIND = Parameter(name="kind", type="categorical", values=["a", "b", "c"])
SIZE = Parameter(name="size", type="discrete", values=[64, 16, 32])
SPACE = [RATE, LAYERS, KIND, SIZE]

DONE, STOPPED, FAILED = TrialState.SUCCEEDED, TrialState.EARLY_STOPPED, TrialState.FAILED


def trial(number: int, *values: float, **others: Any) -> Trial:
    given = {
        "parameters": {"rate": 0.01, "layers": 2, "kind": "a", "size": 16},
        "state": DONE,
        "values": values or None,
        **others,
    }
    return Trial(number, **given)


def many(count: int, objectives_: int = 1) -> list[Trial]:
    """Trials whose value is that of the rate, and hardly of anything else."""
    chance = random.Random(count)
    trials = []
    for number in range(count):
        rate = 10 ** chance.uniform(-4, 0)
        value = (math.log10(rate) + 2) ** 2 + 0.01 * chance.random()
        trials.append(
            trial(
                number, *(value, -value + chance.random(), chance.random())[:objectives_],
                parameters={
                    "rate": rate, "layers": chance.randint(1, 8), "kind": chance.choice("abc"),
                    "size": chance.choice([16, 32, 64]),
                },
                state=STOPPED if number % 5 == 4 else DONE,
                reports=tuple(value + 1 / step for step in range(1, 8)),
            )
        )  # fmt: skip
    return trials


def tuning_of(
    trials: list[Trial], *directions: str, space: list[Parameter] | None = None
) -> TuningData:
    directions = directions or ("minimize",)
    names = [f"metric{place}" for place in range(len(directions))]
    return prepare(trials, SPACE if space is None else space, names, directions)


def drawn(trials: list[Trial], *directions: str, space: list[Parameter] | None = None) -> set[str]:
    directions = directions or ("minimize",)
    names = [f"metric{place}" for place in range(len(directions))]
    drawn = plots(trials, SPACE if space is None else space, names, directions)
    for png in drawn.values():
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", png[16:24]) == (1600, 900)
        assert png[-8:-4] == b"IEND"
    return set(drawn)
