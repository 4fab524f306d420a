"""Figures of classifications, compared with scikit-learn's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from tasks.evaluation import classification_metrics, score_sorting
from tasks.evaluation.classification_metrics import ClassificationResult, ClassificationSums

NAMES = ["a", "b", "c", "d"]


def results(
    tmp_path: Path,
    targets: Any,
    predictions: Any,
    probabilities: Any,
    names: list[str] = NAMES,
    slices: Any = None,
    count: int = 1,
    batch: int = 7,
) -> list[ClassificationResult]:
    targets, predictions = np.array(targets, int), np.array(predictions, int)
    slices = np.zeros(len(targets), int) if slices is None else np.array(slices)
    with ClassificationSums(names, count, tmp_path, lambda: None) as sums:
        for at in range(0, len(targets), batch):
            own = slice(at, at + batch)
            scores = None if probabilities is None else np.array(probabilities, float)[own]
            sums.add(targets[own], predictions[own], scores, slices[own])
        return sums.results()


def drawn(rows: int, classes: int = 4, digits: int | None = None, seed: int = 0) -> Any:
    """Targets, predictions and probabilities; with few digits many of these are equal."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, rows)
    raw = random.gamma(0.7, size=(rows, classes)) + np.eye(classes)[targets] * 0.7
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    if digits is not None:
        probabilities = np.floor(probabilities * 10**digits) / 10**digits
        probabilities[:, -1] = np.abs(1 - probabilities[:, :-1].sum(axis=1))
    return targets, probabilities.argmax(axis=1), probabilities


