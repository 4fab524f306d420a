from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.tuning.katib.written import changed, text, trial
from tuning import katib
from tuning.katib import command


def test_a_trial_of_an_unknown_kind() -> None:
    template = yaml.safe_load(text("random"))["spec"]["trialTemplate"]
    steps = [{"name": "a", "image": "a", "command": ["a"]}, {"name": "b", "image": "b"}]
    template["trialSpec"] = {"kind": "PipelineRun", "spec": {"steps": steps}}

    reading = katib.read(changed(trialTemplate=template))

    assert "resources" not in reading.parameters
    assert [line for line in reading.left_out if "no container of this PipelineRun" in line]


def test_the_container_that_takes_the_parameters_is_the_one() -> None:
    template = yaml.safe_load(text("random"))["spec"]["trialTemplate"]
    words = ["python", "b.py", "--lr=${trialParameters.learningRate}"]
    steps = [
        {"name": "training-container", "image": "a", "command": ["python", "a.py"]},
        {"name": "other", "image": "b", "command": words},
    ]
    template["trialSpec"] = {"kind": "Workflow", "spec": {"steps": steps}}

    reading = katib.read(changed(trialTemplate=template))

    assert reading.parameters["resources"] == {"image": "b"}
    assert reading.parameters["parameters"][0]["name"] == "lr"


def test_the_shortest_time_limit_holds() -> None:
    experiment = yaml.safe_load(text("random"))
    job = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]
    job["template"]["spec"]["activeDeadlineSeconds"] = "600"

    assert katib.read(yaml.safe_dump(experiment)).parameters["trial_max_minutes"] == 10


def test_a_name_that_another_parameter_has_is_not_taken() -> None:
    words = ["python", "t.py", "--layers=${trialParameters.learningRate}", "--optimizer=adam"]

    reading = katib.read(trial(words))

    names = [one["name"] for one in reading.parameters["parameters"]]
    assert names == ["learning_rate", "layers", "optimizer"]
    assert "hyperparameters" not in reading.parameters
    assert [line for line in reading.left_out if "as another is called 'layers'" in line]
    assert [line for line in reading.left_out if line.startswith("The option --optimizer")]


def test_names_that_two_parameters_swap() -> None:
    words = [
        "python", "t.py", "--layers=${trialParameters.learningRate}",
        "--learning_rate=${trialParameters.numberLayers}",
        "--optimizer=${trialParameters.optimizer}",
    ]  # fmt: skip

    found = katib.read(trial(words)).parameters

    assert [one["name"] for one in found["parameters"]] == ["layers", "learning_rate", "optimizer"]
    assert [one["type"] for one in found["parameters"]] == ["double", "int", "categorical"]


@pytest.mark.parametrize("value", ["$EPOCHS", "$(params.epochs)", "{{inputs.epochs}}"])
def test_an_option_that_something_else_computes_is_told(value: str) -> None:
    reading = katib.read(trial(["python", "t.py", f"--epochs={value}", "--seed=1"]))

    assert reading.parameters["hyperparameters"] == {"seed": 1}
    assert [line for line in reading.left_out if f"--epochs {value}" in line]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("0", 0), ("007", "007"), ("+5", "+5"), ("0.5", 0.5),
        ("0.50", "0.50"), ("1e-05", 1e-05), ("1e-5", "1e-5"), ("nan", "nan"),
        ("1_000", "1_000"), ("true", "true"),
        ("9" * 30, "9" * 30), ("", ""),
    ],
)  # fmt: skip
def test_a_script_is_given_what_it_was_given(text: str, value: object) -> None:
    found = katib.read(trial(["python", "t.py", f"--x={text}"])).parameters

    assert found["hyperparameters"] == {"x": value}
    assert str(found["hyperparameters"]["x"]) == text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "a.py", "--x", "1"], {"script": "a.py", "options": {"x": "1"}}),
        (["python", "a.py", "--x", "-1"], {"options": {"x": "-1"}}),
        (["python", "a.py", "--x", "--y=2"], {"options": {"y": "2"}, "rest": ["--x"]}),
        (["python", "a.py", "--x=1", "--x=2"], {"options": {"x": "1"}, "rest": ["--x=2"]}),
        (["python", "a.py", "7", "--"], {"rest": ["7", "--"]}),
        (["python", "a.py", "--c", "b.py"], {"script": "a.py", "options": {"c": "b.py"}}),
        (["python", "-m", "p.t", "--c", "b.py"], {"module": "p.t", "options": {"c": "b.py"}}),
        (["a.sh", "--x=1"], {"script": "a.sh", "launcher": ""}),
        (["--x=1"], {"script": "", "options": {"x": "1"}}),
        (["train", "--x=1"], {"script": "", "options": {"x": "1"}}),
        (["mpirun", "-np", "2", "python", "a.py"], {"launcher": "mpirun", "script": "a.py"}),
        (
            ["python", "-m", "torch.distributed.run", "--nproc-per-node", "2", "a.py", "--x=1"],
            {"torchrun": True, "processes": 2, "script": "a.py", "options": {"x": "1"}},
        ),
        (["torchrun", "--nproc_per_node=auto", "a.py"], {"torchrun": True, "processes": None}),
        (["sh", "-c", "pip a; python a.py --x 'M y'"], {"options": {"x": "M y"}, "others": 1}),
        (["sh", "-c", "python a.py && python b.py --x=M"], {"script": "b.py", "others": 1}),
        (["sh", "-c", "python a.py --x 'M"], {"script": "", "options": {}}),
        (["sh", "a.sh", "--x=1"], {"script": "a.sh", "options": {"x": "1"}}),
        ([], {"script": "", "options": {}, "rest": []}),
    ],
)  # fmt: skip
def test_command_lines(words: list[str], expected: dict[str, Any]) -> None:
    found = command.parse(words, "M")

    assert {name: getattr(found, name) for name in expected} == expected
