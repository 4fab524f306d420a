"""Comparison of evaluations: what differs beyond chance, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import ModelyardError
from tasks.evaluation import comparison, evaluating, row_sample
from tasks.evaluation.comparison import EvaluationRecord
from tasks.evaluation.evaluation_request import Evaluation
from tasks.evaluation.joined_records import JoinedBatch
from tasks.evaluation.scoring import Scorer

ROWS = 800
TARGETS = np.random.default_rng(0).integers(0, 2, ROWS)


def record(
    tmp_path: Path, name: str, skill: float, seed: int = 1, names: tuple[str, ...] = ("0", "1")
) -> EvaluationRecord:
    """An evaluation of a model that knows the classes the better the more skill it has."""
    noise = np.random.default_rng(seed).normal(size=ROWS)
    score = 1 / (1 + np.exp(-(skill * (2 * TARGETS - 1) + noise)))
    both = np.stack([1 - score, score] if names[0] == "0" else [score, 1 - score], axis=1)
    request = Evaluation(class_names=names, target_field="y")
    with Scorer(request, tmp_path, lambda: None) as scorer:
        rows = np.arange(ROWS)
        said = (score > 0.5).astype(int)
        batch = JoinedBatch(rows, TARGETS, None, np.full(ROWS, True), said, both)
        scorer.add("a.csv", [batch])
        scores = scorer.scores()
    data = {"uri": "/in", "format": "csv", "files": [], "sha256": "d" * 64}
    described = {"model": f"models:/{name}/1", "flow_run_id": name, "data": data}
    result = evaluating.write(scores, described, request, tmp_path / name)
    sample = row_sample.read(tmp_path / name / "sample.npz")
    return EvaluationRecord(name, name, result, scores.curves, sample)


def test_a_better_model_is_better_and_one_of_equal_skill_differs_by_chance(
    tmp_path: Path,
) -> None:
    made = [
        record(tmp_path, "old", 0.5),
        record(tmp_path, "new", 1.5),
        record(tmp_path, "tie", 0.5, 5),
    ]

    found = comparison.compare(made)

    for name in ("roc_auc", "accuracy", "log_loss", "f1/1"):
        better, tie = found["metrics"][name]["differences"]
        assert (better["verdict"], tie["verdict"]) == ("better", "by chance"), name
        assert tie["low"] < tie["difference"] < tie["high"]
    assert (
        comparison.compare(made[1::-1])["metrics"]["log_loss"]["differences"][0]["verdict"]
        == "worse"
    )
    for name, metric in found["metrics"].items():
        assert metric["differences"][0]["low"] is not None, name
    assert found["evaluations"][0]["model"] == "models:/old/1"
    assert found["remarks"] == []


def test_the_order_of_classes_does_not_matter(tmp_path: Path) -> None:
    one = record(tmp_path, "one", 1)
    alike, other = (record(tmp_path, "other", 1, names=tuple(names)) for names in ("01", "10"))

    found = comparison.compare([one, alike, other])["metrics"]

    for name in ("roc_auc", "recall/1", "log_loss", "pr_auc/0"):
        wanted, difference = found[name]["differences"]
        assert difference["difference"] == pytest.approx(0, abs=1e-9)
        assert difference["low"] < 0 < difference["high"]
        assert difference["low"] == pytest.approx(wanted["low"])
        assert difference["verdict"] == "by chance"


def test_an_undefined_metric_has_no_difference(tmp_path: Path) -> None:
    one, other = record(tmp_path, "one", 1), record(tmp_path, "other", 1)
    other.result["metrics"]["log_loss"] = None  # type: ignore[index]
    other.result["counts"]["evaluated"] -= 5

    found = comparison.compare([one, other])

    assert found["metrics"]["log_loss"]["differences"][0]["verdict"] == "unknown"
    assert "differently many records" in found["remarks"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"sha256": "e" * 64}}, "the data of one and other differ"),
        ({"targets_sha256": "e" * 64}, "the true values of one and other differ"),
        ({"target_field": "z"}, "the target field of one and other differ: y and z"),
        ({"class_names": ["0", "2"]}, "the classes of one and other differ"),
        ({"task": "regression"}, "the task of one and other differ"),
    ],
)
def test_evaluations_that_differ_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    one = record(tmp_path, "one", 1)
    other = replace(one, name="other", result={**one.result, **change})

    with pytest.raises(ModelyardError, match=said) as raised:
        comparison.compare([one, other])

    assert raised.value.code == "EvaluationsNotComparable"


def test_one_evaluation_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ModelyardError) as raised:
        comparison.compare([record(tmp_path, "one", 1)])

    assert raised.value.code == "EvaluationsNotComparable"
