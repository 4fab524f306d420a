"""Tunings in a real stack, with trials beside them and in the pool."""

import json
import math

import pytest

from tests.e2e.conftest import gpus_of
from tests.e2e.stack import ALGORITHMS, flags, wait_for

pytestmark = pytest.mark.e2e

_LOSS = {"metric": "loss", "direction": "minimize"}
_X = {"name": "x", "type": "double", "min": 0, "max": 1}


def _parameters(**more):
    return {
        "strategy": "random",
        "parameters": [_X],
        "metrics": [{"name": "loss"}],
        "objective": _LOSS,
        "max_trials": 3,
        **more,
    }


def _tune(stack, *, code=0, **more):
    asked = flags("trial", _parameters(**more))
    answer = stack.ask("run", "tune", "--watch", *asked)
    assert answer.code == code, answer.out + answer.err
    return answer.json


def _start(stack, **more):
    answer = stack.do("run", "tune", *flags("trial", _parameters(**more)))
    return str(answer["flow_run_id"])


def _hows(*hows):
    return [{"name": "how", "type": "categorical", "values": list(hows)}]


def _run_of(stack, mlflow_run_id):
    found = stack.mlflow("runs/get", run_id=mlflow_run_id)["run"]
    pairs = {
        part: {one["key"]: one["value"] for one in found["data"].get(part, [])}
        for part in ("tags", "params", "metrics")
    }
    return {"status": found["info"]["status"], **pairs}


@pytest.mark.parametrize("dispatch", ["inline", pytest.param("pool", marks=pytest.mark.soak)])
def test_every_state_that_a_trial_can_end_in(stack, dispatch):
    hows = ("well", "better", "fails", "silently", "nan", "hopelessly", "pushes", "best", "never")
    answer = _tune(
        stack, name=f"states-{dispatch}", dispatch=dispatch, strategy="grid",
        parameters=_hows(*hows), hyperparameters={"x": 0.5},
        objective={**_LOSS, "goal": 0.25}, early_stopping={"min_trials": 2, "start_step": 2},
        max_trials=9,
    )  # fmt: skip

    assert (answer["state"], answer["detail"]) == ("COMPLETE", "GoalReached")
    result = answer["result"]
    shown = [
        (one["number"], one["parameters"]["how"], one["state"], one["value"])
        for one in result["trials"]
    ]
    assert shown == [
        (0, "well", "SUCCEEDED", 0.75),
        (1, "better", "SUCCEEDED", 0.5),
        (2, "fails", "FAILED", None),
        (3, "silently", "METRICS_UNAVAILABLE", None),
        (4, "nan", "METRICS_UNAVAILABLE", None),
        (5, "hopelessly", "EARLY_STOPPED", 5.0),
        (6, "pushes", "SUCCEEDED", 0.75),
        (7, "best", "SUCCEEDED", 0.25),
    ]
    assert result["best"]["number"] == 7
    assert result["trials"][2]["reason"].startswith("ScriptFailed: The script failed")

    parent = _run_of(stack, result["mlflow_run_id"])
    assert parent["status"] == "FINISHED"
    assert parent["tags"]["modelyard.best_trials"] == "7"
    assert parent["metrics"]["best loss"] == 0.25
    assert parent["metrics"]["trials failed"] == 3
    best = _run_of(stack, result["best"]["mlflow_run_id"])
    assert best["status"] == "FINISHED"
    assert best["tags"]["mlflow.parentRunId"] == result["mlflow_run_id"]
    assert best["metrics"]["system/cpu_time_seconds"] > 0
    assert best["tags"]["modelyard.trial_state"] == "SUCCEEDED"
    assert best["params"]["how"] == "best"
    assert best["metrics"]["loss"] == 0.25
    failed = _run_of(stack, result["trials"][2]["mlflow_run_id"])
    assert failed["status"] == "FAILED"
    plots = stack.mlflow("artifacts/list", run_id=result["mlflow_run_id"], path="plots")
    assert {"plots/history.png", "plots/early-stopping.png"} <= {
        one["path"] for one in plots["files"]
    }

    row = next(one for one in stack.do("runs", "list", "--flow", "tune")
               if one["name"] == f"states-{dispatch}")  # fmt: skip
    assert row["trials"] == {"done": 5, "running": 0, "failed": 3}
    assert row["best"] == 0.25


@pytest.mark.soak
@pytest.mark.parametrize("strategy", ["random", "bayesian"])
def test_the_same_seed_gives_the_same_points_beside_it_and_in_the_pool(stack, strategy):
    parameters = [
        {"name": "x", "type": "double", "min": 0, "max": 1, "step": 0.25},
        {"name": "steps", "type": "int", "min": 1, "max": 3},
    ]
    found = {
        dispatch: _tune(
            stack, dispatch=dispatch, strategy=strategy, seed=5, parameters=parameters,
            max_trials=4,
        )["result"]["trials"]
        for dispatch in ("inline", "pool")
    }  # fmt: skip
    points = {
        dispatch: [(one["parameters"], one["state"], one["value"]) for one in trials]
        for dispatch, trials in found.items()
    }
    assert points["inline"] == points["pool"]
    assert len({json.dumps(point) for point, _, _ in points["inline"]}) == 4
    for point, state, value in points["inline"]:
        assert state == "SUCCEEDED"
        assert value == pytest.approx(point["x"] + 1 / point["steps"])


