"""What a trial costs beside its script, with one trial at a time.

The peer is the least that a tuning can be: Optuna in memory and a bare ``subprocess``. The same
sampler suggests on both sides. What a tuning costs once is taken out by the difference of a long
and a short one; the rest includes everything: rows in PostgreSQL, a run in MLflow with parameters,
metric, log and state, the leash, the tables and plots. The goal is of a script that does nothing;
a small one that is real shows what that means.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy

from benchmarks import house
from benchmarks.house import House
from benchmarks.machine import Calm
from benchmarks.results import Comparison

REPETITIONS = 5
_NOTHING = """\
import sys
print(f"loss={float(sys.argv[sys.argv.index('--x') + 1]) ** 2}")
"""
_REAL = """\
import sys
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
strength = 10 ** float(sys.argv[sys.argv.index('--x') + 1])
data, labels = load_digits(return_X_y=True)
model = LogisticRegression(C=strength)
print(f"loss={1 - cross_val_score(model, data[:300] / 16, labels[:300], cv=3).mean()}")
"""


@dataclass(frozen=True)
class _Kind:
    """A script, and of how many trials the two tunings are whose difference counts."""

    name: str
    script: str
    short: int
    long: int
    goal: float | None = None


_KINDS = (
    _Kind("a script that does nothing", _NOTHING, 10, 50, goal=1.2),
    _Kind("a small model's", _REAL, 2, 12),
)


def _ours(home: House, script: Path, kind: _Kind) -> dict[str, float]:
    """Milliseconds for each trial: all in all, and of the trials alone."""
    seconds, alone = {}, {}
    for trials in (kind.short, kind.long):
        answer = home.modelyard(
            "run", "tune", "--watch",
            "-p", f"algorithm.uri={script.parent}", "-p", f"algorithm.entry_point={script.name}",
            "-p", "strategy=tpe", "-p", "metrics=[{name: loss}]",
            "-p", "parameters=[{name: x, type: double, min: -1, max: 1}]",
            "-p", "objective={metric: loss, direction: minimize}",
            "-p", f"max_trials={trials}",
        )  # fmt: skip
        run = answer["flow_run_id"]
        seconds[trials] = home.modelyard("runs", "show", run)["seconds"]
        alone[trials] = _from_first_to_last(home, run)
    count = kind.long - kind.short
    return {
        "all": (seconds[kind.long] - seconds[kind.short]) / count * 1000,
        "trials": (alone[kind.long] - alone[kind.short]) / count * 1000,
    }


def _from_first_to_last(home: House, run: str) -> float:
    """Seconds from the first trial's row to the last one's end."""
    times = "SELECT max(ended) - min(created) FROM tuning_trials WHERE tuning = :run"
    engine = sqlalchemy.create_engine(home.endpoints.database_url)
    with engine.connect() as connection:
        seconds = connection.execute(sqlalchemy.text(times), {"run": run}).scalar_one()
    engine.dispose()
    return float(seconds)


def _bare(script: Path, trials: int) -> float:
    """Milliseconds for each trial of a loop of one's own."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    began = time.monotonic()
    for _ in range(trials):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(-1, 1)})
        command = [sys.executable, str(script), "--x", str(trial.params["x"])]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"loss=(\S+)", said)
        assert found is not None
        study.tell(trial, float(found[1]))
    return (time.monotonic() - began) / trials * 1000


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Tune ``repetitions`` times on either side, in turns."""
    with house.temporary() as home:
        home.up()
        return [line for kind in _KINDS for line in _compared(home, kind, repetitions, calm)]


def _compared(home: House, kind: _Kind, repetitions: int, calm: Calm) -> list[Comparison]:
    ours: list[dict[str, float]] = []
    bare: list[float] = []
    script = home.root / f"algorithm-{kind.long}" / "trial.py"
    script.parent.mkdir()
    script.write_text(kind.script)
    _ours(home, script, kind)  # the first one warms up and does not count
    for _ in range(repetitions):
        calm.wait()
        ours.append(_ours(home, script, kind))
        bare.append(_bare(script, kind.long))
    limit = kind.goal and kind.goal * statistics.median(bare)
    goal = f"{kind.goal:g} x the peer" if kind.goal else "none"
    return [
        Comparison(f"{kind.name}: {what}", "ms", [one[key] for one in ours], bare,
                   "Optuna in memory and subprocess", goal, limit)
        for key, what in (("all", "a trial, MLflow's part included"),
                          ("trials", "a trial, until the next one begins"))
    ]  # fmt: skip
