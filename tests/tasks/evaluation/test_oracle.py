"""Whole evaluations of files, compared with scikit-learn: metrics, matrix and curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from registry.evaluation_results import CURVES
from tasks.evaluation import bootstrap
from tasks.evaluation.regression_metrics import RegressionSums
from tests.tasks.evaluation.conftest import Evaluate

CLOSE = {"rel": 1e-9, "abs": 1e-9}
FIXTURES_STAY = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _few_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals are of chance, and take most of the time."""
    monkeypatch.setattr(bootstrap, "_OWN_REPLICATES", 2)


def drawn(seed: int, rows: int, classes: int, digits: int) -> tuple[Any, Any, Any]:
    """Targets of unequal classes, predictions and probabilities with ties; every class occurs."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(classes, 2.0))
    targets = np.concatenate([np.arange(classes), random.choice(classes, rows, p=shares)])
    random.shuffle(targets)
    # Whole parts of a sum, so that many probabilities are equal, and some are 0 or 1.
    raw = random.dirichlet(np.full(classes, 0.5), len(targets)) + np.eye(classes)[targets] * 0.3
    cells = [random.multinomial(10**digits, row / row.sum()) for row in raw]
    probabilities = np.array(cells) / 10**digits
    predictions = np.where(
        random.random(len(targets)) < 0.9,
        probabilities.argmax(axis=1),
        random.integers(0, classes, len(targets)),
    )
    return targets, predictions, probabilities


def of_scikit_learn(
    targets: Any, predictions: Any, probabilities: Any, names: list[str]
) -> dict[str, float | None]:
    labels, hot = range(len(names)), np.eye(len(names))[targets]
    found = {
        "accuracy": oracle.accuracy_score(targets, predictions),
        "log_loss": oracle.log_loss(targets, y_proba=probabilities, labels=labels),
    }
    for suffix, average in {"": "macro", "_micro": "micro", "_weighted": "weighted"}.items():
        found[f"roc_auc{suffix}"] = oracle.roc_auc_score(hot, probabilities, average=average)
        found[f"pr_auc{suffix}"] = oracle.average_precision_score(
            hot, probabilities, average=average
        )
        for name in ("recall", "f1"):
            found[f"{name}{suffix}"] = getattr(oracle, f"{name}_score")(
                targets, predictions, labels=labels, average=average, zero_division=np.nan
            )
        found[f"precision{suffix}"] = oracle.precision_score(
            targets, predictions, average=average, zero_division=0
        )  # of classes that occur or were predicted
    for at, name in enumerate(names):
        found[f"roc_auc/{name}"] = oracle.roc_auc_score(hot[:, at], probabilities[:, at])
        found[f"pr_auc/{name}"] = oracle.average_precision_score(hot[:, at], probabilities[:, at])
        for metric in ("precision", "recall", "f1"):
            found[f"{metric}/{name}"] = getattr(oracle, f"{metric}_score")(
                targets == at, predictions == at, zero_division=np.nan
            )
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


def check_curve(found: dict[str, Any], is_class: Any, scores: Any) -> None:
    """Check that each point of a curve is one of scikit-learn's, and both ends are there."""
    false, true, thresholds = oracle.roc_curve(is_class, scores, drop_intermediate=False)
    precision, recall, cuts = oracle.precision_recall_curve(is_class, scores)
    rates = {cut: pair for cut, *pair in zip(thresholds, false, true, strict=True)}
    both = {cut: pair for cut, *pair in zip(cuts, precision, recall, strict=False)}
    assert found["positives"] == np.count_nonzero(is_class)
    assert found["negatives"] == np.count_nonzero(~is_class)
    points = zip(
        found["thresholds"], found["true_positives"], found["false_positives"], strict=True
    )
    for cut, hits, alarms in points:
        assert [alarms / found["negatives"], hits / found["positives"]] == pytest.approx(
            rates[cut], **CLOSE
        )
        own = [hits / (hits + alarms), hits / found["positives"]]
        assert own == pytest.approx(both[cut], **CLOSE)
    assert (hits, alarms) == (found["positives"], found["negatives"])
    if max(found["positives"], found["negatives"]) <= 500:  # else some are left out
        assert found["thresholds"] == cuts[::-1].tolist()


