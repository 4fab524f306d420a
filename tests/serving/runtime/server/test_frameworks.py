"""Every framework that a batch inference has is served: over both versions, and its mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from modelyard_runtime.models.loading import load
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tests.registry import model_files
from tests.serving.runtime import test_networks as networks
from tests.serving.runtime.server import served
from tests.serving.runtime.server.conftest import Open

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]

ROWS = np.random.default_rng(0).normal(size=(40, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)
PREDICTOR = """
def load(model_dir, parameters): pass
def predict(inputs, model): return 2 * inputs["input"]
"""


def sklearn(folder: Path) -> None:
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), folder / "model.joblib")


def sklearn_of_texts(folder: Path) -> None:
    fitted = make_pipeline(TfidfVectorizer(), LogisticRegression())
    joblib.dump(fitted.fit(["good", "bad"] * 9, ["yes", "no"] * 9), folder / "model.joblib")


def xgboost(folder: Path) -> None:
    made = pytest.importorskip("xgboost").XGBClassifier(n_estimators=3).fit(ROWS, LABELS)
    made.save_model(folder / "model.json")


def lightgbm(folder: Path) -> None:
    made = pytest.importorskip("lightgbm").LGBMRegressor(n_estimators=3, verbose=-1)
    made.fit(ROWS, ROWS[:, 0]).booster_.save_model(folder / "model.txt")


def mlflow(folder: Path) -> None:
    import mlflow

    made = LogisticRegression().fit(ROWS, LABELS)
    mlflow.sklearn.save_model(made, folder / "m", skops_trusted_types=None, pip_requirements=[])
    for file in (folder / "m").iterdir():
        file.rename(folder / file.name)


def hugging_face(folder: Path) -> None:
    networks._saved(folder, networks._bert("BertForSequenceClassification"))


def predictor(folder: Path) -> None:
    (folder / "predictor.py").write_text(PREDICTOR)


@dataclass(frozen=True)
class Case:
    """A model, and what its metadata has.

    Attributes:
        save: Writes its files.
        platform: What it is of.
        inputs: Name, datatype and shape of what it takes.
        outputs: The same of what it returns.
        width: Values in a row; 0 of one that takes texts.
        wrong: Status of a row of another width.
    """

    save: Callable[[Path], object]
    platform: str
    inputs: list[tuple[str, str, list[int]]]
    outputs: list[tuple[str, str, list[int]]]
    width: int = 3
    wrong: int = 400


THREE = [("input", "FP64", [-1, 3])]
CLASSES = [("prediction", "INT64", [-1]), ("probabilities", "FP64", [-1, 2])]
FP32_CLASSES = [("prediction", "INT64", [-1]), ("probabilities", "FP32", [-1, 2])]
CASES = [
    Case(sklearn, "sklearn", THREE, CLASSES),
    Case(sklearn_of_texts, "sklearn", [], [], width=0),
    Case(xgboost, "xgboost", THREE, FP32_CLASSES),
    Case(lightgbm, "lightgbm", THREE, [("prediction", "FP64", [-1])]),
    Case(lambda folder: model_files.onnx_file(folder, "m"), "onnx",
         [("x", "FP32", [-1, 1])], [("prediction", "FP32", [-1, 1])], width=1),
    Case(networks._script, "pytorch", [], []),
    Case(networks._exported, "pytorch", [], []),
    Case(networks._weights, "pytorch", [], []),
    Case(networks._handler, "", [], [], wrong=500),
    Case(networks._archive, "", [], [], wrong=500),
    Case(mlflow, "sklearn", THREE, CLASSES),
    Case(hugging_face, "transformers", [("input", "BYTES", [-1])], [], width=0),
    Case(predictor, "", [], [], wrong=200),
]  # fmt: skip


def rows_of(width: int) -> Any:
    return np.arange(2.0 * width).reshape(2, width).tolist() if width else ["good", "bad bad"]


def tensor_of(rows: list[Any], width: int) -> dict[str, Any]:
    shape = [2, width] if width else [2]
    return {
        "name": "given",
        "shape": shape,
        "datatype": "FP32" if width else "BYTES",
        "data": rows,
    }


def described(tensors: list[dict[str, Any]]) -> list[tuple[str, str, list[int]]]:
    return [(one["name"], one["datatype"], one["shape"]) for one in tensors]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.save.__name__.strip("_<>"))
async def test_a_framework_is_served(case: Case, tmp_path: Path, opened: Open) -> None:
    case.save(tmp_path)
    model = load(tmp_path, {})
    client = await opened(served.hosted("m", model))
    rows = rows_of(case.width)

    async def infer(width: int) -> Any:
        given = {"inputs": [{**tensor_of(rows_of(width), width)}]}
        if model.is_users_code:
            given["inputs"][0]["name"] = "input"
        return await client.post("/v2/models/m/infer", json=given)

    metadata = (await client.get("/v2/models/m")).json()
    answer = await infer(case.width)
    predictions = (
        await client.post("/v1/models/m:predict", json={"instances": rows})
    ).json()["predictions"]  # fmt: skip
    again = await asyncio.gather(*(infer(case.width) for _ in range(5)))

    assert metadata["platform"] == case.platform
    assert described(metadata["inputs"]) == case.inputs
    assert described(metadata["outputs"]) == case.outputs
    outputs = answer.json()["outputs"]
    assert [one.json()["outputs"][0]["shape"] for one in again] == [outputs[0]["shape"]] * 5
    if case.outputs:
        found = [
            (name, datatype, [-1, *shape[1:]]) for name, datatype, shape in described(outputs)
        ]
        assert found == case.outputs
    assert len(predictions) == outputs[0]["shape"][0] == 2
    if outputs[0]["datatype"] != "BYTES":
        flat = np.asarray(predictions, float).ravel()
        assert np.allclose(flat, np.ravel(outputs[0]["data"]), atol=1e-5)

    asked = [rows_of(5)] if case.width else [[None, None], [1.5, 2.5]]
    wrong = [await client.post("/v1/models/m:predict", json={"instances": one}) for one in asked]
    wrong += [await infer(5)] if case.width else []
    assert {one.status_code for one in wrong} == {case.wrong}
    if case.wrong != 200:
        assert all(one.json()["error"] for one in wrong)