@pytest.fixture(params=[None, 40, 400], ids=["in memory", "many runs", "some runs"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that are sorted in memory, or in runs of few rows that are read in small blocks."""
    if request.param:
        monkeypatch.setattr(score_sorting, "_LEAST_BLOCK", 5)
        monkeypatch.setattr(score_sorting, "_MERGED", 50)
        given = score_sorting.ScoreSorter

        def small(classes: int, folder: Path, check_over: Any, rows: int) -> Any:
            return given(classes, folder, check_over, rows, held=request.param)

        monkeypatch.setattr(classification_metrics, "ScoreSorter", small)


def expected(targets: Any, predictions: Any, probabilities: Any, classes: int) -> dict[str, float]:
    labels = range(classes)
    hot = np.eye(classes)[targets]
    found = {"accuracy": oracle.accuracy_score(targets, predictions)}
    for average in ("macro", "micro", "weighted", None):
        suffix = "" if average == "macro" else f"_{average}"
        scores = {
            "roc_auc": oracle.roc_auc_score(hot, probabilities, average=average),
            "pr_auc": oracle.average_precision_score(hot, probabilities, average=average),
        }
        for name in ("precision", "recall", "f1"):
            scores[name] = getattr(oracle, f"{name}_score")(
                targets, predictions, labels=labels, average=average, zero_division=np.nan
            )
        for name, value in scores.items():
            if average is None:
                found |= {f"{name}/{NAMES[at]}": one for at, one in enumerate(value)}
            else:
                found[f"{name}{suffix}"] = value
    found["log_loss"] = oracle.log_loss(targets, y_proba=probabilities, labels=labels)
    return found


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("digits", [None, 2, 1])
@pytest.mark.parametrize("rows", [40, 997])
def test_every_figure_is_scikit_learns(tmp_path: Path, rows: int, digits: int | None) -> None:
    data = drawn(rows, digits=digits, seed=rows)

    found = results(tmp_path, *data)[-1].figures

    assert found.values == pytest.approx(expected(*data, 4), rel=1e-9, abs=1e-9)
    assert not found.undefined
    assert not list(tmp_path.iterdir())


def test_two_classes(tmp_path: Path) -> None:
    targets, predictions, probabilities = drawn(500, 2, digits=2)

    found = results(tmp_path, targets, predictions, probabilities, NAMES[:2])[-1].figures.values

    wanted = expected(targets, predictions, probabilities, 2)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    own = oracle.roc_auc_score(targets, probabilities[:, 1])
    assert found["roc_auc/b"] == pytest.approx(own, rel=1e-9)


def test_the_counts_are_the_confusion_matrix_with_a_column_for_no_class(tmp_path: Path) -> None:
    found = results(tmp_path, [0, 0, 1, 2], [0, -1, 1, 1], None)[-1]

    assert found.matrix.tolist() == [
        [1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0],
    ]  # fmt: skip
    assert found.figures.values["recall/a"] == 0.5
    assert found.figures.values["precision_micro"] == pytest.approx(2 / 3)


@pytest.mark.usefixtures("held")
def test_curves_have_the_points_of_scikit_learns(tmp_path: Path) -> None:
    targets, predictions, probabilities = drawn(300, digits=2)

    curve = results(tmp_path, targets, predictions, probabilities)[-1].curves[1]

    is_class = targets == 1
    false, true, thresholds = oracle.roc_curve(
        is_class, probabilities[:, 1], drop_intermediate=False
    )
    assert curve.thresholds == pytest.approx(thresholds[1:])
    assert curve.hits / curve.positives == pytest.approx(true[1:])
    assert curve.false_alarms / curve.negatives == pytest.approx(false[1:])
    precision, _, at = oracle.precision_recall_curve(is_class, probabilities[:, 1])
    own = curve.hits / (curve.hits + curve.false_alarms)
    shown = {round(one, 12): value for one, value in zip(at, precision[:-1], strict=True)}
    for threshold, value in zip(curve.thresholds, own, strict=True):
        assert shown[round(threshold, 12)] == pytest.approx(value)


def test_a_long_curve_keeps_few_points_all_of_which_are_exact(tmp_path: Path) -> None:
    targets, predictions, probabilities = drawn(50_000)

    curve = results(tmp_path, targets, predictions, probabilities, batch=9_000)[-1].curves[0]

    assert 500 < len(curve.thresholds) <= 1001
    for at in (0, 300, -1):
        chosen = probabilities[:, 0] >= curve.thresholds[at]
        assert curve.hits[at] == np.count_nonzero(chosen & (targets == 0))
        assert curve.false_alarms[at] == np.count_nonzero(chosen & (targets != 0))
    assert curve.hits[-1] == curve.positives


@pytest.mark.usefixtures("held")
def test_slices_have_the_figures_of_their_rows_alone(tmp_path: Path) -> None:
    targets, predictions, probabilities = drawn(600, digits=2)
    slices = np.random.default_rng(1).integers(0, 3, 600)

    found = results(tmp_path, targets, predictions, probabilities, slices=slices, count=3)

    for number in range(3):
        own = slices == number
        wanted = expected(targets[own], predictions[own], probabilities[own], 4)
        assert found[number].figures.values == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    wanted = expected(targets, predictions, probabilities, 4)
    assert found[-1].figures.values == pytest.approx(wanted, rel=1e-9, abs=1e-9)


class TestUndefined:
    def test_classes_that_never_occur_are_left_out_of_means_and_named(
        self, tmp_path: Path
    ) -> None:
        targets, predictions, probabilities = drawn(200, 2)
        wide = np.hstack([probabilities, np.zeros((200, 2))])

        found = results(tmp_path, targets, predictions, wide)[-1].figures

        for name in ("precision", "recall", "f1"):
            of_two = getattr(oracle, f"{name}_score")(
                targets, predictions, labels=range(4), average="macro", zero_division=np.nan
            )
            assert found.values[name] == pytest.approx(of_two, rel=1e-9)
            assert found.notes[name].endswith("undefined: c, d.")
        assert found.values["roc_auc"] == pytest.approx(
            oracle.roc_auc_score(np.eye(2)[targets], probabilities), rel=1e-9
        )
        assert found.values["roc_auc/c"] is None
        assert found.undefined["roc_auc/c"] == "No row is of the class."

    def test_a_class_that_is_never_predicted_counts_nothing_in_the_means(
        self, tmp_path: Path
    ) -> None:
        targets, predictions, probabilities = drawn(200, 4)
        predictions = np.where(predictions == 2, 0, predictions)

        found = results(tmp_path, targets, predictions, probabilities)[-1].figures

        assert found.values["precision/c"] is None
        assert found.undefined["precision/c"] == "The class was never predicted."
        for suffix in ("macro", "weighted"):
            name = "precision" if suffix == "macro" else f"precision_{suffix}"
            assert found.values[name] == pytest.approx(
                oracle.precision_score(
                    targets, predictions, labels=range(4), average=suffix, zero_division=0
                ),
                rel=1e-9,
            )
            assert found.notes[name] == "Classes that occur and were never predicted count 0: c."

    def test_one_class_alone_has_no_roc(self, tmp_path: Path) -> None:
        probabilities = [[0.7, 0.3], [0.4, 0.6]]

        found = results(tmp_path, [0, 0], [0, 1], probabilities, NAMES[:2])[-1].figures

        assert found.values["roc_auc"] is None
        assert found.undefined["roc_auc"] == "It is undefined for every class."
        assert found.undefined["roc_auc/a"] == "Every row is of the class."
        assert found.values["pr_auc"] == 1
        assert found.values["accuracy"] == 0.5

    def test_probabilities_that_are_none(self, tmp_path: Path) -> None:
        targets, predictions, probabilities = drawn(50)
        probabilities[3] *= 1.01

        found = results(tmp_path, targets, predictions, probabilities)[-1].figures

        assert found.values["log_loss"] is None
        assert found.undefined["log_loss"].startswith("The probabilities of 1 rows are off")
        assert found.values["roc_auc"] is not None

    def test_a_missing_probability(self, tmp_path: Path) -> None:
        targets, predictions, probabilities = drawn(50)
        probabilities[3, 1] = np.nan

        found = results(tmp_path, targets, predictions, probabilities)[-1].figures

        for name in ("log_loss", "roc_auc", "pr_auc_micro", "pr_auc/a"):
            assert found.undefined[name].startswith("1 rows have no number")
        assert found.values["f1"] is not None

    def test_a_model_without_probabilities(self, tmp_path: Path) -> None:
        found = results(tmp_path, [0, 1], [0, 1], None)[-1].figures

        assert found.undefined["log_loss"] == "The model has no probabilities."
        assert found.undefined["roc_auc"] == "The model has no probabilities."

    def test_no_rows(self, tmp_path: Path) -> None:
        found = results(tmp_path, [], [], [])[-1].figures

        assert set(found.values.values()) == {None}
        assert found.undefined["accuracy"] == "There are no rows."
