from __future__ import annotations

import pytest
import yaml

from tests.tuning.katib.written import NAMES, changed, read, text
from tuning import katib, space
from tuning.metrics import MetricCollector, MetricPattern
from tuning.objectives import Objective
from tuning.space import Parameter


@pytest.mark.parametrize("name", NAMES)
def test_what_is_carried_over_passes_our_own_models(name: str) -> None:
    found = katib.read(text(name)).parameters

    space.check(
        [Parameter(**one) for one in found["parameters"]], grid=found["strategy"] == "grid"
    )
    for metric in found["metrics"]:
        MetricPattern(**metric).expression()
    assert Objective(**found["objective"]).metric == found["metrics"][0]["name"]
    assert yaml.safe_load(yaml.safe_dump(found)) == found
    assert "algorithm" not in found


def test_there_are_experiments() -> None:
    assert len(NAMES) >= 10


def test_random() -> None:
    found, told = read("random")

    assert found == {
        "name": "flowers-random",
        "strategy": "random",
        "seed": 17,
        "parameters": [
            {"name": "lr", "type": "double", "min": 0.0001, "max": 0.1, "log": True},
            {"name": "num-layers", "type": "int", "min": 2, "max": 6},
            {"name": "optimizer", "type": "categorical", "values": ["sgd", "adam", "on"]},
        ],
        "hyperparameters": {"batch-size": 64, "dropout": "0.10", "data": "/mnt/flowers"},
        "objective": {"metric": "val-accuracy", "direction": "maximize", "goal": 0.95},
        "metrics": [{"name": "val-accuracy"}, {"name": "val-loss"}],
        "max_trials": 24,
        "max_failed_trials": 5,
        "parallel_trials": 4,
        "resources": {"image": "registry.example.com/vision/flowers:1.4"},
        "trial_max_minutes": 30.0,
    }
    assert isinstance(found["hyperparameters"]["batch-size"], int)
    for line in (
        "metadata.namespace: there is nothing like it here.",
        "algorithm: its files lie in the image registry.example.com/vision/flowers:1.4: give "
        "algorithm.uri, a folder with a copy of /opt/flowers, and algorithm.entry_point, "
        "train.py.",
        "Parameter 'learning_rate': it is called 'lr' here, as the script's option is.",
        "nvidia.com/gpu 1",
        "nodeSelector, volumes",
        "The backoffLimit",
        "--data /mnt/flowers",
        "--run-name ${trialParameters.trial}",
        "The argument --augment",
        "LOG_LEVEL",
        "The template's 'trial'",
    ):
        assert line in told
    assert "optimizer" not in told
    assert "retain" not in told


def test_grid() -> None:
    found, told = read("grid")

    assert found["strategy"] == "grid"
    assert found["parameters"] == [
        {"name": "alpha", "type": "double", "min": 0.0, "max": 0.35, "step": 0.05},
        {"name": "degree", "type": "int", "min": 1, "max": 3},
        {"name": "solver", "type": "categorical", "values": ["svd", "lsqr"]},
    ]
    assert found["hyperparameters"] == {"offset": -1.5}
    assert "max_failed_trials" not in found
    assert "of the grid's 48 points the first 20" in told
    assert "algorithm.entry_point, src/fit.py" in told


def test_bayesian() -> None:
    found, told = read("bayesian")

    assert found["name"] == "churn-bayes"
    assert (found["strategy"], found["seed"]) == ("bayesian", 3)
    assert found["objective"] == {
        "metric": "auc", "direction": "maximize", "goal": 0.9, "use": "last",
    }  # fmt: skip
    assert found["parameters"] == [
        {"name": "eta", "type": "double", "min": 0.01, "max": 0.3},
        {"name": "max-depth", "type": "int", "min": 3, "max": 11},
        {"name": "seed", "type": "discrete", "values": [1, 2, 0.5]},
    ]
    assert found["hyperparameters"] == {"rounds": 200}
    assert (found["max_trials"], found["max_failed_trials"], found["parallel_trials"]) == (2, 2, 2)
    for line in (
        "acq_func=EI",
        "Parameter 'depth': the step 2",
        "Parameter 'seed': numbers that are written in several ways",
        "The containers fetch",
        "The shell's other commands, 2 of them",
        "The option --api-key",
        "The option --database",
        "The environment variable MODEL_SEED: it is EM_HP_SEED here.",
        "The environment variable DB_PASSWORD",
        "spec.maxFailedTrialCount: 6",
        "FromVolume",
        "Parameters 'eta': some releases",
        "The template's conditions",
        "algorithm.entry_point, train.py",
    ):
        assert line in told
    assert "hunter2" not in told + str(found)


def test_tpe_with_a_file_and_filters() -> None:
    found, told = read("tpe-file")

    assert found["strategy"] == "tpe"
    assert found["objective"] == {"metric": "wer", "direction": "minimize", "goal": 0.05}
    assert [one.get("log", False) for one in found["parameters"]] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert found["parameters"][4] == {
        "name": "width", "type": "categorical", "values": ["small", "large"],
    }  # fmt: skip
    assert found["parallel_trials"] == 3
    assert "max_trials" not in found
    for line in (
        "the distribution is logNormal",
        "the distribution is normal",
        "a logarithmic scale needs a min above 0",
        "Parameter 'momentum': the step 0.1",
        "Parameter 'width': it is categorical here",
        "never its worst",
        "every value of 'loss' is kept",
        "File of /logs/metrics.log",
        "give max_trials",
        "gamma=0.25",
        "a script in it like speech.train",
        "--schedule warmup:${trialParameters.warmup}",
        "Parameter 'warmup': it is given as --warmup",
    ):
        assert line in told


