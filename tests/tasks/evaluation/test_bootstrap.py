"""The paired bootstrap: figures of weighted rows, and intervals as wide as chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from tasks.evaluation import bootstrap
from tasks.evaluation.bootstrap import PairedSample

NAMES = ["a", "b", "c"]


def drawn(rows: int, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    targets = random.integers(0, 3, rows)
    raw = random.gamma(0.7, size=(rows, 3)) + np.eye(3)[targets]
    scores = np.floor(raw / raw.sum(axis=1, keepdims=True) * 20) / 20
    scores[:, -1] = np.abs(1 - scores[:, :-1].sum(axis=1))
    return targets, scores.argmax(axis=1), scores


def test_figures_of_weighted_classes_are_scikit_learns() -> None:
    targets, predictions, scores = drawn(200)
    weights = np.random.default_rng(1).integers(0, 4, 200).astype(float)

    found = bootstrap._classes(targets, predictions, scores, NAMES, 200)(weights, weights)

    hot, given = np.eye(3)[targets], {"sample_weight": weights}
    wanted = {
        "accuracy": oracle.accuracy_score(targets, predictions, **given),
        "f1": oracle.f1_score(targets, predictions, average="macro", **given),
        "recall_weighted": oracle.recall_score(targets, predictions, average="weighted", **given),
        "precision/b": oracle.precision_score(targets, predictions, average=None, **given)[1],
        "roc_auc": oracle.roc_auc_score(hot, scores, **given),
        "f1_micro": oracle.f1_score(targets, predictions, average="micro", **given),
        "roc_auc_micro": oracle.roc_auc_score(hot, scores, average="micro", **given),
        "pr_auc_micro": oracle.average_precision_score(hot, scores, average="micro", **given),
        "pr_auc": oracle.average_precision_score(hot, scores, **given),
        "log_loss": oracle.log_loss(targets, y_proba=scores, **given),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("scores", [1, 3, 1000], ids=["all alike", "many alike", "none alike"])
@pytest.mark.parametrize("rows", [1, 2, 300])
def test_areas_of_weighted_scores_are_scikit_learns(rows: int, scores: int) -> None:
    random = np.random.default_rng(rows)
    values, hot = random.integers(0, scores, rows) / scores, random.random(rows) < 0.3
    hot[0] = True
    weights = random.integers(0, 3, rows).astype(float)
    weights[0] = 1

    area, precision = bootstrap._Ranker(values[:, None], hot[:, None]).areas(weights)

    given = {"sample_weight": weights}
    assert precision == pytest.approx(oracle.average_precision_score(hot, values, **given))
    if weights[~hot].sum():
        assert area == pytest.approx(oracle.roc_auc_score(hot, values, **given))
    else:
        assert np.isnan(area)


def test_areas_without_rows_of_the_class_are_undefined() -> None:
    values, weights = np.array([[0.1], [0.2]]), np.array([0.0, 2.0])

    for hot in ([[False], [False]], [[True], [False]]):
        assert np.isnan(bootstrap._Ranker(values, np.array(hot)).areas(weights)).all()


def test_figures_of_weighted_numbers_are_scikit_learns() -> None:
    random = np.random.default_rng(2)
    targets = random.gamma(2, 3, 100)
    predictions = np.abs(targets + random.normal(0, 1, 100))
    weights = random.integers(0, 4, 100).astype(float)

    found = bootstrap._numbers(targets, predictions)(weights, weights)

    both, given = (targets, predictions), {"sample_weight": weights}
    assert found == pytest.approx(
        {
            "mae": oracle.mean_absolute_error(*both, **given),
            "mape": oracle.mean_absolute_percentage_error(*both, **given),
            "r2": oracle.r2_score(*both, **given),
            "rmse": oracle.root_mean_squared_error(*both, **given),
            "rmsle": oracle.root_mean_squared_log_error(*both, **given),
        },
        rel=1e-9,
    )


def regression(rows: int, noise: list[float], seed: int = 0) -> PairedSample:
    random = np.random.default_rng(seed)
    targets = random.normal(0, 5, rows)
    return PairedSample(
        targets, [targets + random.normal(0, one, rows) for one in noise], [None, None], rows
    )


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    sample = regression(2000, [1.0, 1.0])
    errors = np.abs(sample.targets - sample.predictions[0])

    first, _ = bootstrap.replicates(sample, None)

    low, high = bootstrap.interval(first["mae"]) or (0, 0)
    expected = 1.96 * errors.std() / np.sqrt(2000)
    assert (-low, high) == pytest.approx((expected, expected), rel=0.15)


def test_the_intervals_of_one_model_are_around_its_figures() -> None:
    targets, predictions, scores = drawn(400)
    sample = {"id": np.arange(400, dtype=np.uint64), "target": targets,
              "prediction": predictions, "probabilities": scores}  # fmt: skip
    accuracy = float((targets == predictions).mean())
    values = {"accuracy": accuracy, "roc_auc": None, "other": 0.5}
    calls: list[int] = []

    found = bootstrap.intervals(values, sample, 400, NAMES, lambda: calls.append(1))

    assert set(found) == {"accuracy"}
    expected = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 400)
    apart = np.array(found["accuracy"]) - accuracy
    assert apart == pytest.approx([-expected, expected], rel=0.2)
    assert len(calls) == 400
    of_more = bootstrap.intervals(values, sample, 40_000, NAMES, lambda: None)
    assert np.array(of_more["accuracy"]) - accuracy == pytest.approx(apart / 10)


def test_a_part_of_the_rows_gives_the_interval_of_all() -> None:
    whole = regression(20_000, [1.0, 1.0])
    part = PairedSample(
        whole.targets[:4000], [one[:4000] for one in whole.predictions], [None, None], 20_000
    )

    widths = []
    for sample in (whole, part):
        low, high = bootstrap.interval(bootstrap.replicates(sample, None, 300)[0]["rmse"]) or (
            0,
            0,
        )
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.25)


@pytest.mark.parametrize("total", [50, 120, 2_000_000])
def test_rows_are_drawn_alike_however_many(total: int) -> None:
    weights, overall = bootstrap._draw(np.random.default_rng(0), 50, total, 3)

    assert weights[:50].sum() == pytest.approx(total, rel=0.4)
    assert weights[:50].std() == pytest.approx(np.sqrt(total / 50), rel=0.4)
    assert (weights[50:] > 0).all()
    assert sorted(overall[50:] > 0) == [False, False, True]
    assert (overall[:50] == weights[:50]).all()


def of_two_classes(*predictions: Any) -> PairedSample:
    rows = len(predictions[0])
    return PairedSample(np.zeros(rows, int), list(predictions), [None] * len(predictions), rows)


@pytest.mark.parametrize(("rows", "wrong"), [(30, 0), (30, 1), (100, 5), (300, 30), (40, 40)])
def test_a_share_has_the_interval_of_clopper_and_pearson(rows: int, wrong: int) -> None:
    (drawn,) = bootstrap.replicates(of_two_classes(np.arange(rows) < wrong), ["a", "b"], 4000)

    right = rows - wrong
    exact = stats.binomtest(right, rows).proportion_ci(0.95, "exact")
    for metric in ("accuracy", "recall/a"):
        low, high = bootstrap.interval(drawn[metric]) or (0, 0)
        found = (right / rows + low, right / rows + high)
        assert found == pytest.approx((exact.low, exact.high), abs=0.008), metric


@pytest.mark.parametrize(("better", "worse"), [(4, 0), (6, 0), (9, 3)])
def test_a_difference_of_shares_is_mcnemars(better: int, worse: int) -> None:
    new, old = np.zeros(30, int), np.zeros(30, int)
    old[:better], new[better : better + worse] = 1, 1

    one, other = bootstrap.replicates(of_two_classes(new, old), ["a", "b"], 4000)

    not_better = (one["accuracy"] - other["accuracy"][::-1])[0] <= (worse - better) / 30
    exact = stats.binom.cdf(worse, better + worse, 0.5)
    assert not_better.mean() == pytest.approx(exact, abs=0.012)


def test_what_is_perfect_in_a_few_rows_is_not_sure() -> None:
    targets = np.arange(40) % 2
    perfect = PairedSample(targets, [targets], [np.eye(2)[targets]], 40)
    numbers = PairedSample(np.arange(40.0), [np.arange(40.0) + 1], [None], 40)

    (classes,) = bootstrap.replicates(perfect, ["a", "b"])
    (errors,) = bootstrap.replicates(numbers, None)

    for metric in ("roc_auc", "pr_auc/b", "f1", "f1_micro", "roc_auc_micro", "precision/a"):
        low, high = bootstrap.interval(classes[metric]) or (0, 0)
        assert -0.5 < low < -0.05, metric
        assert high == pytest.approx(0, abs=1e-12)
    assert bootstrap.interval(errors["mae"]) == pytest.approx((0, 0), abs=1e-12)  # each is 1


def test_pairs_are_of_rows_that_both_have() -> None:
    ids = np.array([3, 5, 8, 9], np.uint64)
    one = {"id": ids, "target": np.arange(4), "prediction": np.arange(4)}
    other = {"id": ids[1:], "target": np.arange(1, 4), "prediction": np.array([7, 8, 9])}

    found = bootstrap.pair([one, other], 3)

    assert found.targets.tolist() == [1, 2, 3]
    assert [part.tolist() for part in found.predictions] == [[1, 2, 3], [7, 8, 9]]
    assert found.probabilities == [None, None]


def test_a_figure_that_is_mostly_undefined_has_no_interval() -> None:
    assert bootstrap.interval(np.full(100, np.nan)) is None
    assert bootstrap.interval(np.empty(0)) is None
    assert bootstrap.interval(np.append(np.arange(99.0), np.nan)) is not None
