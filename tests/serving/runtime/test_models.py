"""A real model of each kind predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas as pd
import pytest
from modelyard_runtime.frames import Columns, objects
from modelyard_runtime.models.base import INPUT, ModelError
from modelyard_runtime.models.loading import load
from onnx import TensorProto, helper
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from tests.registry import model_files

ROWS = np.random.default_rng(0).normal(size=(40, 3))
LABELS = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)
NAMES = ["a", "b", "c"]
Save = Callable[[Path], object]


def _columns(array: np.ndarray[Any, Any] = ROWS, names: list[str] = NAMES) -> Columns:
    return {name: array[:, at] for at, name in enumerate(names)}


def _estimator(folder: Path, estimator: Any) -> Any:
    joblib.dump(estimator, folder / "model.joblib")
    return load(folder, {})


def test_a_classifier_gives_probabilities(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(ROWS, np.where(LABELS, "yes", "no"))

    found = _estimator(tmp_path, fitted).infer({INPUT: ROWS})

    assert found["prediction"].tolist() == fitted.predict(ROWS).tolist()
    assert np.array_equal(found["probabilities"], fitted.predict_proba(ROWS))


@pytest.mark.parametrize("classes", [[0, 1], ["no", "yes"]])
def test_a_forest_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: list[Any]
) -> None:
    fitted = RandomForestClassifier(5, random_state=0).fit(ROWS, np.array(classes)[LABELS])
    model = _estimator(tmp_path, fitted)
    expected = fitted.predict(ROWS).tolist()
    asked: list[int] = []
    forest: Any = model._estimator
    original = forest.predict_proba
    monkeypatch.setattr(forest, "predict_proba", lambda X: asked.append(1) or original(X))

    assert model.infer({INPUT: ROWS})["prediction"].tolist() == expected
    assert asked == [1]


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(max_depth=2),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        LogisticRegression(),
        LogisticRegression(solver="liblinear"),
        GaussianNB(),
        MLPClassifier((4,), max_iter=20),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_likeliest_class_is_not_computed_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: Any, classes: int
) -> None:
    labels = np.array(["a", "b", "c"])[np.arange(40) % classes]
    if isinstance(estimator, LogisticRegression) and estimator.solver == "liblinear":
        labels = np.where(labels == "c", "a", labels)  # which it takes two of
    fitted = clone(estimator).fit(ROWS, labels)
    model = _estimator(tmp_path, fitted)
    wanted = fitted.predict(ROWS)
    monkeypatch.setattr(type(fitted), "predict", None)

    found = model.infer({INPUT: ROWS})["prediction"]

    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("estimator", "rows", "labels"),
    [
        (MLPClassifier((4,), max_iter=5), ROWS, np.column_stack([LABELS, 1 - LABELS])),
        (SVC(probability=True, random_state=0), ROWS[:, :1], LABELS),
    ],
    ids=["of several labels", "fitted apart"],
)
@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::FutureWarning"
)
def test_another_prediction_than_the_likeliest_class_stays(
    tmp_path: Path, estimator: Any, rows: Any, labels: Any
) -> None:
    fitted = clone(estimator).fit(rows, labels)

    found = _estimator(tmp_path, fitted).infer({INPUT: rows})

    assert found["prediction"].tolist() == fitted.predict(rows).tolist()
    assert "probabilities" in found


def test_a_near_tie_is_predicted_by_the_estimator(tmp_path: Path) -> None:
    fitted = LogisticRegression(tol=1e-9).fit([[-1.0], [1.0]], [0, 1])
    fitted.intercept_ = np.zeros(1)
    rows = np.array([[1e-17], [-1e-17]])

    found = _estimator(tmp_path, fitted).infer({INPUT: rows})

    assert found["probabilities"].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert found["prediction"].tolist() == fitted.predict(rows).tolist() == [1, 0]


def test_several_targets_have_no_probabilities(tmp_path: Path) -> None:
    fitted = RandomForestClassifier(3).fit(ROWS, np.column_stack([LABELS, 1 - LABELS]))

    found = _estimator(tmp_path, fitted).infer({INPUT: ROWS})

    assert set(found) == {"prediction"}
    assert found["prediction"].shape == (40, 2)


def test_features_are_found_by_name(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(pd.DataFrame(ROWS, columns=NAMES), ROWS @ [1, 10, 100])
    model = _estimator(tmp_path, fitted)
    shuffled = {"id": objects(["x"] * 40), **_columns(ROWS[:, ::-1], NAMES[::-1])}

    expected = ROWS @ [1, 10, 100]
    assert np.allclose(model.infer(shuffled)["prediction"], expected)
    assert np.allclose(model.infer({INPUT: ROWS})["prediction"], expected)


def test_an_estimator_without_names_takes_the_fields_in_their_order(tmp_path: Path) -> None:
    model = _estimator(tmp_path, LinearRegression().fit(ROWS, ROWS @ [1, 10, 100]))

    assert np.allclose(model.infer(_columns())["prediction"], ROWS @ [1, 10, 100])


def test_texts_reach_a_pipeline_as_a_data_frame(tmp_path: Path) -> None:
    table = pd.DataFrame({"city": ["Seoul", "Busan"] * 20, "size": range(40)})
    encode = make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough")
    fitted = make_pipeline(encode, LogisticRegression()).fit(table, [0, 1] * 20)

    inputs = {"size": np.arange(2), "city": objects(["Busan", "Seoul"])}

    assert _estimator(tmp_path, fitted).infer(inputs)["prediction"].tolist() == [1, 0]


@pytest.mark.parametrize("name", [INPUT, "text"])
def test_texts_reach_a_vectorizer_one_by_one(tmp_path: Path, name: str) -> None:
    texts = ["a good film", "bad", "good", "a bad film"] * 5
    fitted = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5)

    found = _estimator(tmp_path, fitted).infer({name: objects(["bad film", "good"])})

    assert found["prediction"].tolist() == [0, 1]
    assert found["probabilities"].shape == (2, 2)


def test_missing_values_reach_a_pipeline_that_imputes_them(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"city": ["Seoul", "Busan", None, "Busan"] * 10, "size": [1, 2, 3, None] * 10}
    )
    encode = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    columns = make_column_transformer((encode, ["city"]), (SimpleImputer(), ["size"]))
    fitted = make_pipeline(columns, LogisticRegression()).fit(table, [0, 1, 0, 1] * 10)

    inputs = {"city": objects(["Seoul", None]), "size": np.array([np.nan, 2.0])}
    found = _estimator(tmp_path, fitted).infer(inputs)

    wanted = fitted.predict_proba(pd.DataFrame({"city": ["Seoul", None], "size": [None, 2.0]}))
    assert np.allclose(found["probabilities"], wanted)


@pytest.mark.parametrize(
    "estimator", [IsolationForest(n_estimators=3), KMeans(2, n_init=1), GaussianMixture(2)]
)
def test_outliers_and_clusters_are_predicted(tmp_path: Path, estimator: Any) -> None:
    fitted = estimator.fit(ROWS)

    found = _estimator(tmp_path, fitted).infer({INPUT: ROWS})

    assert found["prediction"].tolist() == fitted.predict(ROWS).tolist()


@pytest.mark.parametrize(
    ("named", "inputs", "message"),
    [
        (True, {"a": ROWS[:, 0], "d": ROWS[:, 1]}, "takes the features a, b, c; the rows have no"),
        (True, {INPUT: ROWS[:, :2]}, "takes 3 features, and the rows have 2"),
        (False, {INPUT: ROWS[:, :2]}, "takes 3 features, and the rows have 2"),
        (False, {"a": ROWS[:, 0]}, "takes 3 features and knows no names; the rows have 1"),
        (False, {INPUT: objects(["text"])}, "takes numbers; a row has 'text'"),
    ],
)
def test_other_features_are_refused(
    tmp_path: Path, named: bool, inputs: Columns, message: str
) -> None:
    data = pd.DataFrame(ROWS, columns=NAMES) if named else ROWS
    model = _estimator(tmp_path, LinearRegression().fit(data, LABELS))

    with pytest.raises(ModelError, match=message):
        model.infer(inputs)


@pytest.mark.parametrize("named", [True, False])
def test_xgboost(tmp_path: Path, named: bool) -> None:
    import xgboost

    data = pd.DataFrame(ROWS, columns=NAMES) if named else ROWS
    fitted = xgboost.XGBClassifier(n_estimators=5).fit(data, LABELS)
    fitted.save_model(tmp_path / "model.json")

    found = load(tmp_path, {}).infer(_columns(ROWS[:, ::-1], NAMES[::-1]) if named else _columns())

    assert found["prediction"].tolist() == fitted.predict(data).tolist()
    assert np.allclose(found["probabilities"], fitted.predict_proba(data))


def test_texts_of_numbers_are_numbers_for_a_booster(tmp_path: Path) -> None:
    import xgboost

    data = pd.DataFrame(ROWS, columns=NAMES)
    fitted = xgboost.XGBRegressor(n_estimators=5).fit(data, ROWS[:, 0])
    fitted.save_model(tmp_path / "model.ubj")
    model, texts = load(tmp_path, {}), [str(one) for one in ROWS[:, 0]]

    found = model.infer(_columns() | {"a": objects(texts)})

    assert np.allclose(found["prediction"], fitted.predict(data))
    with pytest.raises(ModelError, match=r"takes numbers: .* to float: 'unknown'"):
        model.infer(_columns() | {"a": objects(["unknown", *texts[1:]])})


def test_an_xgboost_regressor(tmp_path: Path) -> None:
    import xgboost

    fitted = xgboost.XGBRegressor(n_estimators=5).fit(ROWS, ROWS[:, 0])
    fitted.save_model(tmp_path / "model.ubj")

    found = load(tmp_path, {}).infer({INPUT: ROWS})

    assert list(found) == ["prediction"]
    assert np.allclose(found["prediction"], fitted.predict(ROWS))


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm(tmp_path: Path, classes: int) -> None:
    import lightgbm

    labels = np.arange(40) % classes
    fitted = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(ROWS, labels)
    fitted.booster_.save_model(tmp_path / "model.txt")

    found = load(tmp_path, {}).infer({INPUT: ROWS})

    assert np.allclose(found["probabilities"], fitted.predict_proba(ROWS))
    assert found["prediction"].tolist() == fitted.predict(ROWS).tolist()


def test_catboost(tmp_path: Path) -> None:
    catboost = pytest.importorskip("catboost")
    untrained = catboost.CatBoostClassifier(iterations=3, verbose=False, allow_writing_files=False)
    fitted = untrained.fit(ROWS, LABELS)
    fitted.save_model(str(tmp_path / "model.cbm"))

    found = load(tmp_path, {}).infer({INPUT: ROWS})

    assert np.allclose(found["probabilities"], fitted.predict_proba(ROWS))
    assert found["prediction"].tolist() == fitted.predict(ROWS).reshape(-1).tolist()


def test_onnx(tmp_path: Path) -> None:
    model_files.onnx_file(tmp_path, "m")

    found = load(tmp_path, {}).infer({INPUT: np.ones((2, 1))})

    assert list(found) == ["prediction"]
    assert len(found["prediction"]) == 2


def _onnx(folder: Path, nodes: list[Any], inputs: dict[str, tuple[int, list[Any]]]) -> Any:
    """A model with an output ``y`` of floats."""
    described = [helper.make_tensor_value_info(name, *one) for name, one in inputs.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph(nodes, "g", described, [output])
    made = helper.make_model(graph, opset_imports=versions, ir_version=8)
    onnx.save(made, folder / "model.onnx")
    return load(folder, {})


def test_onnx_of_several_inputs(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["count"], ["counted"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["size", "counted"], ["y"]),
    ]
    inputs = {"size": (TensorProto.FLOAT, ["N", 1]), "count": (TensorProto.INT64, ["N", 1])}
    model = _onnx(tmp_path, nodes, inputs)
    size = np.array([1.5, 2.5])

    found = model.infer({"count": np.array([3.0, 4.0]), "size": size, "more": size})
    assert found["prediction"].tolist() == [[4.5], [6.5]]
    with pytest.raises(ValueError, match="several inputs: give a mapping with size, count"):
        model.infer({"size": size})
    for wrong in (3.5, np.nan):
        with pytest.raises(ValueError, match=r"count takes whole numbers of tensor\(int64\)"):
            model.infer({"count": np.array([3.0, wrong]), "size": size})


@pytest.mark.parametrize("name", [INPUT, "city"])
def test_onnx_of_texts(tmp_path: Path, name: str) -> None:
    codes = {
        "keys_strings": ["Seoul", "Busan"],
        "values_floats": [1.0, 2.0],
        "default_float": -1.0,
    }
    node = helper.make_node("LabelEncoder", ["city"], ["y"], domain="ai.onnx.ml", **codes)
    model = _onnx(tmp_path, [node], {"city": (TensorProto.STRING, ["N", 1])})

    found = model.infer({name: objects(["Busan", "Jeju"])})
    assert found["prediction"].tolist() == [[2.0], [-1.0]]


def test_saved_model(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    network = tf.Module()
    network.__call__ = tf.function(
        lambda x: {"doubled": 2 * x}, input_signature=[tf.TensorSpec([None, 2], tf.float32)]
    )
    tf.saved_model.save(network, str(tmp_path), signatures=network.__call__)

    found = load(tmp_path, {}).infer({"a": np.ones(3), "b": np.zeros(3)})

    assert found["prediction"].tolist() == [[2.0, 0.0]] * 3


def _predictor(folder: Path, code: str) -> None:
    (folder / "predictor.py").write_text(code)


def test_a_predictor_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "names.py").write_text("SCALE = 10\n")
    _predictor(
        tmp_path,
        "import names\n"
        "def load(model_dir, parameters):\n"
        "    return int(parameters['offset']), model_dir\n"
        "def predict(inputs, model):\n"
        "    return {'sum': names.SCALE * (inputs['a'] + inputs['b']) + model[0],\n"
        "            'folder': [model[1]] * len(inputs['a'])}\n",
    )

    found = load(tmp_path, {"offset": "5"}).infer({"a": np.arange(2), "b": np.arange(2)})

    assert found["sum"].tolist() == [5, 25]
    assert found["folder"].tolist() == [str(tmp_path)] * 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def load(d, p): ...", r"predictor\.py has no function predict\(\)"),
        ("def predict(i, m): ...\nload = 1", r"predictor\.py has no function load\(\)"),
        (
            "def load(d, p): ...\ndef predict(i, m): return {}",
            "The model returned nothing",
        ),
    ],
)
def test_a_predictor_without_its_functions_is_refused(
    tmp_path: Path, code: str, message: str
) -> None:
    _predictor(tmp_path, code)

    with pytest.raises(ModelError, match=message):
        load(tmp_path, {}).infer({"a": np.arange(2)})


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")

    with pytest.raises(ModelError, match=r"one model file.*or a predictor\.py"):
        load(tmp_path, {})


@pytest.mark.parametrize("flavor", ["sklearn", "pyfunc"])
def test_a_model_that_mlflow_saved(tmp_path: Path, flavor: str) -> None:
    import mlflow

    folder = tmp_path / "model"
    fitted = LogisticRegression().fit(pd.DataFrame(ROWS, columns=NAMES), LABELS)
    if flavor == "sklearn":
        mlflow.sklearn.save_model(fitted, folder, skops_trusted_types=None)
    else:

        class Doubled(mlflow.pyfunc.PythonModel):
            def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
                return model_input["a"] * 2

        mlflow.pyfunc.save_model(folder, python_model=Doubled())

    found = load(folder, {}).infer(_columns())

    expected = fitted.predict(ROWS) if flavor == "sklearn" else ROWS[:, 0] * 2
    assert np.allclose(found["prediction"], expected)
    assert ("probabilities" in found) == (flavor == "sklearn")


def test_instances_of_a_config_without_a_pipeline_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["OddHead"]}))
    (tmp_path / "model.safetensors").write_bytes(b"1")
    pytest.importorskip("torch")

    with pytest.raises(ValueError, match="OddHead"):
        load(tmp_path, {})
