"""Runs side by side."""

from __future__ import annotations

from typing import Any

import pytest

from infra.errors import BadInputError
from infra.mlflow import Metric, MlflowException
from registry.runs import run_comparison, runs
from registry.runs.run_views import RunDetailView, RunResultView


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, RunDetailView]:
    known: dict[str, RunDetailView] = {}
    monkeypatch.setattr(runs, "show", known.__getitem__)
    return known


def run(name: str, mlflow_run_id: str | None = None, **parameters: Any) -> RunDetailView:
    return RunDetailView.model_construct(
        id=f"id-{name}", name=name, flow="train", state="COMPLETE", started=None, seconds=1.0,
        mlflow_run_id=mlflow_run_id, parameters={"name": name, **parameters},
    )  # fmt: skip


def test_parameters_that_differ_are_side_by_side(found: dict[str, RunDetailView]) -> None:
    found["a"] = run("a", hyperparameters={"epochs": 3, "lr": 0.1}, metrics=[{"name": "x"}])
    found["b"] = run("b", hyperparameters={"epochs": 9, "lr": 0.1}, metrics=[])
    found["c"] = run("c", hyperparameters={}, metrics=[{"name": "x"}], max_minutes=5)
    compared = run_comparison.compare(["a", "b", "c"])

    assert [one.id for one in compared.runs] == ["id-a", "id-b", "id-c"]
    assert compared.parameters == {
        "hyperparameters.epochs": [3, 9, None], "hyperparameters.lr": [0.1, 0.1, None],
        "hyperparameters": [None, None, {}],
        "metrics": [[{"name": "x"}], [], [{"name": "x"}]], "max_minutes": [None, None, 5],
    }  # fmt: skip


def test_metrics_are_those_that_any_has(
    found: dict[str, RunDetailView], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"1": {"loss": 0.5, "gain": 1.0}, "2": {"accuracy": 0.9, "loss": None}}

    def result(run_id: str) -> RunResultView:
        if run_id not in values:
            raise MlflowException("gone", "RESOURCE_DOES_NOT_EXIST", 404)
        return RunResultView(mlflow_run_id=run_id, model_uri=None, metrics=values[run_id])  # type: ignore[arg-type]

    class Client:
        def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
            return [Metric(key, float(run_id), 0, step) for step in (2, 0)]

    monkeypatch.setattr(run_comparison.tracking, "result", result)
    monkeypatch.setattr(run_comparison.tracking, "client", Client)
    found |= {"a": run("a", "1"), "b": run("b", "2"), "c": run("c"), "d": run("d", "deleted")}
    compared = run_comparison.compare(["a", "b", "c", "d"])

    assert list(compared.metrics.items()) == [
        ("accuracy", [None, 0.9, None, None]), ("gain", [1.0, None, None, None]),
        ("loss", [0.5, None, None, None]),
    ]  # fmt: skip
    assert run_comparison.curves(compared)["accuracy"] == [[], [(0, 2.0), (2, 2.0)], [], []]
    assert compared.parameters == {}


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "a"], ["a"] * 30])
def test_what_cannot_be_compared_is_refused(
    found: dict[str, RunDetailView], keys: list[str]
) -> None:
    found["a"] = run("a")
    with pytest.raises(BadInputError) as raised:
        run_comparison.compare(keys)

    assert raised.value.code == "RunsNotComparable"