@pytest.mark.parametrize("dispatch", ["inline", pytest.param("pool", marks=pytest.mark.soak)])
def test_stopped_and_retried_it_goes_on_where_it_was(stack, tmp_path, dispatch):
    until, ledger = tmp_path / "until", tmp_path / "ledger"
    run = _start(
        stack, dispatch=dispatch, parallel_trials=2, max_trials=4, name=f"stopped-{dispatch}",
        parameters=[{"name": "x", "type": "discrete", "values": [0.1, 0.2, 0.3, 0.4]}],
        strategy="grid",
        hyperparameters={"until": str(until), "ledger": str(ledger), "seconds": 0.1},
    )  # fmt: skip
    wait_for(lambda: ledger.exists() and len(ledger.read_text().splitlines()) == 2, 60, "two")
    stack.do("runs", "stop", run)
    assert [one["state"] for one in stack.show(run)["result"]["trials"]] == ["KILLED"] * 2
    assert stack.ask("model", "create", "--run", run, "--framework", "scikit-learn",
                     "--framework-version", "1").error["code"] == "RunNotComplete"  # fmt: skip
    until.touch()
    stack.do("runs", "retry", run)
    found = stack.wait_for_state(run, "COMPLETE", timeout=120)
    assert [one["state"] for one in found["result"]["trials"]] == ["SUCCEEDED"] * 4
    assert [one["attempts"] for one in found["result"]["trials"]][:2] == [2, 2]
    said = ledger.read_text().splitlines()
    assert sorted(line for line in said if line.startswith("ends")) == [
        f"ends x={x} how=well" for x in (0.1, 0.2, 0.3, 0.4)
    ]
    assert sorted(_artifacts(stack, run)) == ["mlflow-run", "progress", "trials"]  # one of each


def _artifacts(stack, run):
    """The keys of a run's artifacts that Prefect's pages show: not its result."""
    asked = {"artifacts": {"flow_run_id": {"any_": [run]}, "type": {"not_any_": ["result"]}}}
    return [one["key"] for one in stack.prefect("artifacts/filter", asked)]


def test_too_many_failures_and_a_retry_that_allows_more(stack):
    run = _start(
        stack, strategy="grid", max_failed_trials=2,
        parameters=_hows("fails", "better", "silently", "well"), max_trials=4,
    )  # fmt: skip
    found = stack.wait_for_state(run, "FAIL HYPERPARAMETER TUNING")
    assert found["message"].startswith("TooManyFailures: 2 trials failed.")
    assert "max_failed_trials=N" in found["message"]
    for given, code in [
        ("max_failed_trials=9", "LimitAboveMaxTrials"),
        ("parallel_trials=0", "ParameterInvalid"),
        ("seed=1", "ParameterNotChangeable"),
    ]:
        assert stack.ask("runs", "update", run, "-p", given).error["code"] == code
    stack.do("runs", "update", run, "-p", "max_failed_trials=3")
    stack.do("runs", "retry", run)
    found = stack.wait_for_state(run, "COMPLETE")
    states = [one["state"] for one in found["result"]["trials"]]
    assert states == ["FAILED", "SUCCEEDED", "METRICS_UNAVAILABLE", "SUCCEEDED"]
    assert found["result"]["best"]["number"] == 1  # of the first attempt
    assert (
        stack.ask("runs", "update", run, "-p", "max_failed_trials=2").error["code"] == "Conflict"
    )


def test_out_of_time_its_trials_are_stopped(stack, tmp_path):
    run = _start(
        stack, max_minutes=0.08, hyperparameters={"until": str(tmp_path / "never")},
    )  # fmt: skip
    found = stack.wait_for_state(run, "TIMED OUT")
    assert found["message"].startswith("Timeout: The tuning ran for its 0.08 minutes.")
    assert [one["state"] for one in found["result"]["trials"]] == ["KILLED"]


def test_a_trial_out_of_its_own_time_has_failed(stack, tmp_path):
    found = _tune(
        stack, trial_max_minutes=0.03, max_trials=1,
        hyperparameters={"until": str(tmp_path / "never")},
    )  # fmt: skip
    (trial,) = found["result"]["trials"]
    assert trial["state"] == "FAILED"
    assert trial["reason"].startswith("Timeout: ")


def test_parallelism_is_changed_while_it_runs(stack, tmp_path):
    until, ledger = tmp_path / "until", tmp_path / "ledger"
    run = _start(
        stack, max_trials=6, hyperparameters={"until": str(until), "ledger": str(ledger)},
    )  # fmt: skip

    def begun():
        return len(ledger.read_text().splitlines()) if ledger.exists() else 0

    wait_for(lambda: begun() == 1, 60, "the first trial")
    stack.do("runs", "update", run, "-p", "parallel_trials=3")
    wait_for(lambda: begun() == 3, 30, "three at once")
    until.touch()
    found = stack.wait_for_state(run, "COMPLETE")
    assert [one["state"] for one in found["result"]["trials"]] == ["SUCCEEDED"] * 6