def test_filters_find_what_they_found() -> None:
    found, _ = read("tpe-file")
    collector = MetricCollector([MetricPattern(**one) for one in found["metrics"]])
    log = [
        "{metricName: wer, metricValue: 0.5};{metricName: loss, metricValue: -2}",
        "WER is 0.1",
        "wer Is 0.2",
        "{METRICNAME: wer, METRICVALUE: 9}",  # the flag is the other filter's alone
        "loss = 3e-1",
        "other = 4",
    ]

    values = [(one.name, one.value) for line in log for one in collector.collect(line)]

    assert values == [("wer", 0.5), ("loss", -2.0), ("wer", 0.2), ("loss", 0.3)]


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ([r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"], "Katib's default is left out"),
        ([r"loss=(\d+"], "does not compile"),
        ([r"loss=(\d+)"], "has no group for the metric's name"),
        ([r"loss=\d+"], "has no group for the value"),
    ],
)
def test_a_filter_that_is_of_no_use_is_told(filters: list[str], told: str) -> None:
    spec = {"source": {"filter": {"metricsFormat": filters}}}
    reading = katib.read(changed(metricsCollectorSpec=spec))

    assert reading.parameters["metrics"] == [{"name": "val-accuracy"}, {"name": "val-loss"}]
    assert [line for line in reading.left_out if told in line and "metricsFormat" in line]


def test_one_filter_is_carried_over_as_it_is() -> None:
    spec = {"source": {"filter": {"metricsFormat": [r"(\w+) is (\S+)"]}}}

    found = katib.read(changed(metricsCollectorSpec=spec)).parameters

    assert {one["pattern"] for one in found["metrics"]} == {r"(\w+) is (\S+)"}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("StdOut", ""),
        ("None", ""),
        ("File", "no file is followed"),
        ("TensorFlowEvent", "EM_TENSORBOARD_LOG_DIR"),
        ("PrometheusMetric", "nothing is scraped"),
        ("Custom", "no other container collects"),
        ("Push", "mlflow.log_metric"),
    ],
)
def test_collectors(kind: str, told: str) -> None:
    lines = katib.read(changed(metricsCollectorSpec={"collector": {"kind": kind}})).left_out

    about = [line for line in lines if line.startswith("spec.metricsCollectorSpec")]
    assert len(about) == bool(told)
    assert not told or told in about[0]


def test_hyperbands_resource_is_fixed() -> None:
    found, told = read("hyperband")

    assert found["strategy"] == "random"
    assert found["early_stopping"] == {"rule": "hyperband"}
    assert [one["name"] for one in found["parameters"]] == ["lr"]
    assert found["hyperparameters"] == {"num-epochs": 9}
    assert "eta=3" in told
    assert "medianstop is left out" in told
    assert "every trial is given num-epochs=9" in told


def test_the_median_rule() -> None:
    found, told = read("medianstop")

    assert found["strategy"] == "tpe"
    assert found["early_stopping"] == {"rule": "median", "min_trials": 5, "start_step": 4}
    assert found["max_failed_trials"] == 0
    assert found["trial_max_minutes"] == 1.5
    for line in ("status:", "metadata.labels", "accelerate", "The containers proxy", "JSON"):
        assert line in told
    assert "uid" not in told


def test_a_job_of_several_machines() -> None:
    found, told = read("pytorchjob")

    assert found["resources"] == {
        "nodes": 3,
        "image": "registry.example.com/language:ddp",
        "torchrun": True,
        "processes_per_node": 4,
    }
    assert found["trial_max_minutes"] == 120
    assert [one["name"] for one in found["parameters"]] == ["lr", "n-heads"]
    assert "there is no CMA-ES" in told
    assert "nvidia.com/gpu 4" in told


def test_event_files_and_a_parameter_server() -> None:
    found, told = read("tfjob-events")

    assert found["resources"] == {"nodes": 2, "image": "registry.example.com/tf/mnist:2"}
    assert found["strategy"] == "sobol"
    assert [one["name"] for one in found["parameters"]] == ["learning-rate", "batch-size"]
    assert "tfReplicaSpecs.PS" in told
    assert "TensorFlowEvent of /logs/test" in told


def test_a_template_in_a_config_map() -> None:
    found, told = read("configmap")

    assert "resources" not in found
    assert found["parameters"][0]["name"] == "lr"
    assert "lies in 'trial-templates'" in told
    assert "'pbt'" in told


def test_a_trainjob() -> None:
    found, told = read("trainjob")

    assert found["resources"] == {
        "nodes": 2, "processes_per_node": 4, "image": "registry.example.com/torch/mnist:5",
    }  # fmt: skip
    assert found["hyperparameters"] == {"epochs": 1}
    for line in (
        "'swarm'",
        "there is no 'plateau' here",
        "nvidia.com/gpu 4",
        "nothing is scraped",
    ):
        assert line in told
    assert "early_stopping" not in found


def test_nothing_is_dropped_in_silence() -> None:
    objective = {"type": "minimize", "objectiveMetricName": "loss", "weight": "3"}

    lines = katib.read(changed(objective=objective, colour="red")).left_out

    assert "spec.colour: there is nothing like it here." in lines
    assert "spec.objective.weight: there is nothing like it here." in lines
