"""Forests that are quickened predict what scikit-learn does, to the last bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_runtime.models import forests
from modelyard_runtime.models.estimators import Estimator
from scipy import sparse
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = pytest.mark.filterwarnings("ignore:overflow", "ignore:X does not have valid")
KINDS = [ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor]
METHODS = {"predict", "predict_proba"}


def fitted(kind: Any, classes: int = 3, **options: Any) -> Any:
    chance = np.random.default_rng(classes)
    rows = chance.integers(0, 4, (60, 3)) / 2
    return kind(6, random_state=0, max_depth=3, **options).fit(
        rows, chance.integers(0, classes, 60)
    )


def quickened(forest: Any) -> Any:
    found = copy.deepcopy(forest)
    forests.quicken(found)
    return found


def outcome(forest: Any, method: str, rows: Any) -> Any:
    if not hasattr(forest, method):
        return None
    try:
        found = getattr(forest, method)(rows)
    except ValueError as error:
        return str(error)
    return found.dtype, found.shape, found.tobytes()


values = st.sampled_from([0, 0.5, 1, 1.5, -0.0, 0.25, 1e-9, 2**60 + 1, 1e39, np.nan, np.inf])


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    kind=st.sampled_from(KINDS), classes=st.integers(1, 4), n_jobs=st.sampled_from([None, 1]),
    rows=st.lists(st.lists(values, min_size=3, max_size=3), max_size=6),
    dtype=st.sampled_from(["f8", "f4", "f2", "i8", "?", "O", ">f8"]), odd=st.booleans(),
)  # fmt: skip
def test_numbers_are_the_same(
    kind: Any, classes: int, n_jobs: Any, rows: Any, dtype: str, odd: bool
) -> None:
    with np.errstate(all="ignore"):
        given_ = np.array(rows, "f8").reshape(-1, 3).astype(dtype)
    given_ = given_[:, :2] if odd else np.asfortranarray(given_)
    forest = fitted(kind, classes, n_jobs=n_jobs)
    quick = quickened(forest)

    assert vars(quick).keys() & METHODS
    for method in METHODS:
        assert outcome(quick, method, given_) == outcome(forest, method, given_)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_with_names_are_the_same(kind: Any) -> None:
    names = list("abc")
    rows = pd.DataFrame({"a": [0.5, 1], "b": [2**60 + 1, 1], "c": np.array([1, 2], "f4")})
    forest = kind(6, random_state=0).fit(rows, [1, 0])
    quick = quickened(forest)

    assert vars(quick).keys() & METHODS
    for given_ in (rows, rows[["b", "a", "c"]], rows.astype({"a": object}), rows.to_numpy()):
        for method in METHODS:
            assert outcome(quick, method, given_) == outcome(forest, method, given_)
    assert list(quick.feature_names_in_) == names


@pytest.mark.parametrize("kind", KINDS)
def test_the_forest_of_a_pipeline_is_quickened(kind: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    pipeline = make_pipeline(StandardScaler(), kind(6)).fit(rows, rows[:, 0] > 0)
    wanted = pipeline.predict(rows)
    Estimator(pipeline)

    assert vars(pipeline[-1]).keys() & METHODS
    assert pipeline.predict(rows).tolist() == wanted.tolist()


class Users(RandomForestClassifier):
    def predict_proba(self, X: Any) -> Any:
        return 1 - super().predict_proba(X)


def test_only_forests_of_scikit_learn_are_quickened() -> None:
    chance = np.random.default_rng(0)
    rows, two = chance.normal(size=(60, 3)), chance.integers(0, 2, (60, 2))
    for one in (fitted(Users), RandomForestClassifier(6).fit(rows, two), RandomForestClassifier()):
        forests.quicken(one)
        assert not vars(one).keys() & METHODS


def test_a_forest_whose_own_numbers_are_others_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forest = fitted(RandomForestClassifier)
    own = RandomForestClassifier.predict_proba
    monkeypatch.setattr(
        RandomForestClassifier, "predict_proba", lambda self, X: own(self, X) + 1e-12
    )
    forests.quicken(forest)
    assert not vars(forest).keys() & METHODS


@pytest.mark.parametrize(
    "rows",
    [[[0.5, 1, 1]], [["0.5", "1", "1"]], [0.5, 1, 1], sparse.csr_array([[0.5, 0, 1]]),
     np.array([[["0.5"]]]), pd.DataFrame([["0.5", 1, 1]]),
     pd.DataFrame([[1, 0, 1]], dtype="Int64")],
    ids=["floats", "texts", "flat", "sparse", "deep", "mixed", "extension"],
)  # fmt: skip
def test_rows_of_other_kinds_are_the_forest_s(rows: Any) -> None:
    forest = fitted(RandomForestClassifier)
    for method in METHODS:
        assert outcome(quickened(forest), method, rows) == outcome(forest, method, rows)


def test_jobs_share_many_rows() -> None:
    forest = quickened(fitted(RandomForestClassifier, n_jobs=2))
    asked: list[int] = []
    forest.predict_proba._own = lambda rows: asked.append(len(rows))
    for count in (1, 256, 257):
        forest.predict_proba(np.zeros((count, 3)))

    assert asked == [257]
    assert forest.n_jobs == 2