@pytest.mark.parametrize("classes", [2, 3, 50])
@FIXTURES_STAY
@given(seed=st.integers(0, 2**32), digits=st.integers(1, 4))
def test_classifications(
    evaluate: Evaluate, tmp_path: Path, classes: int, seed: int, digits: int
) -> None:
    targets, predictions, probabilities = drawn(seed, 150, classes, digits)
    names = [f"class {at}" for at in range(classes)]
    text = "x,y\n" + "".join(f"1,{names[one]}\n" for one in targets)
    results = {
        at: {"prediction": names[one], "probabilities": row}
        for at, (one, row) in enumerate(
            zip(predictions.tolist(), probabilities.tolist(), strict=True)
        )
    }

    found = evaluate({"a.csv": (text, results)}, class_names=names)

    wanted = of_scikit_learn(targets, predictions, probabilities, names)
    assert found["metrics"] == pytest.approx(wanted, **CLOSE)
    matrix = oracle.confusion_matrix(targets, predictions, labels=range(classes))
    assert np.array(found["confusion_matrix"]["counts"])[:, :-1].tolist() == matrix.tolist()
    curves = json.loads((tmp_path / "evaluation" / CURVES).read_bytes())
    for at, name in enumerate(names):
        check_curve(curves["classes"][name], targets == at, probabilities[:, at])
    hot = np.eye(classes, dtype=bool)[targets]
    check_curve(curves["micro"], hot.ravel(), probabilities.ravel())


@FIXTURES_STAY
@given(seed=st.integers(0, 2**32), scale=st.integers(-6, 8), is_signed=st.booleans())
def test_regressions(evaluate: Evaluate, seed: int, scale: int, is_signed: bool) -> None:
    random = np.random.default_rng(seed)
    targets = np.round(random.gamma(0.5, 10, 300) + 0.1, 1) * 10.0**scale
    predictions = np.abs(targets * random.choice([0.5, 1, 1, 2], 300))
    if is_signed:
        targets *= random.choice([-1, 1], 300)
    text = "".join(json.dumps({"y": one}) + "\n" for one in targets.tolist())

    found = evaluate(
        {"a.jsonl": (text, dict(enumerate(predictions.tolist())))},
        task="regression", class_names=[],
    )  # fmt: skip

    wanted = {
        "mae": oracle.mean_absolute_error(targets, predictions),
        "mape": oracle.mean_absolute_percentage_error(targets, predictions),
        "r2": oracle.r2_score(targets, predictions),
        "rmse": oracle.root_mean_squared_error(targets, predictions),
        "rmsle": None if is_signed
        else oracle.root_mean_squared_log_error(targets, predictions),
    }  # fmt: skip
    assert found["metrics"] == pytest.approx(wanted, rel=1e-9)
    if is_signed:
        assert "targets are below 0" in found["undefined"]["rmsle"]


@given(
    pairs=st.lists(
        st.tuples(*2 * [st.integers(0, 3) | st.integers(0, 10**8)]),
        min_size=2,
        max_size=60,
    ),
    batch=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_regressions_of_any_values(pairs: list[tuple[int, int]], batch: int) -> None:
    targets, predictions = np.array(pairs).T / 100
    sums = RegressionSums()
    for at in range(0, len(targets), batch):
        sums.add(targets[at : at + batch], predictions[at : at + batch])

    found = sums.figures().values

    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(targets, predictions), **CLOSE)
    assert found["rmse"] == pytest.approx(
        oracle.root_mean_squared_error(targets, predictions), **CLOSE
    )
    wanted = oracle.root_mean_squared_log_error(targets, predictions)
    assert found["rmsle"] == pytest.approx(wanted, **CLOSE)
    assert (found["r2"] is None) == (len(set(targets.tolist())) == 1)
    if found["r2"] is not None:
        assert found["r2"] == pytest.approx(oracle.r2_score(targets, predictions), **CLOSE)
