"""Frameworks of models that the runtime's predictor loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import storage
from infra.errors import BadInputError
from registry import frameworks
from tests.registry import model_files

NAME = "line"


def _check(framework: str, path: Path) -> None:
    frameworks.check(framework, storage.store(str(path)), NAME)


def _code(framework: str, path: Path) -> str:
    with pytest.raises(BadInputError) as raised:
        _check(framework, path)
    assert raised.value.hint
    assert str(path) in raised.value.message
    return raised.value.code


def test_what_mlflow_saved_is_taken(tmp_path: Path) -> None:
    model_files.mlflow_folder(tmp_path / "model", NAME)

    _check("mlflow", tmp_path / "model")


@pytest.mark.parametrize("framework", ["xgboost", "lightgbm", "catboost"])
def test_a_booster_is_one_file_of_its_own_kind(framework: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("tree\n" if framework != "lightgbm" else "notes")

    assert _code(framework, tmp_path) == "BoosterMissing"


def test_a_folder_of_mlflow_has_its_file(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "MLmodel").write_text("flavors: {}")

    with pytest.raises(BadInputError, match="MLmodel") as raised:
        _check("mlflow", tmp_path)

    assert (raised.value.code, "below/" in raised.value.hint) == ("MlmodelMissing", True)
    _check("mlflow", tmp_path / "below")


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("def load(d, p): ...\ndef predict(i, m): ...\n", None),
        ("from mine import load, forecast as predict\n", None),
        ("from mine import *\n", None),
        ("load = predict = print\n", None),
        ("def load(d, p): ...\n", "has no predict."),
        ("", "has no load and no predict."),
        ("def load(:\n", "is no Python: "),
        ("\0", "is no Python: "),
        ("(" * 10_000, "is no Python: "),
    ],
)
def test_a_predictor_has_both_functions(code: str, refusal: str | None, tmp_path: Path) -> None:
    (tmp_path / "predictor.py").write_text(code)

    if refusal is None:
        _check("custom", tmp_path)
        return
    with pytest.raises(BadInputError) as raised:
        _check("custom", tmp_path)
    assert raised.value.code == "PredictorMalformed"
    assert refusal in raised.value.message


def test_a_predictor_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("weights")

    assert _code("custom", tmp_path) == "PredictorMissing"