def test_a_tunings_life_to_a_model(stack):
    stack.do(
        "template", "create", "for-tuning", "-p", "hyperparameters.steps=2",
        "-p", "hyperparameters.x=0.9", "-p", "max_minutes=5", "-p", "experiment=tuned",
    )  # fmt: skip
    first = _tune(stack, name="tuning-life", template="for-tuning", seed=1)
    assert [one["state"] for one in first["result"]["trials"]] == ["SUCCEEDED"] * 3
    shown = stack.show("tuning-life")
    assert shown["parameters"]["trial_max_minutes"] == 5
    assert shown["parameters"]["hyperparameters"] == {"steps": 2}
    assert shown["parameters"]["experiment"] == "tuned"
    experiment = stack.do("experiment", "show", "tuned")
    assert [row["name"] for row in experiment["runs"]] == ["tuning-life"]

    copied = stack.do(
        "runs", "copy", "tuning-life", "-p", "warm_start=tuning-life", "-p", "name=warm"
    )
    warm = stack.wait_for_state(copied["flow_run_id"], "COMPLETE")
    points = {json.dumps(one["parameters"]) for one in first["result"]["trials"]}
    assert points.isdisjoint(json.dumps(one["parameters"]) for one in warm["result"]["trials"])

    children = [one["mlflow_run_id"] for one in warm["result"]["trials"]]
    assert stack.do("runs", "delete", "warm")["deleted"]
    assert all(
        stack.mlflow("runs/get", run_id=one)["run"]["info"]["lifecycle_stage"] == "deleted"
        for one in children
    )


def test_several_objectives_with_a_constraint(stack):
    found = _tune(
        stack, strategy="bayesian", seed=2, max_trials=6,
        metrics=[{"name": "loss"}, {"name": "accuracy"}],
        parameters=[_X, {"name": "steps", "type": "int", "min": 1, "max": 9}],
        objective=[_LOSS, {"metric": "accuracy", "direction": "maximize"}],
        constraints=[{"metric": "accuracy", "max": 0.5}],
    )  # fmt: skip
    result = found["result"]
    assert result["best"] is None
    assert result["front"]
    for one in result["front"]:
        loss, accuracy = one["value"]
        assert accuracy <= 0.5
        assert math.isclose(accuracy, one["parameters"]["steps"] / 10)
        assert loss == pytest.approx(one["parameters"]["x"] + 1 / one["parameters"]["steps"])


def test_trials_that_run_at_once_see_a_gpu_each(spare, tmp_path):
    names = gpus_of(spare)
    until = tmp_path / "until"
    asked = _parameters(
        parallel_trials=2, max_trials=2, resources={"instance_type": "gpu.t4"},
        hyperparameters={"until": str(until)}, metrics=[{"name": "loss"}], name="pinned",
    )  # fmt: skip
    run = str(spare.do("run", "tune", *flags("gpus", asked))["flow_run_id"])

    def sees(number):
        log = spare.home / "runs" / run / "trials" / str(number) / "train.log"
        return log.read_text().strip() if log.exists() else ""

    wait_for(lambda: all(sees(number) for number in (0, 1)), 60, "both trials")
    assert {sees(0), sees(1)} == {f"sees [{name}]" for name in names}
    until.touch()
    spare.wait_for_state(run, "COMPLETE")


_IN_PYTHON = """
from flows.tuning import tune

result = tune(
    algorithm={"uri": "ALGORITHMS", "entry_point": "trial.py"},
    strategy="grid",
    parameters=[{"name": "x", "type": "discrete", "values": [0.5, 0.25]}],
    metrics=[{"name": "loss"}],
    objective={"metric": "loss", "direction": "minimize"},
)
print(result["best"]["parameters"], result["best"]["value"])
"""


def test_called_in_python_it_returns_its_result(stack):
    said = stack.execute(_IN_PYTHON.replace("ALGORITHMS", str(ALGORITHMS)))
    assert said.splitlines()[-1] == "{'x': 0.25} 0.5"


_BAD = [
    ({"parameters": [{**_X, "step": 3}], "strategy": "grid"}, "ParameterStepInvalid"),
    ({"objective": {"metric": "other", "direction": "minimize"}}, "ObjectiveUnknown"),
    ({"warm_start": "nobody"}, "NotFound"),
    ({"early_stopping": {"min_trials": 0}}, "ParameterInvalid"),
]


def test_what_is_wrong_is_named_before_anything_starts(stack):
    before = len(stack.do("runs", "list", "-n", "1000"))
    found = []
    for given, _ in _BAD:
        error = stack.ask("run", "tune", *flags("trial", _parameters(**given))).error
        assert error["hint"], error
        found.append(error["code"])
    assert found == [code for _, code in _BAD]
    assert len(stack.do("runs", "list", "-n", "1000")) == before
