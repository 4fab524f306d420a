"""Tunings of a real model on real data, two trials at a time, by each strategy.

The model is the example's; a learning rate of a millionth or less leaves it as it was, which no
early stopping can overlook.
"""

import json
from pathlib import Path

import pytest

from tests.e2e.test_tuning import _run_of

pytestmark = pytest.mark.e2e

_EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
_HIDDEN = {"name": "hidden", "type": "discrete", "values": [64, 32]}
_RATE = {"name": "learning_rate", "type": "double", "min": 1e-7, "max": 0.05, "log": True}
_QUICK = {
    "algorithm.uri": str(_EXAMPLE),
    "experiment": "real",
    "hyperparameters.epochs": 5,
    "early_stopping": {"min_trials": 2, "start_step": 3},
}


def _tune(stack, **more):
    flags = [f"-p{key}={json.dumps(value)}" for key, value in {**_QUICK, **more}.items()]
    asked = ("run", "tune", "--watch", "-f", str(_EXAMPLE / "tune.yaml"), *flags)
    return stack.do(*asked)


def _check(stack, answer, *, ended, count):
    """What holds of each of them; the numbers of those that were stopped early."""
    assert (answer["state"], answer["detail"]) == ("COMPLETE", ended)
    trials, best = answer["result"]["trials"], answer["result"]["best"]
    assert len(trials) == count
    assert {one["state"] for one in trials} <= {"SUCCEEDED", "EARLY_STOPPED"}
    assert 0.85 < best["value"] <= 1
    assert best["value"] == max(one["value"] for one in trials)
    assert trials[best["number"]]["state"] == "SUCCEEDED"
    plots = stack.mlflow("artifacts/list", run_id=answer["result"]["mlflow_run_id"], path="plots")
    wanted = {"history", "early-stopping", "parallel-coordinates", "slices"}
    assert {f"plots/{name}.png" for name in wanted} <= {one["path"] for one in plots["files"]}
    return {one["number"] for one in trials if one["state"] == "EARLY_STOPPED"}


def test_a_grid_and_its_best_as_a_model(stack):
    rates = {"name": "learning_rate", "type": "discrete", "values": [0.01, 0.005, 1e-6]}
    answer = _tune(
        stack, name="real-grid", strategy="grid", parameters=[_HIDDEN, rates], max_trials=None
    )
    stopped = _check(stack, answer, ended="SuggestionEndReached", count=6)
    points = [tuple(one["parameters"].values()) for one in answer["result"]["trials"]]
    assert points == [(hidden, rate) for hidden in (64, 32) for rate in (0.01, 0.005, 1e-6)]
    # The first good ones have ended long before the last one begins.
    assert 5 in stopped

    best = answer["result"]["best"]
    made = stack.do(
        "model", "create", "real-best", "--run", "real-grid",
        "--framework", "scikit-learn", "--framework-version", "1.9",
    )  # fmt: skip
    assert made["source_uri"].endswith(f"/{best['mlflow_run_id']}/artifacts/model")
    assert stack.ask("runs", "delete", "real-grid").error["code"] == "HasModel"


@pytest.mark.soak
def test_random_points(stack):
    answer = _tune(
        stack, name="real-random", strategy="random", seed=703, parameters=[_HIDDEN, _RATE],
        max_trials=6,
    )  # fmt: skip
    rates = [one["parameters"]["learning_rate"] for one in answer["result"]["trials"]]
    assert min(rates[:4]) > 0.003  # so it is by this seed,
    assert rates[5] < 1e-6  # and no other trial is as bad as the last
    assert 5 in _check(stack, answer, ended="MaxTrialsReached", count=6)


@pytest.mark.soak
def test_bayesian_and_it_says_by_what(stack):
    answer = _tune(
        stack, name="real-bayesian", strategy="bayesian", seed=1, parameters=[_HIDDEN, _RATE],
        max_trials=11,
    )  # fmt: skip
    _check(stack, answer, ended="MaxTrialsReached", count=11)
    parent = _run_of(stack, answer["result"]["mlflow_run_id"])
    assert parent["params"]["sampler"]
