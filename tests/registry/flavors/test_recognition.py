"""Kinds of models, by the names and first bytes of their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelyard_runtime.recognition import recognize

from infra.storage import store
from registry.frameworks.layout import Layout
from tests.registry import model_files
from tests.registry.model_files import Maker

JOBLIB, TORCH, ONNX = b"\x80\x04", b"PK\x03\x04", b"\x08\x07"
XGBOOST_JSON, XGBOOST_UBJSON = b'{"learner":{', b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{"


def _recognized(folder: Path) -> tuple[str, str] | None:
    found = recognize(Layout(store(str(folder))))
    return found and (found.kind.loader, found.file)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.joblib": JOBLIB}, ("joblib_file", "a.joblib")),
        ({"a.pkl": JOBLIB, "notes.txt": b"x"}, ("joblib_file", "a.pkl")),
        ({"a.pt": TORCH}, ("torch_file", "a.pt")),
        ({"a.pt2": TORCH}, ("torch_file", "a.pt2")),
        ({"a.bin": TORCH, "model.py": b""}, ("torch_file", "a.bin")),
        ({"a.safetensors": b"1", "model.py": b""}, ("torch_file", "a.safetensors")),
        ({"a.onnx": ONNX}, ("onnx_file", "a.onnx")),
        ({"saved_model.pb": b"1", "a.pt": TORCH}, ("saved_model", "")),
        ({"config.json": b"{}", "model.safetensors": b"1"}, ("transformers_folder", "")),
        ({"a.json": XGBOOST_JSON, "b.json": b"{}"}, ("xgboost_file", "a.json")),
        ({"a.ubj": XGBOOST_UBJSON}, ("xgboost_file", "a.ubj")),
        ({"a.txt": b"tree\nversion=v4\n"}, ("lightgbm_file", "a.txt")),
        ({"a.cbm": b"CBM1"}, ("catboost_file", "a.cbm")),
        # Of several, the one that is called so.
        ({"model.joblib": JOBLIB, "scaler.joblib": JOBLIB}, ("joblib_file", "model.joblib")),
        ({"model.onnx": ONNX, "scaler.joblib": JOBLIB}, ("onnx_file", "model.onnx")),
        ({"a.joblib": JOBLIB, "b.joblib": JOBLIB}, None),
        ({"model.onnx": ONNX, "model.joblib": JOBLIB}, None),
        # What only is called so.
        ({"a.joblib": b"text"}, None),
        ({"a.pt": b"text"}, None),
        ({"a.bin": TORCH}, None),
        ({"a.safetensors": b"1"}, None),
        ({"a.txt": b"a tree\n"}, None),
        ({"a.cbm": b"CBX1"}, None),
        ({"deep/a.joblib": JOBLIB}, None),
        ({"weights": b"1"}, None),
    ],
    ids=str,
)
def test_files(tmp_path: Path, files: dict[str, bytes], expected: tuple[str, str] | None) -> None:
    _write(tmp_path, files)

    assert _recognized(tmp_path) == expected


@pytest.mark.parametrize(
    ("make", "loader"),
    [
        (model_files.scikit_learn, "joblib_file"),
        (model_files.onnx_file, "onnx_file"),
        (model_files.huggingface, "transformers_folder"),
        (model_files.tensorflow, "saved_model"),
        (model_files.pytorch_files, "torch_file"),
    ],
)
def test_real_models(tmp_path: Path, make: Maker, loader: str) -> None:
    make(tmp_path / "model", "name")

    found = _recognized(tmp_path / "model")

    assert found is not None
    assert found[0] == loader
