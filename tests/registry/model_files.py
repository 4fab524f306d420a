"""Real models, one for each framework, and tiny: ``y = 2 x + 1`` where there is a choice."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression

SAVED_MODEL = Path(__file__).with_name("artifacts") / "saved_model"

_MODEL = """import torch


class Line(torch.nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
"""
_HANDLER = "def handle(data, context):\n    return data\n"


def _line() -> Any:
    torch = pytest.importorskip("torch")
    line = torch.nn.Linear(1, 1)
    with torch.no_grad():
        line.weight.fill_(2.0)
        line.bias.fill_(1.0)
    return line


def tensorflow(folder: Path, name: str) -> None:
    """A SavedModel, made by ``artifacts/make_saved_model.py``."""
    shutil.copytree(SAVED_MODEL, folder, dirs_exist_ok=True)


def pytorch_files(folder: Path, name: str) -> None:
    """What an archive would be made of."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(_MODEL)
    (folder / "handler.py").write_text(_HANDLER)
    torch = pytest.importorskip("torch")
    torch.save(_line().state_dict(), folder / "model.pt")
    (folder / "requirements.txt").write_text("numpy\n")
    (folder / "extra").mkdir()
    (folder / "extra" / "labels.json").write_text("[]")


def pytorch_scripted(folder: Path, name: str) -> None:
    """TorchScript, whose file has the network's operations."""
    torch = pytest.importorskip("torch")
    folder.mkdir(parents=True, exist_ok=True)
    torch.jit.save(torch.jit.script(_line()), str(folder / "model.pt"))


def pytorch_exported(folder: Path, name: str) -> None:
    """An ExportedProgram, whose file has them too."""
    torch = pytest.importorskip("torch")
    folder.mkdir(parents=True, exist_ok=True)
    exported = torch.export.export(_line(), (torch.ones(1, 1),))
    torch.export.save(exported, folder / "model.pt2")


def pytorch_archive(folder: Path, name: str) -> None:
    """The archive that torch-model-archiver packs of these."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mar").write_bytes(_packed(name))


@functools.cache
def _packed(name: str) -> bytes:
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    with tempfile.TemporaryDirectory() as where:
        files = Path(where) / "files"
        pytorch_files(files, name)
        subprocess.run(
            [
                str(archiver), "--model-name", name, "--version", "1.0",
                "--model-file", str(files / "model.py"), "--handler", str(files / "handler.py"),
                "--serialized-file", str(files / "model.pt"), "--export-path", where,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        return (Path(where) / f"{name}.mar").read_bytes()


def scikit_learn(folder: Path, name: str) -> None:
    """A fitted estimator."""
    folder.mkdir(parents=True, exist_ok=True)
    x = np.arange(4.0).reshape(-1, 1)
    joblib.dump(LinearRegression().fit(x, 2 * x[:, 0] + 1), folder / "model.joblib")


def huggingface(folder: Path, name: str) -> None:
    """Weights and configuration as ``save_pretrained`` leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"linear.weight": np.full((2, 2), 2.0, np.float32), "linear.bias": np.ones(2)}
    safetensors.numpy.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 2}))
    (folder / "tokenizer.json").write_text("{}")


def onnx_model() -> onnx.ModelProto:
    """``y = 2 x + 1`` as a graph."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    slope = helper.make_tensor("slope", TensorProto.FLOAT, [1], [2.0])
    offset = helper.make_tensor("offset", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Mul", ["x", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "line", [x], [y], [slope, offset])
    return helper.make_model(graph)


def onnx_file(folder: Path, name: str) -> None:
    """One file."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx_model(), str(folder / "model.onnx"))


def tensorflow_triton(folder: Path, name: str) -> None:
    """A model folder of Triton's."""
    tensorflow(folder / "1" / "model.savedmodel", name)
    (folder / "config.pbtxt").write_text('platform: "tensorflow_savedmodel"\n')


def pytorch_triton(folder: Path, name: str) -> None:
    """A repository with one model folder, of two versions."""
    torch, root = pytest.importorskip("torch"), folder / "line"
    for version in ("1", "2"):
        (root / version).mkdir(parents=True)
        torch.jit.save(torch.jit.script(_line()), str(root / version / "model.pt"))
    (root / "config.pbtxt").write_text('name: "line"\nbackend: "pytorch"\n')


def onnx_triton(folder: Path, name: str) -> None:
    """A model folder whose configuration leaves all to Triton."""
    onnx_file(folder / "1", name)
    (folder / "config.pbtxt").write_text("max_batch_size: 8\n")


def xgboost_file(folder: Path, name: str) -> None:
    """A booster in its own binary format."""
    import xgboost

    folder.mkdir(parents=True, exist_ok=True)
    rows = np.arange(8.0).reshape(-1, 1)
    xgboost.XGBRegressor(n_estimators=2).fit(rows, rows[:, 0]).save_model(folder / "model.ubj")


def lightgbm_file(folder: Path, name: str) -> None:
    """A booster in its own text format."""
    import lightgbm

    folder.mkdir(parents=True, exist_ok=True)
    rows = np.arange(80.0).reshape(-1, 1)
    data = lightgbm.Dataset(rows, rows[:, 0])
    lightgbm.train({"verbose": -1}, data, 2).save_model(folder / "model.txt")


def mlflow_folder(folder: Path, name: str) -> None:
    """A fitted estimator as MLflow saves it."""
    import mlflow.sklearn

    rows = np.arange(4.0).reshape(-1, 1)
    mlflow.sklearn.save_model(LinearRegression().fit(rows, rows[:, 0]), folder)


def predictor_code(folder: Path, name: str) -> None:
    """A model of its own code."""
    folder.mkdir(parents=True, exist_ok=True)
    code = "def load(model_dir, parameters): ...\ndef predict(inputs, model): return inputs\n"
    (folder / "predictor.py").write_text(code)


Maker = Callable[[Path, str], None]

# (framework, what makes its files)
MAKERS: dict[str, tuple[str, Maker]] = {
    "tensorflow": ("tensorflow", tensorflow),
    "pytorch archive": ("pytorch", pytorch_archive),
    "pytorch files": ("pytorch", pytorch_files),
    "pytorch scripted": ("pytorch", pytorch_scripted),
    "pytorch exported": ("pytorch", pytorch_exported),
    "scikit-learn": ("scikit-learn", scikit_learn),
    "huggingface": ("huggingface", huggingface),
    "onnx": ("onnx", onnx_file),
    "xgboost": ("xgboost", xgboost_file),
    "lightgbm": ("lightgbm", lightgbm_file),
    "custom": ("custom", predictor_code),
    "tensorflow-triton": ("tensorflow-triton", tensorflow_triton),
    "pytorch-triton": ("pytorch-triton", pytorch_triton),
    "onnx-triton": ("onnx-triton", onnx_triton),
}
