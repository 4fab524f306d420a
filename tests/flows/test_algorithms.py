"""The deployments of provided algorithms, each with a form of its own."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import is_valid_schema, validate

from flows import algorithms
from flows.training import train
from tasks import parameters, provided
from tasks.provided import ProvidedAlgorithm
from tasks.training.training_request import Training

DATASETS = [{"name": "train", "uri": "/data"}]


@pytest.fixture(params=provided.names())
def algorithm(request: pytest.FixtureRequest) -> ProvidedAlgorithm:
    return provided.load(request.param)


def _required(algorithm: ProvidedAlgorithm) -> dict[str, Any]:
    """The least that the form takes."""
    needed = {one.name: "class" for one in algorithm.hyperparameters if one.default is None}
    return {"datasets": DATASETS, "hyperparameters": needed}


def _refused(algorithm: ProvidedAlgorithm, given: dict[str, Any]) -> list[str]:
    found = validate(
        {"algorithm": {"provided": algorithm.name}, **_required(algorithm), **given},
        algorithms.form(algorithm), allow_none_with_default=True,
    )  # fmt: skip
    return [str(error.message) for error in found]


def test_it_has_every_hyperparameter_with_what_it_takes(algorithm: ProvidedAlgorithm) -> None:
    form = algorithms.form(algorithm)
    is_valid_schema(form)
    fields = form["properties"]["hyperparameters"]["properties"]

    assert set(fields) == {one.name for one in algorithm.hyperparameters}
    assert [field["position"] for field in fields.values()] == list(range(len(fields)))
    for one in algorithm.hyperparameters:
        assert one.description in fields[one.name]["description"]
        assert one.allowed in fields[one.name]["description"]
        assert "default" not in fields[one.name]  # else it would win over a template's value
    assert set(form["properties"]) == set(train.form["properties"])
    assert all(slot.description in form["properties"]["datasets"]["description"]
               for slot in algorithm.datasets)  # fmt: skip


def test_what_is_needed_is_required(algorithm: ProvidedAlgorithm) -> None:
    form = algorithms.form(algorithm)
    needed = [one.name for one in algorithm.hyperparameters if one.default is None]

    assert form["properties"]["hyperparameters"]["required"] == needed
    assert ("hyperparameters" in form["required"]) is bool(needed)
    assert "datasets" in form["required"]


def test_it_takes_what_a_run_takes(algorithm: ProvidedAlgorithm) -> None:
    chosen = {
        one.name: one.default for one in algorithm.hyperparameters if one.default is not None
    }
    least = _required(algorithm)["hyperparameters"]
    assert _refused(algorithm, {}) == []
    assert _refused(algorithm, {"hyperparameters": {**least, **chosen}}) == []
    given = {**_required(algorithm), "algorithm": {"provided": algorithm.name}}
    training = parameters.read(Training, given)
    assert algorithm.complete(training.hyperparameters) == {**chosen, **least}


@pytest.mark.parametrize(
    "given",
    [
        {"hyperparameters": {"target": "a", "seed": -1}},
        {"hyperparameters": {"target": "a", "learning_rate": 0}},
        {"hyperparameters": {"target": "a", "task": "guess"}},
        {"hyperparameters": {"target": "a", "odd": 1}},
        {"hyperparameters": {"seed": 1}},
        {"datasets": [{"name": "test", "uri": "/data"}]},
        {"algorithm": {"provided": "image-classifier"}},
        {"algorithm": {"uri": "/mine"}},
    ],
    ids=str,
)
def test_it_refuses_what_a_run_would(given: dict[str, Any]) -> None:
    assert len(_refused(provided.load("gradient-boosting"), given)) >= 1
