"""What a trial costs beside its script, which does nothing, with one trial at a time.

The peer is the least that a tuning can be: Optuna in memory and a bare ``subprocess``. The same
sampler suggests on both sides. What a tuning costs once is taken out by the difference of a long
and a short one; the rest includes everything: rows in PostgreSQL, a run in MLflow with parameters,
metric, log and state, the leash, the tables and plots.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import optuna
import sqlalchemy

from benchmarks import house
from benchmarks.house import House
from benchmarks.machine import Calm
from benchmarks.results import Comparison

REPETITIONS = 5
_GOAL = 1.2
_SHORT, _LONG = 10, 50
_SCRIPT = """\
import sys
print(f"loss={float(sys.argv[sys.argv.index('--x') + 1]) ** 2}")
"""


def _ours(home: House, script: Path) -> dict[str, float]:
    """Milliseconds for each trial: all in all, and of the trials alone."""
    seconds, alone = {}, {}
    for trials in (_SHORT, _LONG):
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
    count = _LONG - _SHORT
    return {
        "all": (seconds[_LONG] - seconds[_SHORT]) / count * 1000,
        "trials": (alone[_LONG] - alone[_SHORT]) / count * 1000,
    }


def _from_first_to_last(home: House, run: str) -> float:
    """Seconds from the first trial's row to the last one's end."""
    times = "SELECT max(ended) - min(created) FROM tuning_trials WHERE tuning = :run"
    engine = sqlalchemy.create_engine(home.endpoints.database_url)
    with engine.connect() as connection:
        seconds = connection.execute(sqlalchemy.text(times), {"run": run}).scalar_one()
    engine.dispose()
    return float(seconds)


def _bare(script: Path) -> float:
    """Milliseconds for each trial of a loop of one's own."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    began = time.monotonic()
    for _ in range(_LONG):
        trial = study.ask({"x": optuna.distributions.FloatDistribution(-1, 1)})
        command = [sys.executable, str(script), "--x", str(trial.params["x"])]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"loss=(\S+)", said)
        assert found is not None
        study.tell(trial, float(found[1]))
    return (time.monotonic() - began) / _LONG * 1000


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Tune ``repetitions`` times on either side, in turns."""
    ours: list[dict[str, float]] = []
    bare: list[float] = []
    with house.temporary() as home:
        script = home.root / "algorithm" / "trial.py"
        script.parent.mkdir()
        script.write_text(_SCRIPT)
        home.up()
        _ours(home, script)  # the first one warms up and does not count
        for _ in range(repetitions):
            calm.wait()
            ours.append(_ours(home, script))
            bare.append(_bare(script))
    limit = _GOAL * statistics.median(bare)
    name = "Optuna in memory and subprocess"
    goal = f"{_GOAL:g} x the peer"
    return [
        Comparison("a trial, MLflow's part included", "ms", [one["all"] for one in ours], bare,
                   name, goal, limit),
        Comparison("a trial, until the next one begins", "ms", [one["trials"] for one in ours],
                   bare, name, goal, limit),
    ]  # fmt: skip
