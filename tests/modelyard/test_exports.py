"""The names that `from modelyard import ...` gives."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from pydantic import BaseModel

import modelyard
from flows import catalogue
from modelyard import packages
from modelyard.api.client import NOUNS, Client

_PUBLIC = {
    "Algorithm", "BadInputError", "BatchInference", "BatchInferenceResult", "Client",
    "ConflictError", "Constraint", "Dataset", "EarlyStopping", "Evaluation",
    "EvaluationInference", "EvaluationResources", "EvaluationResult", "FlowResult",
    "InferenceResources", "Logs", "MetricPattern", "ModelRegistration", "ModelyardError",
    "NasMount", "NotFoundError",
    "Objective", "Parameter", "PipelineResources", "PipelineRun", "PipelineRunResult",
    "Resources", "Run", "RunFailedError", "StackError", "Training", "TrainingResult", "Tuning",
    "TuningResult", "batch_inference", "evaluate", "pipeline_run", "train", "tune",
}  # fmt: skip


def test_the_public_names_stay() -> None:
    assert set(modelyard.__all__) == _PUBLIC
    assert set(dir(modelyard)) >= _PUBLIC


def test_type_checkers_read_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(str(modelyard.__file__)).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert imported == modelyard._MODULE_OF


@pytest.mark.parametrize("name", sorted(_PUBLIC))
def test_every_name_is_documented(name: str) -> None:
    found = getattr(modelyard, name)

    assert found.__doc__
    if isinstance(found, type) and issubclass(found, BaseModel):
        assert all(field.description for field in found.model_fields.values())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        modelyard.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        Client().nothing  # noqa: B018


def test_groups_of_a_request_are_exported() -> None:
    """A caller with a type checker writes them instead of mappings."""
    groups = {
        kind
        for flow in catalogue.load_all()
        for kind in _models(flow.model)
        if flow.name != "pipeline-artifacts-cleanup"
    }

    assert groups <= {getattr(modelyard, name) for name in _PUBLIC}


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    def within(annotation: object) -> set[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return _models(annotation)
        return {one for inner in getattr(annotation, "__args__", ()) for one in within(inner)}

    fields = model.model_fields.values()
    return {model}.union(*(within(field.annotation) for field in fields))


# Verbs of the command that are something else in Python.
_OTHERWISE = {
    "pipelines": {"run", "graph"},  # pipeline_run
    "runs": {"watch"},  # Run.wait, Run.logs
}


@pytest.mark.parametrize("noun", NOUNS)
def test_the_client_has_the_verbs_of_the_command(noun: str) -> None:
    module = noun if noun == "runs" else noun.removesuffix("s")
    command = importlib.import_module(f"modelyard.commands.{module}")
    names = {
        one.name or one.callback.__name__.strip("_") for one in command.app.registered_commands
    }
    verbs = {name for name in vars(getattr(Client(), noun)) if not name.startswith("_")}

    assert verbs == names - _OTHERWISE.get(noun, set())


_SCRIPT = """
from modelyard import (
    Algorithm, Client, EarlyStopping, MetricPattern, Objective, Parameter, Resources, Run,
    RunFailedError, TrainingResult, train, tune,
)

mine = Algorithm(uri="digits", entry_point="train.py")
try:
    result = train(name="a", algorithm=mine, hyperparameters={"epochs": 5, "rate": 0.1},
                   metrics=[MetricPattern(name="accuracy")], resources=Resources(nodes=2))
    uri: str | None = result.model_uri
    page: str = result.url
except RunFailedError as error:
    if error.flow_run_id:
        result = train.retry(error.flow_run_id)
run: Run[TrainingResult] = train.start(name="a", algorithm=mine)
accuracy: float | None = run.result(60).metrics["accuracy"]
ended: bool = run.wait(timeout=1)
for line in run.logs(follow=True):
    print(line.upper())
best = tune(
    algorithm=mine, parameters=[Parameter(name="rate", type="double", min=0, max=1)],
    objective=[Objective(metric="accuracy", direction="maximize")],
    early_stopping=EarlyStopping(rule="median"), max_trials=3,
).best
with Client() as client:
    names: list[str] = [one.name for one in client.runs.list("train", limit=5)]
    client.models.alias("a", "champion", 1)
"""
_WRONG = """
from modelyard import Client, train
train(colour="blue")
train(name=5)
train().model_url
Client().runs.lift()
"""


@pytest.mark.integration
@pytest.mark.soak  # mypy reads all of Modelyard, without a cache
def test_a_callers_script_is_type_checked(tmp_path: Path) -> None:
    """Without pydantic's plugin, which a caller need not have."""
    (tmp_path / "right.py").write_text(_SCRIPT)
    (tmp_path / "wrong.py").write_text(_WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "right.py", "wrong.py"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    errors = [line.split(" error: ")[0] for line in done.stdout.splitlines() if " error: " in line]
    assert errors == ["wrong.py:3:", "wrong.py:4:", "wrong.py:5:", "wrong.py:6:"], done.stdout


def test_an_installation_ships_the_marker_of_types() -> None:
    builder = WheelBuilder(str(Path(str(modelyard.__file__)).parents[1]))
    shipped = {file.distribution_path for file in builder.recurse_included_files()}

    assert {f"{name}/py.typed" for name in ("modelyard", *packages.NAMES)} <= shipped
