from __future__ import annotations

import uuid
from typing import Any

import pytest

from infra.errors import ConflictError, ModelyardError, NotFoundError
from registry import (
    model_creation,
    runs,
    tracking,
)
from registry.models import Making
from registry.tracking import Opening
from tests.registry.trained import MakeRun

pytestmark = pytest.mark.usefixtures("mlflow")


def code(raised: pytest.ExceptionInfo[ModelyardError]) -> str:
    return raised.value.code


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch, run: MakeRun) -> dict[str, Any]:
    """What Prefect and MLflow tell of the run; the test may change it."""
    left = run()
    told = {
        "id": left.flow_run_id, "name": left.name, "flow": "train", "state": "COMPLETE",
        "result": {"mlflow_run_id": left.id},
    }  # fmt: skip
    monkeypatch.setattr(runs, "show", lambda key: told)
    return told


def test_the_model_is_called_as_the_run(name: str, prefect: dict[str, Any]) -> None:
    made = model_creation.from_run("key", Making("scikit-learn"))

    assert made["uri"] == f"models:/{name}/1"
    assert made["flow_run_id"] == prefect["id"]


def test_or_otherwise(name: str, prefect: dict[str, Any]) -> None:
    made = model_creation.from_run("key", Making("scikit-learn"), name=f"{name}-x")

    assert made["uri"] == f"models:/{name}-x/1"


@pytest.mark.parametrize("state", ["RUNNING", "FAIL TRAIN", "STOPPED", "CREATE REQUESTED"])
def test_only_a_complete_run(state: str, prefect: dict[str, Any]) -> None:
    prefect["state"] = state
    with pytest.raises(ConflictError) as raised:
        model_creation.from_run("key", Making("scikit-learn"))

    assert code(raised) == "RunNotComplete"


def test_only_a_training(prefect: dict[str, Any]) -> None:
    prefect["flow"] = "batch-inference"
    with pytest.raises(NotFoundError) as raised:
        model_creation.from_run("key", Making("scikit-learn"))

    assert code(raised) == "RunHasNoModel"


def test_only_one_that_left_a_model(prefect: dict[str, Any]) -> None:
    opening = Opening(str(uuid.uuid4()), "train", "empty", "Default", "", "me", {})
    empty = tracking.open_run(opening, retried=False).run_id
    for result in ({"mlflow_run_id": empty}, None):
        prefect["result"] = result
        with pytest.raises(NotFoundError) as raised:
            model_creation.from_run("key", Making("scikit-learn"))
        assert code(raised) == "RunHasNoModel"
